"""What endpoints ask for: a session around the function, ids, page sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.errors import Fault, pointer, refusal
from skyline.schemas.datasets import NAME_FORM
from store.session import reading, unit_of_work


def _reading() -> Iterator[Session]:
    with reading() as session:
        yield session


def _writing() -> Iterator[Session]:
    with unit_of_work() as session:
        yield session


# scope="function": the commit comes before the answer; by default it would come after it has gone out.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]

JobId = Annotated[UUID, Path(description="Id of the job.")]
DatasetName = Annotated[
    str, Path(description="Name of a registered data set.", pattern=f"^{NAME_FORM.pattern}$", max_length=100)
]
TableName = Annotated[
    str, Path(description="Name of a registered table.", pattern=f"^{NAME_FORM.pattern}$", max_length=100)
]
DeviceName = Annotated[
    str, Path(description="Name of a device with a profile.", pattern=f"^{NAME_FORM.pattern}$", max_length=100)
]
CandidateId = Annotated[UUID, Path(description="Id of the candidate.")]


def _no_query(request: Request) -> None:
    """A parameter that is not known is refused: who writes ``dry_run`` must not change anything."""
    faults = [
        Fault(
            "Invalid parameter", f"query parameter '{name}': there is none here", pointer(("query", name)), got, "none"
        )
        for name, got in request.query_params.items()
    ]
    if faults:
        raise refusal(faults, "Invalid parameters")


NoQuery = Depends(_no_query)
"""Of routes that change something and take no parameters."""
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""PostgreSQL takes any character but NUL."""


class PageQuery(BaseModel):
    """A page of a list."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    cursor: Annotated[str, Field(max_length=500)] | None = None
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
