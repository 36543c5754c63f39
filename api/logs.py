"""What the processes of a job's attempts print: pages of JSON, or all of it as text."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api import examples, views
from api.deps import JobId
from api.events import LAST
from api.openapi import problems
from skyline.logs import readable
from skyline.schemas import LogChunk, LogPage
from store import jobs, logs
from store.session import reading

router = APIRouter(prefix="/v1/jobs", tags=["events"])

TEXT = "text/plain"
_TEXT = {
    "schema": {"type": "string"},
    "example": "".join(readable(map(LogChunk.model_validate, examples.LOG["items"]))),
}


class LogQuery(BaseModel):
    """Of which attempts, where to go on, and how many."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    task: UUID | None = None
    """Only of this task, as the job's attempts name it."""
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Only of attempts of this number."""
    after: Annotated[int, Field(ge=0, le=LAST)] = 0
    """`id` of the last piece seen."""
    limit: Annotated[int, Field(ge=1, le=500)] = 200
    """Pieces of a page."""


@router.get(
    "/{job_id}/log",
    summary="What a job's processes print",
    response_model=LogPage,
    responses={
        200: {"content": {"application/json": {"example": examples.LOG}, TEXT: _TEXT}},
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def read_log(
    job_id: JobId,
    query: Annotated[LogQuery, Query()],
    accept: Annotated[str, Header(description=f"`{TEXT}` for all of it as text, else JSON.")] = "application/json",
) -> Response:
    """A page of pieces in the order in which they came; pass `next` as `after` to go on. Attempts that ran at once are
    interleaved. Pieces come with a worker's heartbeats; of each attempt the first 64 kB and the last 192 kB are kept.

    `Accept: text/plain` gives all that there is now, attempt by attempt, under headings (`after` and `limit` are for
    pages).
    """
    headers, task, attempt = {"Vary": "Accept"}, query.task, query.attempt
    with reading() as session:
        jobs.get(session, job_id)  # 404 before an answer begins
        if TEXT in accept.lower():
            attempts = logs.attempts(session, job_id, task=task, attempt=attempt)
            return StreamingResponse(readable(_chunks(attempts)), media_type=TEXT, headers=headers)
        found = logs.page(session, job_id, **query.model_dump())
    page = LogPage(items=[views.log_chunk(piece) for piece in found], next=found[-1].id if found else query.after)
    return Response(page.model_dump_json(), media_type="application/json", headers=headers)


def _chunks(attempts: list[tuple[UUID, int]]) -> Iterator[LogChunk]:
    """One attempt in memory at a time."""
    for task_id, number in attempts:
        with reading() as session:
            found = logs.of_attempt(session, task_id, number)
        yield from map(views.log_chunk, found)
