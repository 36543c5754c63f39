"""What endpoints ask for: a session around the function, ids, page sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path
from pydantic import Field
from sqlalchemy.orm import Session

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
CandidateId = Annotated[UUID, Path(description="Id of the candidate.")]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""PostgreSQL takes any character but NUL."""
