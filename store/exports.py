"""Files that are made when somebody asks for them: one task for each format of a candidate, beside its job's course."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import catalog, jobs, quota, tasks
from store.clock import now
from store.models import Attempt, Candidate, Task
from store.queue import SHORT

PREFIX = "export."
"""Of the kind of such a task; the format follows."""
AGAIN_SECONDS = 60.0
"""How long a failure is told before asking makes another try."""


def order(session: Session, candidate: Candidate, format: str) -> Task:
    """The task that makes the file. One that is over is done again: when it is done, its file has gone; when it
    failed, after a while. Raises QuotaExceededError where the file would find no room.
    """
    jobs.lock(session, candidate.job_id)
    kind = f"{PREFIX}{format}"
    task = tasks.find(session, candidate.job_id, kind, candidate.id)
    if task is not None and (
        task.status in jobs.OPEN_TASKS or (task.status == "failed" and not _failed_long_ago(session, task))
    ):
        return task
    quota.admit(session)
    if task is None:
        return tasks.add(session, candidate.job_id, kind, candidate.id)
    tasks.again(session, task)
    session.refresh(task)
    return task


def waiting_for(session: Session) -> str | None:
    """What keeps such tasks from being done: that no live worker takes any, or None."""
    live = [worker for worker, lives in catalog.workers(session) if lives and not worker.draining]
    if any(SHORT in worker.queues for worker in live):
        return None
    return f"a worker on queue {SHORT} (`skyline worker`); live: {', '.join(w.name for w in live) or 'none'}"


def _failed_long_ago(session: Session, task: Task) -> bool:
    last = select(Attempt.ended_at).where(Attempt.task_id == task.id).order_by(Attempt.number.desc()).limit(1)
    ended = session.scalars(last).first()
    return ended is None or ended < now(session) - timedelta(seconds=AGAIN_SECONDS)
