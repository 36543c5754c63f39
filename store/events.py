"""What happened in a job, numbered in the order in which it was committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from store import cursors
from store.bulk import insert_rows
from store.clock import now
from store.errors import NotFoundError
from store.models import Event, Job

EVENTS = cast(Table, Event.__table__)
_JOBS = cast(Table, Job.__table__)
_COUNT = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("job_id"))
    .values(last_seq=_JOBS.c.last_seq + bindparam("n"))
    .returning(_JOBS.c.last_seq)
)


def append(session: Session, job_id: UUID, items: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Adds events ``(type, data)`` and returns the number of the last one.

    The job's counter is locked until the commit, so that numbers are committed in order and without a gap: whoever
    has read up to a number has missed nothing below it.
    """
    last: int | None = session.execute(_COUNT, {"job_id": job_id, "n": len(items)}).scalar_one_or_none()
    if last is None:
        raise NotFoundError("job", job_id)
    at = now(session)
    first = last - len(items) + 1
    rows = [(job_id, first + index, at, kind, data) for index, (kind, data) in enumerate(items)]
    insert_rows(session, EVENTS, ("job_id", "seq", "at", "type", "data"), rows)
    return last


def after(session: Session, job_id: UUID, seq: int, limit: int = 500) -> list[Event]:
    """Events with numbers above ``seq``, in order."""
    above = Event.seq > min(seq, cursors.MOST)
    query = select(Event).where(Event.job_id == job_id, above).order_by(Event.seq).limit(limit)
    return list(session.scalars(query))
