"""Tasks: claimed by compare-and-set under a lease, written under a fence, reaped when their worker died.

Every claim raises the task's fence. Whatever a worker writes starts with :func:`hold`, so that one that was given up
for dead and comes back changes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session

from store import candidates, events, fitting, jobs, logs, queue
from store.clock import now
from store.errors import LeaseLostError
from store.jobs import NO_SYNC, OPEN_TASKS
from store.models import Attempt, Candidate, Job, Outbox, Task, Worker
from store.settings import settings

KEEP_SENT_SECONDS = 3600
"""How long sent messages of tasks that are over are kept."""

LEFT_SECONDS = 2.0
"""Before a task that one worker cannot do is offered again to those that can."""

Fate = Literal["open", "failed", "done"]

_THE_TASK = Task.id == bindparam("task_id")
_JOB_OF_TASK = select(Task.job_id).where(_THE_TASK).scalar_subquery()
_LOCK_JOB_OF_TASK = select(Job.id).where(Job.id == _JOB_OF_TASK).with_for_update(key_share=True)
_HOLDS = select(Task.id).where(_THE_TASK, Task.fence == bindparam("fence"), Task.status == "running")


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that is ours until the lease runs out."""

    task_id: UUID
    job_id: UUID
    kind: str
    candidate_id: UUID | None
    fence: int
    attempt: int
    spec: dict[str, Any]
    """The job's."""
    status: str
    """The job's."""


def claim(
    session: Session,
    task_id: UUID,
    owner: str,
    device: str,
    threads: int,
    lease_seconds: float,
    max_attempts: int,
) -> Claim | None:
    """Takes a task that waits or whose lease has run out; None when there is nothing to take.

    Opens an attempt, closes the one before as "died" and moves the job on. A task whose attempts are used up ends
    here, see :func:`exhausted`.
    """
    columns = select(Task.job_id, Task.kind, Task.queue)
    found = session.execute(columns.where(Task.id == task_id)).one_or_none()
    if found is None:
        return None
    job_id, of_course = found.job_id, found.kind in jobs.COURSE
    status = jobs.lock(session, job_id)
    if of_course and status in jobs.ENDED:
        return None
    if of_course and status == "cancelling":
        jobs.settle_cancelled(session, job_id)
        return None
    job = jobs.get(session, job_id)
    worker = session.get(Worker, owner, populate_existing=True)
    if worker is not None and not fitting.suits(session, worker, job.spec, found.kind):
        _leave(session, task_id, job, found.kind, found.queue)
        return None
    at = now(session)
    taken = session.execute(
        update(Task)
        .where(Task.id == task_id, _free(at), Task.attempt < max_attempts)
        .values(
            status="running",
            lease_owner=owner,
            lease_expires=at + timedelta(seconds=lease_seconds),
            attempt=Task.attempt + 1,
            fence=Task.fence + 1,
        )
        .returning(Task.kind, Task.candidate_id, Task.fence, Task.attempt)
        .execution_options(**NO_SYNC)
    ).one_or_none()
    if taken is None:
        spent = session.scalars(
            select(Task)
            .where(Task.id == task_id, _free(at), Task.attempt >= max_attempts)
            .execution_options(populate_existing=True)
        ).one_or_none()
        if spent is not None:
            exhausted(session, spent)
        return None
    _close_attempts(session, task_id, at, "died")
    started = {"number": taken.fence, "worker": owner, "device": device, "threads": threads}
    session.add(Attempt(task_id=task_id, job_id=job_id, started_at=at, **started))
    session.flush()
    _tell(session, job_id, task_id, taken.kind, **started)
    if of_course and job.started_at is None:
        session.execute(update(Job).where(Job.id == job_id).values(started_at=at).execution_options(**NO_SYNC))
    status, before = ("searching", ("queued",)) if taken.kind == "search" else ("verifying", ("queued", "searching"))
    if of_course and job.status in before:
        jobs.set_phase(session, job_id, status=status, phase=status)
    return Claim(
        task_id=task_id,
        job_id=job_id,
        kind=taken.kind,
        candidate_id=taken.candidate_id,
        fence=taken.fence,
        attempt=taken.attempt,
        spec=job.spec,
        status=jobs.get(session, job_id).status,
    )


