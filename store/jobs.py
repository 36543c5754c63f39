"""A job's life: ``queued -> searching -> verifying -> succeeded | failed | cancelled``, with ``cancelling`` between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import bindparam, exists, func, literal, select, tuple_, update
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session
from sqlalchemy.types import Uuid

from store import catalog, cursors, events, fitting, keys, loose, origins, queue, quota, tables
from store.clock import now
from store.errors import IllegalTransitionError, InvalidCursorError, JobInUseError, NotFoundError
from store.fitting import COURSE as COURSE
from store.models import (
    Artefact,
    Attempt,
    Candidate,
    Evaluation,
    Event,
    Front,
    FrontMember,
    IdempotencyKey,
    Job,
    LogChunk,
    Outbox,
    Task,
    Utc,
)

ENDED = tables.ENDED
OPEN_TASKS = ("queued", "running")
CANCELLED_REASON = "cancelled on request"
_LOCK = select(Job.status).where(Job.id == bindparam("job_id")).with_for_update(key_share=True)
NO_SYNC = {"synchronize_session": False}
"""Rows are changed by statements under a lock; objects that were loaded before are read again where it matters."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt as the wire shows it."""

    task: UUID
    kind: str
    number: int
    worker: str
    device: str
    threads: int
    started_at: datetime
    ended_at: datetime | None
    end: str | None
    exit_signal: int | None
    cpu_seconds: float | None
    gpu_seconds: float | None
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None


def create(
    session: Session,
    spec: Mapping[str, Any],
    name: str = "",
    labels: Mapping[str, str] | None = None,
    owner_key: UUID | None = None,
) -> Job:
    """Stores a job, its search task, the message that wakes a worker and the first event: all or nothing.

    ``owner_key``: the API key that it counts for. Raises TooManyOpenJobsError where that has enough of them,
    QuotaExceededError where its artefacts would find no room, TableGoneError for a table that is not there, and
    OriginGoneError for a job to go on from that is not.
    """
    origins.hold(session, spec)
    tables.hold(session, spec)
    quota.admit(session)
    keys.admit_job(session, owner_key)
    at = now(session)
    job = Job(
        id=uuid4(),
        name=name,
        spec=dict(spec),
        labels=dict(labels or {}),
        reference_point=dict(spec.get("reference_point") or {}),
        last_seq=0,
        created_at=at,
        owner_key=owner_key,
    )
    name_of_queue = queue.queue_for("search", device_of(spec))
    task = Task(id=uuid4(), job_id=job.id, kind="search", queue=name_of_queue, created_at=at)
    session.add(job)
    session.flush()
    session.add(task)
    session.flush()
    queue.enqueue(session, task)
    events.append(session, job.id, [("phase", {"status": "queued", "phase": "queued"})])
    return get(session, job.id)


def device_of(spec: Mapping[str, Any]) -> str:
    """The class of device that a job asks for."""
    device: str = (spec.get("resources") or {}).get("device", "cpu")
    return device


def get(session: Session, job_id: UUID) -> Job:
    """The job as stored now; raises NotFoundError."""
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise NotFoundError("job", job_id)
    return job


def lock(session: Session, job_id: UUID) -> str:
    """Makes other writers of this job wait until this transaction ends; returns the job's status.

    Whoever changes a job's tasks or candidates takes this lock first: one order for all, so no deadlock.
    """
    status = session.execute(_LOCK, {"job_id": job_id}).scalar_one_or_none()
    if status is None:
        raise NotFoundError("job", job_id)
    mark_locked(session, job_id)
    return status


def ensure_locked(session: Session, job_id: UUID) -> None:
    """As :func:`lock`, but free of charge where this transaction has the lock already."""
    if session.info.get("locked") != (session.get_transaction(), job_id):
        lock(session, job_id)


def mark_locked(session: Session, job_id: UUID) -> None:
    """Notes that this transaction has the job's lock."""
    session.info["locked"] = (session.get_transaction(), job_id)


