"""What happened in a job, numbered in the order in which it was committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session

from store.clock import now
from store.errors import NotFoundError
from store.models import Event, Job

EVENTS = cast(Table, Event.__table__)


def append(session: Session, job_id: UUID, items: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Adds events ``(type, data)`` and returns the number of the last one.

    The job's counter is locked until the commit, so that numbers are committed in order and without a gap: whoever
    has read up to a number has missed nothing below it.
    """
    last = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(last_seq=Job.last_seq + len(items))
        .returning(Job.last_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if last is None:
        raise NotFoundError("job", job_id)
    at = now(session)
    first = last - len(items) + 1
    rows = [
        {"job_id": job_id, "seq": first + index, "at": at, "type": kind, "data": dict(data)}
        for index, (kind, data) in enumerate(items)
    ]
    if rows:
        session.execute(insert(EVENTS), rows)
    return last


def after(session: Session, job_id: UUID, seq: int, limit: int = 500) -> list[Event]:
    """Events with numbers above ``seq``, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    return list(session.scalars(query))
