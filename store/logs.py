"""What the children of a job's attempts printed: readable from any host, and of a bounded size.

Of each attempt the first HEAD_BYTES and the last TAIL_BYTES are kept, rounded up to whole chunks. Where something was
dropped, the text says how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, insert, select
from sqlalchemy.orm import Session, aliased

from store import cursors, jobs
from store.clock import now
from store.models import Attempt, LogChunk, Task

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 192 * 1024
CHUNK_BYTES = 16 * 1024
"""The most that one chunk should hold."""
REASON_LINES = 20
REASON_CHARACTERS = 2_000
LAST_CHUNKS = 8
"""Enough to hold the lines of a reason."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk as it is read; its text begins with a note where something before it was dropped."""

    id: int
    task: UUID
    kind: str
    candidate: UUID | None
    attempt: int
    offset: int
    at: datetime
    text: str


def append(session: Session, task_id: UUID, attempt: int, offset: int, size: int, text: str) -> None:
    """Adds what an attempt printed from byte ``offset`` on, ``size`` bytes of it, and drops what is too much by now.

    The caller holds the task (:func:`store.tasks.hold`), and with it the job's lock: numbers follow commits.
    """
    job_id = session.execute(select(Task.job_id).where(Task.id == task_id)).scalar_one()
    jobs.ensure_locked(session, job_id)
    row = {"job_id": job_id, "task_id": task_id, "attempt": attempt, "offset": offset, "size": size}
    session.execute(insert(LogChunk).values(**row, text=storable(text), at=now(session)))
    middle = (
        LogChunk.task_id == task_id,
        LogChunk.attempt == attempt,
        LogChunk.offset >= HEAD_BYTES,
        LogChunk.offset + LogChunk.size <= offset + size - TAIL_BYTES,
    )
    if offset + size > HEAD_BYTES + TAIL_BYTES:
        session.execute(delete(LogChunk).where(*middle).execution_options(**jobs.NO_SYNC))


def storable(text: str) -> str:
    """PostgreSQL takes any character but NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def end(session: Session, task_id: UUID, attempt: int) -> int:
    """How many bytes of what the attempt printed are stored or were dropped."""
    of_attempt = (LogChunk.task_id == task_id, LogChunk.attempt == attempt)
    return session.execute(select(func.max(LogChunk.offset + LogChunk.size)).where(*of_attempt)).scalar() or 0


def page(
    session: Session,
    job_id: UUID,
    *,
    task: UUID | None = None,
    attempt: int | None = None,
    after: int = 0,
    limit: int = 200,
) -> list[Piece]:
    """Chunks of a job with ids above ``after`` in the order in which they came; attempts at once are interleaved."""
    query = (
        _pieces()
        .where(LogChunk.job_id == job_id, LogChunk.id > min(after, cursors.MOST))
        .order_by(LogChunk.id)
        .limit(limit)
    )
    if task is not None:
        query = query.where(LogChunk.task_id == task)
    if attempt is not None:
        query = query.where(LogChunk.attempt == attempt)
    return [_piece(row) for row in session.execute(query)]


def of_attempt(session: Session, task_id: UUID, attempt: int) -> list[Piece]:
    """All that is kept of one attempt."""
    query = _pieces().where(LogChunk.task_id == task_id, LogChunk.attempt == attempt).order_by(LogChunk.offset)
    return [_piece(row) for row in session.execute(query)]


def attempts(
    session: Session, job_id: UUID, *, task: UUID | None = None, attempt: int | None = None
) -> list[tuple[UUID, int]]:
    """(task, number) of a job's attempts in the order of their start."""
    query = select(Attempt.task_id, Attempt.number).where(Attempt.job_id == job_id)
    if task is not None:
        query = query.where(Attempt.task_id == task)
    if attempt is not None:
        query = query.where(Attempt.number == attempt)
    return [(task_id, number) for task_id, number in session.execute(query.order_by(Attempt.started_at, Attempt.id))]


def tail(session: Session, task_id: UUID, attempt: int) -> str:
    """The last whole lines that an attempt printed, for the reason why it failed; empty when it printed nothing."""
    last = (
        select(LogChunk.offset, LogChunk.text)
        .where(LogChunk.task_id == task_id, LogChunk.attempt == attempt)
        .order_by(LogChunk.offset.desc())
        .limit(LAST_CHUNKS)
    )
    rows = session.execute(last).all()
    return last_lines("".join(text for _, text in reversed(rows)))


def last_lines(text: str) -> str:
    """The end of a text, in whole lines as far as one fits."""
    kept: list[str] = []
    room = REASON_CHARACTERS
    for line in reversed(text.rstrip().splitlines()[-REASON_LINES:]):
        if len(line) >= room:
            return "\n".join(kept) if kept else "..." + line[-room:]
        kept.insert(0, line)
        room -= len(line) + 1
    return "\n".join(kept)


def _pieces() -> Select[*tuple[Any, ...]]:
    """Rows of Piece's fields, and the bytes that are missing before each."""
    before = aliased(LogChunk)
    end_before = (
        select(before.offset + before.size)
        .where(
            before.task_id == LogChunk.task_id,
            before.attempt == LogChunk.attempt,
            before.offset < LogChunk.offset,
        )
        .order_by(before.offset.desc())
        .limit(1)
        .correlate(LogChunk)
        .scalar_subquery()
    )
    dropped = LogChunk.offset - func.coalesce(end_before, 0)
    return select(
        LogChunk.id,
        LogChunk.task_id,
        Task.kind,
        Task.candidate_id,
        LogChunk.attempt,
        LogChunk.offset,
        LogChunk.at,
        LogChunk.text,
        dropped,
    ).join(Task, Task.id == LogChunk.task_id)


def _piece(row: Any) -> Piece:
    dropped = row[-1]
    text = f"\n[... {dropped:,} bytes left out ...]\n{row[-2]}" if dropped else row[-2]
    return Piece(*(*row[:-2], text))