def try_lock(session: Session, job_id: UUID) -> bool:
    """As :func:`lock`, but where another transaction has the job it says so and does not wait."""
    query = select(Job.id).where(Job.id == job_id).with_for_update(key_share=True, skip_locked=True)
    return session.execute(query).first() is not None


def page(
    session: Session,
    *,
    status: str | None = None,
    name: str | None = None,
    label: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Job], str | None]:
    """Jobs, newest first, and the cursor of the next page.

    ``label`` is ``key=value`` or ``key`` alone; ``name`` is the whole name.
    """
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
    if status is not None:
        query = query.where(Job.status == status)
    if name is not None:
        query = query.where(Job.name == name)
    if label is not None:
        key, has_value, value = label.partition("=")
        # Rows of the document, because a path would have to quote whatever a label's key may hold.
        expand = func.json_each if session.get_bind().dialect.name == "sqlite" else func.json_each_text
        each = expand(Job.labels).table_valued("key", "value")
        matches = [each.c.key == key] + ([each.c.value == value] if has_value else [])
        query = query.where(exists(select(literal(1)).select_from(each).where(*matches)))
    if cursor is not None:
        at, job_id = cursors.unpack(cursor, 2)
        try:
            moment = datetime.fromisoformat(at)
            if moment.tzinfo is None:
                raise ValueError("a time without its zone")
            position = (literal(moment.astimezone(UTC), Utc()), literal(UUID(job_id), Uuid()))
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidCursorError(cursor) from error
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(*position))
    jobs = list(session.scalars(query))
    if len(jobs) <= limit:
        return jobs, None
    last = jobs[limit - 1]
    return jobs[:limit], cursors.pack(last.created_at.isoformat(), str(last.id))


def attempts(session: Session, job_id: UUID) -> list[AttemptView]:
    """All attempts of a job's tasks, in order of their start."""
    return attempts_of(session, [job_id])[job_id]


def attempts_of(session: Session, job_ids: Sequence[UUID]) -> dict[UUID, list[AttemptView]]:
    """The attempts of several jobs in one query."""
    query = (
        select(Attempt, Task.kind)
        .join(Task, Task.id == Attempt.task_id)
        .where(Attempt.job_id.in_(job_ids))
        .order_by(Attempt.started_at, Attempt.id)
        .execution_options(populate_existing=True)
    )
    found: dict[UUID, list[AttemptView]] = {job_id: [] for job_id in job_ids}
    for attempt, kind in session.execute(query):
        found[attempt.job_id].append(
            AttemptView(
                task=attempt.task_id,
                kind=kind,
                number=attempt.number,
                worker=attempt.worker,
                device=attempt.device,
                threads=attempt.threads,
                started_at=attempt.started_at,
                ended_at=attempt.ended_at,
                end=attempt.end,
                exit_signal=attempt.exit_signal,
                cpu_seconds=attempt.cpu_seconds,
                gpu_seconds=attempt.gpu_seconds,
                peak_memory_mb=attempt.peak_memory_mb,
                peak_gpu_memory_mb=attempt.peak_gpu_memory_mb,
            )
        )
    return found