def heartbeat(session: Session, task_id: UUID, fence: int, lease_seconds: float) -> Literal["ok", "cancel", "lost"]:
    """Renews the lease. "cancel": someone asked to stop; "lost": the task is no longer ours, stop quietly."""
    held = session.execute(
        update(Task)
        .where(_held(task_id, fence))
        .values(lease_expires=now(session) + timedelta(seconds=lease_seconds))
        .returning(Task.job_id, Task.kind)
        .execution_options(**NO_SYNC)
    ).one_or_none()
    if held is None:
        return "lost"
    if held.kind not in jobs.COURSE:
        return "ok"
    asked = session.execute(select(Job.cancel_requested_at).where(Job.id == held.job_id)).scalar_one()
    return "ok" if asked is None else "cancel"


def hold(session: Session, task_id: UUID, fence: int) -> None:
    """First statement of each recording transaction: keeps job and task ours until its end.

    Raises LeaseLostError, and then nothing of the transaction may be committed.
    """
    job_id = session.execute(_LOCK_JOB_OF_TASK, {"task_id": task_id}).scalar_one_or_none()
    # Only now, behind the lock, does the task's row tell who holds it.
    if job_id is None or session.execute(_HOLDS, {"task_id": task_id, "fence": fence}).first() is None:
        raise LeaseLostError(task_id, fence)
    jobs.mark_locked(session, job_id)


def end(
    session: Session,
    task_id: UUID,
    fence: int,
    *,
    status: Literal["done", "failed", "queued", "cancelled"],
    end: str,
    exit_signal: int | None = None,
    cpu_seconds: float | None = None,
    gpu_seconds: float | None = None,
    peak_memory_mb: float | None = None,
    peak_gpu_memory_mb: float | None = None,
    detail: str | None = None,
) -> bool:
    """Gives a task back, with what its attempt took; False when it was no longer ours.

    ``queued`` puts it back for another attempt. An attempt that ended as "drained" does not count; any other does, and
    with the last one used up the task ends as in :func:`exhausted` (``detail`` goes into the reason; by default the end
    of the log). ``failed`` and ``cancelled`` end the task alone: what becomes of the job or candidate is the caller's
    to say. The last search or verification to end brings the task that concludes the job. In a job that is being
    cancelled nothing is put back, and the last task to end closes the job.
    """
    try:
        hold(session, task_id, fence)
    except LeaseLostError:
        return False
    task = session.get_one(Task, task_id, populate_existing=True)
    at = now(session)
    counted = task.attempt - (1 if status == "queued" and end == "drained" else 0)
    cancelling = task.kind in jobs.COURSE and jobs.get(session, task.job_id).status == "cancelling"
    stored = "cancelled" if cancelling and status in ("queued", "failed") else status
    _set(session, task_id, status=stored, attempt=counted, lease_owner=None, lease_expires=None)
    used = {
        "cpu_seconds": cpu_seconds,
        "gpu_seconds": gpu_seconds,
        "peak_memory_mb": peak_memory_mb,
        "peak_gpu_memory_mb": peak_gpu_memory_mb,
    }
    _close_attempts(session, task_id, at, end, exit_signal=exit_signal, **used)
    _tell(session, task.job_id, task_id, task.kind, number=fence, end=end, exit_signal=exit_signal, **used)
    session.refresh(task)
    if cancelling:
        jobs.settle_cancelled(session, task.job_id)
    elif stored == "queued" and task.attempt >= settings().max_attempts:
        exhausted(session, task, detail)
    elif stored == "queued":
        queue.enqueue(session, task)
    elif task.kind == "verify" or (task.kind == "search" and stored == "done"):
        _conclude_when_verified(session, task.job_id)
    return True


