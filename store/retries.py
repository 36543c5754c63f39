"""Second chances: a failed or cancelled job goes on from where it was, a failed verification is done again.

What was found is kept: candidates, values, events, test errors. Tasks wait again with all their attempts before them.
Their fences grow on, so that whatever still ends of an earlier attempt writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import candidates, jobs, tasks
from store.errors import IllegalTransitionError, NotRetriableError
from store.models import Candidate, Job, Task


def retry_job(session: Session, job_id: UUID) -> Job:
    """Queues again what failed or was cancelled of a job; raises IllegalTransitionError for one that needs no retry.

    A job whose search is over verifies what has no verification yet; one whose verifications are over concludes.
    """
    status = jobs.lock(session, job_id)
    if status not in ("failed", "cancelled"):
        raise IllegalTransitionError(job_id, status, "retried; only a job that failed or was cancelled can be")
    tasks.abandon(session, job_id)
    every = _tasks_of(session, job_id)
    verifications = [task for task in every if task.kind == "verify"]
    conclusions = [task for task in every if task.kind == "conclude"]
    failed = _failed(session, job_id)
    again = [task for task in verifications if task.status != "done" or task.candidate_id in failed]
    # A search orders all verifications at its very end, in one transaction.
    searching = not verifications and not conclusions
    again = [task for task in every if task.kind == "search"] if searching else again or conclusions
    jobs.reopen(session, job_id, "queued" if searching else "verifying", "retried", tasks.share_over(every, again))
    for task in again:
        if task.candidate_id is not None and task.candidate_id in failed:
            candidates.restore(session, task.candidate_id)
        tasks.again(session, task)
    return jobs.get(session, job_id)


def retry_candidate(session: Session, candidate_id: UUID) -> Candidate:
    """Verifies a candidate again whose verification failed; raises NotRetriableError otherwise.

    A job that has ended goes back to verifying and concludes once more.
    """
    job_id = candidates.get(session, candidate_id).job_id
    status = jobs.lock(session, job_id)
    every = _tasks_of(session, job_id)
    candidate = candidates.get(session, candidate_id)
    task = next((task for task in every if task.candidate_id == candidate_id and task.kind == "verify"), None)
    why = _why_not(candidate, status, task, every)
    if why is not None:
        raise NotRetriableError(candidate_id, why)
    assert task is not None, "there is a reason why not"
    if status in jobs.ENDED:
        tasks.abandon(session, job_id)
        reason = f"candidate {candidate_id} is verified again"
        jobs.reopen(session, job_id, "verifying", reason, tasks.share_over(every, [task]))
    candidates.restore(session, candidate_id)
    tasks.again(session, task)
    return candidates.get(session, candidate_id)


def _why_not(candidate: Candidate, status: str, task: Task | None, every: Sequence[Task]) -> str | None:
    """What keeps a candidate from being verified again."""
    job = f"job {candidate.job_id}"
    if task is None:
        if candidate.status == "failed":
            return "it failed in the search, and only verifications are done again"
        return "it was not chosen for verification"
    if status in ("cancelled", "cancelling"):
        return f"{job} is {status}; retry the job itself, and its verifications go on"
    if task.status in jobs.OPEN_TASKS:
        return f"its verification is {task.status}"
    if candidate.status != "failed":
        return f"it is {candidate.status}; only what failed is verified again"
    if status not in jobs.ENDED and any(one.kind == "conclude" and one.status in jobs.OPEN_TASKS for one in every):
        return f"{job} is being concluded; ask again when it has ended"
    return None


def _tasks_of(session: Session, job_id: UUID) -> list[Task]:
    query = select(Task).where(Task.job_id == job_id, Task.kind.in_(jobs.COURSE)).order_by(Task.created_at, Task.id)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def _failed(session: Session, job_id: UUID) -> set[UUID]:
    return set(session.scalars(select(Candidate.id).where(Candidate.job_id == job_id, Candidate.status == "failed")))