def front_counts(session: Session, job_ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    """Members of each front now: ``{job: {"search": n, "final": n}}``."""
    counts = {job_id: {"search": 0, "final": 0} for job_id in job_ids}
    for job_id, kind, size in session.execute(
        select(Front.job_id, Front.kind, Front.size).where(Front.job_id.in_(job_ids))
    ):
        counts[job_id][kind] = size
    return counts


def waiting_for(session: Session, job: Job) -> str | None:
    """What keeps a job's next task from running: what a worker would need that no live one has, or None."""
    of_course = (Task.job_id == job.id, Task.kind.in_(COURSE))
    waiting = select(Task.queue, Task.kind).where(*of_course, Task.status == "queued").order_by(Task.created_at)
    task = session.execute(waiting.limit(1)).first()
    if task is None:
        return None
    return _takers(session, task.queue, job.spec, task.kind)[1]


def takers(session: Session, spec: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """Names of the live workers that could take the search of such a job; where there is none, what one would need."""
    return _takers(session, queue.queue_for("search", device_of(spec)), spec, "search")


def _takers(session: Session, name: str, spec: Mapping[str, Any], kind: str) -> tuple[list[str], str | None]:
    """As :func:`takers`, for a kind of task and the queue of this name."""
    on_queue = fitting.serving(session, name)
    if on_queue:
        able = [worker.name for worker in on_queue if fitting.any_can(session, [worker], spec, kind)]
        return able, None if able else fitting.missing(session, on_queue, spec, kind, name)
    device = name.rpartition(".")[2]
    live = [worker for worker, lives in catalog.workers(session) if lives and not worker.draining]
    named = ", ".join(f"{worker.name} ({worker.device})" for worker in live) or "none"
    return [], f"a worker on queue {name}, device {device} (`skyline worker --device {device}`); live: {named}"


def set_phase(
    session: Session,
    job_id: UUID,
    *,
    status: str | None = None,
    phase: str | None = None,
    progress: float | None = None,
) -> None:
    """Moves a running job on; an event tells of a new status or phase. Leaves alone what has ended.

    A job that is being cancelled keeps that status.
    """
    if status is None and phase is None:
        ongoing = update(Job).where(Job.id == job_id, Job.status.not_in(ENDED)).values(progress=progress)
        session.execute(ongoing.execution_options(**NO_SYNC))
        return
    current = lock(session, job_id)
    if current in ENDED:
        return
    job = get(session, job_id)
    wanted = current if status is None or current == "cancelling" else status
    told = (wanted, job.phase if phase is None else phase)
    changed = told != (job.status, job.phase)
    values: dict[str, Any] = {"status": told[0], "phase": told[1]}
    if progress is not None:
        values["progress"] = progress
    session.execute(update(Job).where(Job.id == job_id).values(values).execution_options(**NO_SYNC))
    if changed:
        events.append(session, job_id, [("phase", {"status": told[0], "phase": told[1]})])


def set_reference_point(session: Session, job_id: UUID, point: Mapping[str, float]) -> dict[str, float]:
    """Completes the reference point; what is there already stays. Returns the whole point."""
    lock(session, job_id)
    complete: dict[str, float] = {**point, **get(session, job_id).reference_point}
    session.execute(update(Job).where(Job.id == job_id).values(reference_point=complete).execution_options(**NO_SYNC))
    return complete


def request_cancel(session: Session, job_id: UUID) -> Job:
    """Stops a job: at once where nothing runs, otherwise as soon as its workers have seen the flag.

    Asking again changes nothing. Raises IllegalTransitionError for a job that has ended.
    """
    status = lock(session, job_id)
    if status in ENDED:
        raise IllegalTransitionError(job_id, status, "cancelled")
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.cancel_requested_at.is_(None))
        .values(cancel_requested_at=now(session))
        .execution_options(**NO_SYNC)
    )
    if not settle_cancelled(session, job_id):
        set_phase(session, job_id, status="cancelling", phase="cancelling")
    return get(session, job_id)


def settle_cancelled(session: Session, job_id: UUID) -> bool:
    """Ends a job that is to be cancelled if no worker holds one of its tasks; True when it ended.

    The caller holds the job's lock. A lease that has run out holds nothing.
    """
    of_course = (Task.job_id == job_id, Task.kind.in_(COURSE))
    held = select(Task.id).where(*of_course, Task.status == "running", Task.lease_expires >= now(session))
    if session.execute(held.limit(1)).first() is not None:
        session.execute(
            update(Task)
            .where(*of_course, Task.status == "queued")
            .values(status="cancelled")
            .execution_options(**NO_SYNC)
        )
        return False
    return finish(session, job_id, "cancelled", CANCELLED_REASON)