def add(session: Session, job_id: UUID, kind: str, candidate_id: UUID | None = None, device: str = "cpu") -> Task:
    """A new task of a job and the message that wakes a worker; the one that is there, where there is one."""
    jobs.lock(session, job_id)
    found = find(session, job_id, kind, candidate_id)
    if found is not None:
        return found
    task = Task(
        id=uuid4(),
        job_id=job_id,
        kind=kind,
        candidate_id=candidate_id,
        queue=queue.queue_for(kind, device),
        created_at=now(session),
    )
    session.add(task)
    session.flush()
    queue.enqueue(session, task)
    return task


def find(session: Session, job_id: UUID, kind: str, candidate_id: UUID | None) -> Task | None:
    """The task of a job that does this, as it is now."""
    same = and_(Task.job_id == job_id, Task.kind == kind, Task.candidate_id == candidate_id)
    return session.scalars(select(Task).where(same).execution_options(populate_existing=True)).one_or_none()


def again(session: Session, task: Task) -> None:
    """Queues a task that is over once more, with all its attempts before it; the caller holds the job's lock."""
    _set(session, task.id, status="queued", attempt=0, lease_owner=None, lease_expires=None)
    queue.enqueue(session, task)


def abandon(session: Session, job_id: UUID) -> None:
    """Closes what an ended job has left open: the task that ended it, whose worker has not said so yet.

    The caller holds the job's lock. That worker finds its task taken away and changes nothing.
    """
    left = select(Task.id).where(Task.job_id == job_id, Task.kind.in_(jobs.COURSE), Task.status.in_(OPEN_TASKS))
    how = "done" if jobs.get(session, job_id).status == "succeeded" else "failed"
    for task_id in session.scalars(left).all():
        _close_attempts(session, task_id, now(session), how)
        _set(session, task_id, status=how, lease_owner=None, lease_expires=None)


def share_over(every: Sequence[Task], again: Sequence[Task]) -> float:
    """Progress of a job of these tasks when some of them are to be done again."""
    return (len(every) - len(again)) / (len(every) + 1)


def open_count(session: Session, job_id: UUID, kind: str) -> int:
    """How many tasks of this kind have not ended."""
    query = select(func.count()).where(Task.job_id == job_id, Task.kind == kind, Task.status.in_(OPEN_TASKS))
    return session.execute(query).scalar_one()


def fates(session: Session, task_ids: Sequence[UUID]) -> dict[UUID, Fate]:
    """What became of tasks, for those that are still there.

    ``failed``: what the task was for has failed or was cancelled, so that a retry may go on from what it left.
    """
    found: dict[UUID, Fate] = {}
    query = select(Task.id, Task.status, Job.status, Candidate.status).join(Job, Job.id == Task.job_id)
    query = query.outerjoin(Candidate, Candidate.id == Task.candidate_id)
    for start in range(0, len(task_ids), candidates.CHUNK):
        part = task_ids[start : start + candidates.CHUNK]
        for task_id, *statuses in session.execute(query.where(Task.id.in_(part))):
            lost = {"failed", "cancelled"} & set(statuses)
            found[task_id] = "open" if statuses[0] in OPEN_TASKS else "failed" if lost else "done"
    return found


def counts(session: Session, job_id: UUID, kind: str) -> dict[str, int]:
    """How many tasks of this kind have each status; a status that none has is left out."""
    query = select(Task.status, func.count()).where(Task.job_id == job_id, Task.kind == kind).group_by(Task.status)
    return {status: number for status, number in session.execute(query)}


