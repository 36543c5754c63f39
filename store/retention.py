"""What goes by itself: old jobs, exports that nobody uses, exports over the quota, files whose rows are gone.

Any number of workers may do this at once. A job's lock stands before every removal, and whoever finds it taken leaves
that job for the next round; rows go first, files after the commit (:mod:`store.loose`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from store import jobs, loose, origins, quota
from store.clock import now
from store.models import Artefact, Job
from store.session import reading, unit_of_work
from store.settings import settings

JOBS_AT_ONCE = 100
"""Of one round; the next comes soon."""

log = logging.getLogger(__name__)


def tidy() -> None:
    """One round of all of it."""
    forget_jobs()
    drop(quota.unused, "unused for long")
    drop(quota.surplus, "over the quota")
    loose.sweep()


def forget_jobs() -> int:
    """Deletes jobs that ended as many days ago as the settings say, as a user would; returns how many."""
    days = settings().keep_jobs_days
    if not days:
        return 0
    with reading() as session:
        old = _ended_before(session, days)
        found = session.scalars(select(Job.id).where(*old).order_by(Job.ended_at).limit(JOBS_AT_ONCE)).all()
    deleted = 0
    for job_id in found:
        with unit_of_work() as session:
            if not jobs.try_lock(session, job_id):
                continue  # another worker is at it
            if session.scalars(select(Job.id).where(Job.id == job_id, *_ended_before(session, days))).first() is None:
                continue  # it was tried again meanwhile
            if origins.users(session, job_id):
                continue  # until they have what they need of it
            paths = jobs.delete(session, job_id)
        loose.discard(paths)
        log.info("job %s ended more than %g days ago and is deleted", job_id, days)
        deleted += 1
    return deleted


def drop(chosen: Callable[[Session], list[quota.Export]], why: str) -> int:
    """Removes exports; returns how many. One that was used since it was chosen stays."""
    with reading() as session:
        found = chosen(session)
        at = now(session)
    dropped = 0
    for job_id, exports in groupby(sorted(found, key=lambda export: export.job_id), lambda export: export.job_id):
        with unit_of_work() as session:
            if not jobs.try_lock(session, job_id):
                continue  # gone, or at work; the next round will see
            gone = delete(Artefact).where(
                Artefact.id.in_([export.id for export in exports]),
                quota.last_use < at - timedelta(seconds=quota.IN_USE_SECONDS),
            )
            paths = session.scalars(gone.returning(Artefact.path).execution_options(synchronize_session=False)).all()
            loose.release(session, paths)
        loose.discard(paths)
        if paths:
            log.info("%d exports of job %s were %s and are gone", len(paths), job_id, why)
        dropped += len(paths)
    return dropped


def _ended_before(session: Session, days: float) -> tuple[ColumnElement[bool], ...]:
    return Job.status.in_(jobs.ENDED), Job.ended_at < now(session) - timedelta(days=days)
