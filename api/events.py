"""What happens in a job: rows with numbers, as pages or as they come (server-sent events)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import anyio
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from sqlalchemy.exc import SQLAlchemyError

from api import examples, views
from api.deps import JobId
from api.live import LOOK_SECONDS, look
from api.openapi import problems
from skyline.schemas import Event, EventPage
from skyline.schemas.answers import ENDED
from store import events, jobs
from store.errors import NotFoundError
from store.session import reading

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobs", tags=["events"])

KEEP_ALIVE_SECONDS = 15.0
BATCH = 500
"""Events read at once."""
LAST = 2**53
"""Numbers above have no exact form in JavaScript."""
NUMBER = WithJsonSchema({"type": "integer", "minimum": 0, "maximum": LAST, "title": "Last-Event-Id"})
"""A header is there or not; it cannot be null."""
STREAM = "text/event-stream"
_STREAMED = {"schema": {"type": "string"}, "example": examples.STREAM}


class EventQuery(BaseModel):
    """Where to go on, and how many."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    after: Annotated[int, Field(ge=0, le=LAST)] = 0
    """Number of the last event seen."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    """Events of a page; a stream has no limit."""


@router.get(
    "/{job_id}/events",
    summary="What happens in a job",
    response_model=EventPage,
    responses={
        200: {"content": {"application/json": {"example": examples.EVENTS}, STREAM: _STREAMED}},
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
async def read_events(
    job_id: JobId,
    query: Annotated[EventQuery, Query()],
    last_event_id: Annotated[
        int | None, NUMBER, Header(ge=0, le=LAST, description="As `after`; goes before it.")
    ] = None,
    accept: Annotated[str, Header(description=f"`{STREAM}` for a stream, else JSON.")] = "application/json",
) -> Response:
    """`Accept: text/event-stream` gives a stream: `id` is the event's number, `event` its type, `data` the whole event.

    It goes on from `Last-Event-ID` (or `after`), so a reconnect misses nothing, and ends when the job has ended and
    all was sent. Otherwise a page of JSON; pass `next` as `after` to go on.
    """
    start = query.after if last_event_id is None else last_event_id
    _, first = await look(partial(_after, job_id, start, query.limit))  # 404 before a stream begins
    if STREAM in accept.lower():
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Vary": "Accept"}
        return StreamingResponse(_stream(job_id, start), media_type=STREAM, headers=headers)
    page = EventPage(items=first, next=first[-1].seq if first else start)
    return Response(page.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})


def _after(job_id: UUID, seq: int, limit: int) -> tuple[bool, list[Event]]:
    """(whether the job has ended, its next events); asked in this order, as an end comes with its event."""
    with reading() as session:
        ended = jobs.get(session, job_id).status in ENDED
        return ended, [views.event(row) for row in events.after(session, job_id, seq, limit)]


async def _stream(job_id: UUID, seq: int) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"  # at once, so that the client knows the stream is open
    spoke = time.monotonic()
    while True:
        try:
            ended, found = await look(partial(_after, job_id, seq, BATCH))
        except NotFoundError:
            return  # deleted meanwhile
        except SQLAlchemyError as error:
            log.warning("events of job %s stop: the client has to come again", job_id, exc_info=error)
            return
        for event in found:
            yield format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.seq))
            seq, spoke = event.seq, time.monotonic()
        if len(found) == BATCH:
            continue
        if ended:
            return
        if time.monotonic() - spoke >= KEEP_ALIVE_SECONDS:
            yield KEEPALIVE_COMMENT
            spoke = time.monotonic()
        await anyio.sleep(LOOK_SECONDS)