def exhausted(session: Session, task: Task, detail: str | None = None) -> None:
    """Ends a task whose attempts are used up: a search or conclusion fails its job, a verification its candidate; what
    is done beside a job's course fails alone.

    The caller holds the job's lock. The reason ends in ``detail``, by default in the last lines of the log.
    """
    at = now(session)
    _close_attempts(session, task.id, at, "died")
    _set(session, task.id, status="failed", lease_owner=None, lease_expires=None)
    if task.kind not in jobs.COURSE:
        return
    last = _last_attempt(session, task)
    said = detail if detail is not None or last is None else logs.tail(session, task.id, last.number)
    reason = "\n".join(filter(None, (_reason(task, last), logs.storable(said or ""))))
    if task.candidate_id is None:
        jobs.finish(session, task.job_id, "failed", reason)
        return
    candidates.fail(session, task.candidate_id, reason)
    warning = {"text": reason, "task": str(task.id), "candidate": str(task.candidate_id)}
    events.append(session, task.job_id, [("warning", warning)])
    _conclude_when_verified(session, task.job_id)


def why_failed(session: Session, task: Task) -> str:
    """Of a failed task that is none of its job's course: how its last attempt ended, and the last line of its log,
    which is the error itself; the rest is in the job's log.
    """
    last = _last_attempt(session, task)
    if last is None:
        return _reason(task, last)
    lines = logs.tail(session, task.id, last.number).splitlines()
    how = f"the {task.kind} failed" if last.end == "failed" else _reason(task, last)
    said = f"{how}: {lines[-1].strip()}" if lines else how
    return f"{said} (all of it: the log of job {task.job_id})"


def _last_attempt(session: Session, task: Task) -> Attempt | None:
    attempts = select(Attempt).where(Attempt.task_id == task.id).order_by(Attempt.number.desc()).limit(1)
    return session.scalars(attempts).first()


def reap(session: Session) -> int:
    """Wakes workers for tasks whose worker died or whose message was lost; returns how many tasks it dealt with.

    Jobs that another transaction is writing to are left for the next round.
    """
    waiting_at_broker = queue.depths()  # before the first statement, so that no lock is held while the broker answers
    at = now(session)
    dealt = 0
    for job_id in _jobs_to_reap(session, at):
        if not jobs.try_lock(session, job_id):
            continue
        expired = session.scalars(
            select(Task)
            .where(Task.job_id == job_id, Task.status == "running", Task.lease_expires < at)
            .with_for_update(skip_locked=True)  # a heartbeat takes no lock of the job's
            .execution_options(populate_existing=True)
        ).all()
        dealt += len(expired)
        status = jobs.get(session, job_id).status
        for task in expired:
            _close_attempts(session, task.id, at, "died")
            _tell(session, job_id, task.id, task.kind, number=task.fence, end="died")
            if task.kind in jobs.COURSE and (status in jobs.ENDED or status == "cancelling"):
                _set(session, task.id, status="cancelled", lease_owner=None, lease_expires=None)
            elif task.attempt >= settings().max_attempts:
                exhausted(session, task)
            else:
                _set(session, task.id, status="queued", lease_owner=None, lease_expires=None)
                queue.enqueue(session, task)
        if status == "cancelling":
            jobs.settle_cancelled(session, job_id)
    dealt += _send_again(session, at, waiting_at_broker or {})
    _forget_sent(session, at)
    return dealt


def _jobs_to_reap(session: Session, at: datetime) -> list[UUID]:
    expired = select(Task.job_id).where(Task.status == "running", Task.lease_expires < at)
    # In the order of their ids, like every transaction that locks several jobs.
    return list(session.scalars(expired.distinct().order_by(Task.job_id)))


def _send_again(session: Session, at: datetime, waiting_at_broker: dict[str, int]) -> int:
    """New messages for waiting tasks that were sent long ago, as many as the broker is short of."""
    last_sent = select(Outbox.task_id, func.max(Outbox.created_at).label("at")).group_by(Outbox.task_id).subquery()
    unsent = select(Outbox.task_id).where(Outbox.sent_at.is_(None))
    waiting = session.execute(
        select(Task, last_sent.c.at)
        .outerjoin(last_sent, last_sent.c.task_id == Task.id)
        .where(Task.status == "queued", Task.id.not_in(unsent))
        .order_by(Task.created_at, Task.id)
        .with_for_update(of=Task, skip_locked=True)
    ).all()
    short = {name: -depth for name, depth in waiting_at_broker.items()}
    for task, _ in waiting:
        short[task.queue] = short.get(task.queue, 0) + 1
    again = 0
    for task, sent_at in waiting:
        stale = sent_at is None or sent_at < at - timedelta(seconds=settings().resend_seconds)
        if stale and short[task.queue] > 0:
            short[task.queue] -= 1
            queue.enqueue(session, task)
            again += 1
    return again


