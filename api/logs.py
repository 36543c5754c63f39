"""What the processes of a job's attempts print: pages of JSON, or all of it as text."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

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
    task: Annotated[UUID | None, Query(description="Only of this task, as the job's attempts name it.")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Only of attempts of this number.")] = None,
    after: Annotated[int, Query(ge=0, le=LAST, description="`id` of the last piece seen.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="Pieces of a page.")] = 200,
    accept: Annotated[str, Header(description=f"`{TEXT}` for all of it as text, else JSON.")] = "application/json",
) -> Response:
    """A page of pieces in the order in which they came; pass `next` as `after` to go on. Attempts that ran at once are
    interleaved. Pieces come with a worker's heartbeats; of each attempt the first 64 kB and the last 192 kB are kept.

    `Accept: text/plain` gives all that there is now, attempt by attempt, under headings (`after` and `limit` are for
    pages).
    """
    headers = {"Vary": "Accept"}
    with reading() as session:
        jobs.get(session, job_id)  # 404 before an answer begins
        if TEXT in accept.lower():
            attempts = logs.attempts(session, job_id, task=task, attempt=attempt)
            return StreamingResponse(readable(_chunks(attempts)), media_type=TEXT, headers=headers)
        found = logs.page(session, job_id, task=task, attempt=attempt, after=min(after, 2**31 - 1), limit=limit)
    page = LogPage(items=[views.log_chunk(piece) for piece in found], next=found[-1].id if found else after)
    return Response(page.model_dump_json(), media_type="application/json", headers=headers)


def _chunks(attempts: list[tuple[UUID, int]]) -> Iterator[LogChunk]:
    """One attempt in memory at a time."""
    for task_id, number in attempts:
        with reading() as session:
            found = logs.of_attempt(session, task_id, number)
        yield from map(views.log_chunk, found)
