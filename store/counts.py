"""How much of everything there is, for whoever watches the service."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store import catalog, quota
from store.jobs import OPEN_TASKS
from store.models import Job, LooseFile, Outbox, Task


@dataclass(frozen=True, slots=True)
class Counts:
    """One moment."""

    jobs: dict[str, int]
    """By status."""
    tasks: dict[tuple[str, str], int]
    """Open ones, by (queue, status)."""
    workers: dict[tuple[str, str], int]
    """By (device, ``live``, ``draining`` or ``gone``)."""
    unsent: int
    """Messages that the broker has not taken yet."""
    artefacts: dict[str, quota.Usage]
    """By format."""
    loose: int
    """Files on their way in or out."""


def take(session: Session) -> Counts:
    jobs = session.execute(select(Job.status, func.count()).group_by(Job.status))
    tasks = session.execute(
        select(Task.queue, Task.status, func.count())
        .where(Task.status.in_(OPEN_TASKS))
        .group_by(Task.queue, Task.status)
    )
    workers = Counter(
        (worker.device, "gone" if not live else "draining" if worker.draining else "live")
        for worker, live in catalog.workers(session)
    )
    unsent = session.execute(select(func.count()).select_from(Outbox).where(Outbox.sent_at.is_(None))).scalar_one()
    return Counts(
        {status: number for status, number in jobs},
        {(queue, status): number for queue, status, number in tasks},
        dict(workers),
        unsent,
        quota.usage(session),
        session.execute(select(func.count()).select_from(LooseFile)).scalar_one(),
    )