def _forget_sent(session: Session, at: datetime) -> None:
    over = select(Task.id).where(Task.status.not_in(OPEN_TASKS))
    old = Outbox.sent_at < at - timedelta(seconds=KEEP_SENT_SECONDS)
    session.execute(delete(Outbox).where(old, Outbox.task_id.in_(over)).execution_options(**NO_SYNC))


def _leave(session: Session, task_id: UUID, job: Job, kind: str, name: str) -> None:
    """A worker that cannot do a task has read its message: another reads it soon, where a live one can do it.

    Where none can, reap() sends it again when its time is over.
    """
    if fitting.any_can(session, fitting.serving(session, name), job.spec, kind):
        queue.postpone(session, task_id, LEFT_SECONDS)


def _conclude_when_verified(session: Session, job_id: UUID) -> None:
    """The end of the search or verification that ends last, however it ended, brings the conclusion."""
    job = jobs.get(session, job_id)
    if job.status in jobs.ENDED or any(open_count(session, job_id, kind) for kind in ("search", "verify")):
        return
    conclusion = add(session, job_id, "conclude", device=jobs.device_of(job.spec))
    if conclusion.status not in OPEN_TASKS:  # of before a retry
        again(session, conclusion)


def _reason(task: Task, last: Attempt | None) -> str:
    times = "once" if task.attempt == 1 else f"{task.attempt} times"
    what = {"search": "the search", "verify": "the verification", "conclude": "the conclusion"}.get(
        task.kind, f"the {task.kind}"
    )
    if last is None:
        return f"{what} died {times}, the most that is allowed"
    return f"{what} died {times}, the most that is allowed; the last time on worker {last.worker}: {_how(last)}"


def _how(attempt: Attempt) -> str:
    """What ended an attempt that died, in words."""
    if not attempt.exit_signal:
        return attempt.end or "unknown"
    known = {each.value: each.name for each in signal.Signals}  # real-time signals have no names
    name = known.get(attempt.exit_signal, f"signal {attempt.exit_signal}")
    if attempt.exit_signal != signal.SIGKILL:
        return name
    peak = "" if attempt.peak_memory_mb is None else f"; peak memory {attempt.peak_memory_mb:.0f} MB"
    return f"killed ({name}): often the system's out-of-memory killer{peak}"


def _free(at: datetime) -> ColumnElement[bool]:
    return or_(Task.status == "queued", and_(Task.status == "running", Task.lease_expires < at))


def _held(task_id: UUID, fence: int) -> ColumnElement[bool]:
    return and_(Task.id == task_id, Task.fence == fence, Task.status == "running")


def _set(session: Session, task_id: UUID, **values: Any) -> None:
    session.execute(update(Task).where(Task.id == task_id).values(values).execution_options(**NO_SYNC))


def _close_attempts(session: Session, task_id: UUID, at: datetime, how: str, **used: Any) -> None:
    """Closes the task's open attempt; there is never more than one."""
    session.execute(
        update(Attempt)
        .where(Attempt.task_id == task_id, Attempt.ended_at.is_(None))
        .values(ended_at=at, end=how, **used)
        .execution_options(**NO_SYNC)
    )


def _tell(session: Session, job_id: UUID, task_id: UUID, kind: str, **facts: Any) -> None:
    events.append(session, job_id, [("attempt", {"task": str(task_id), "kind": kind, **facts})])