def finish(session: Session, job_id: UUID, status: str, reason: str | None = None, by: UUID | None = None) -> bool:
    """Ends a job that has not ended (compare-and-set); False when it had.

    Tasks that are still open are cancelled, their attempts closed, and the phase event sent; the task ``by`` whose
    attempt this is called stays open for :func:`store.tasks.end`. A job that is being
    cancelled and would fail ends as cancelled: stopping it is what made it fail.
    """
    if status not in ENDED:
        raise ValueError(f"a job finishes as one of {', '.join(sorted(ENDED))}, not as '{status}'")
    current = lock(session, job_id)
    if current == "cancelling" and status == "failed":
        status, reason = "cancelled", CANCELLED_REASON
    at = now(session)
    values: dict[str, Any] = {"status": status, "phase": status, "reason": reason, "ended_at": at}
    if status == "succeeded":
        values["progress"] = 1.0
    ended = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status.not_in(ENDED))
        .values(values)
        .returning(Job.id)
        .execution_options(**NO_SYNC)
    ).first()
    if ended is None:
        return False
    of_course = (Task.job_id == job_id, Task.kind.in_(COURSE), Task.id.is_distinct_from(by))
    session.execute(
        update(Attempt)
        .where(Attempt.ended_at.is_(None), Attempt.task_id.in_(select(Task.id).where(*of_course)))
        .values(ended_at=at, end="cancelled")
        .execution_options(**NO_SYNC)
    )
    session.execute(
        update(Task)
        .where(*of_course, Task.status.in_(OPEN_TASKS))
        .values(status="cancelled", lease_owner=None, lease_expires=None)
        .execution_options(**NO_SYNC)
    )
    events.append(session, job_id, [("phase", {"status": status, "phase": status, "reason": reason})])
    return True


def reopen(session: Session, job_id: UUID, status: str, reason: str, progress: float) -> None:
    """Takes the end of a job back; the event says why. The caller holds the lock and queues the tasks.

    Raises TooManyOpenJobsError: the job is under way again, and counts for the key that it was posted with;
    TableGoneError for a table that went in the meantime; and OriginGoneError where its search goes on from a job that
    did.
    """
    job = get(session, job_id)
    if status == "queued":
        origins.hold(session, job.spec)
    tables.hold(session, job.spec)
    keys.admit_job(session, job.owner_key)
    values: dict[str, Any] = {"status": status, "phase": status, "reason": None, "ended_at": None}
    values |= {"cancel_requested_at": None, "progress": progress}
    session.execute(update(Job).where(Job.id == job_id).values(values).execution_options(**NO_SYNC))
    events.append(session, job_id, [("phase", {"status": status, "phase": status, "reason": reason})])


def delete(session: Session, job_id: UUID) -> list[str]:
    """Removes an ended job and all its rows; returns its artefacts' paths, for :func:`store.loose.discard`.

    Raises IllegalTransitionError before it has ended, JobInUseError while a search is to go on from it.
    """
    status = lock(session, job_id)
    if status not in ENDED:
        raise IllegalTransitionError(job_id, status, "deleted before it has ended; cancel it first")
    users = origins.users(session, job_id)
    if users:
        raise JobInUseError(job_id, users)
    paths = list(session.scalars(select(Artefact.path).where(Artefact.job_id == job_id)))
    loose.release(session, paths)
    fronts = select(Front.id).where(Front.job_id == job_id)
    tasks = select(Task.id).where(Task.job_id == job_id)
    # Children first: left to the cascade, each candidate would be looked for in every table that names it.
    for statement in (
        delete_rows(FrontMember).where(FrontMember.front_id.in_(fronts)),
        delete_rows(Outbox).where(Outbox.task_id.in_(tasks)),
        *(delete_rows(table).where(table.job_id == job_id) for table in _OF_A_JOB),
        delete_rows(Job).where(Job.id == job_id),
    ):
        session.execute(statement.execution_options(**NO_SYNC))
    session.expire_all()
    return paths


_OF_A_JOB: tuple[type[Any], ...] = (
    IdempotencyKey,
    Front,
    LogChunk,
    Attempt,
    Task,
    Artefact,
    Evaluation,
    Candidate,
    Event,
)
