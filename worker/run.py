"""One attempt of one task, from its rows to its exit code: what a child process does once it has an order.

An error that says what is wrong with a job or a candidate ends that with a reason; anything else is a crash, which the
supervisor counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from uuid import UUID

import celery.app.amqp  # noqa: F401  otherwise an attempt imports it with its first message, which takes a second
import kombu.transport.redis  # noqa: F401
import torch
import torch._dynamo  # otherwise imported by the first optimiser, which takes nearly two seconds

from nas_core.devices import describe, device_of, peak_memory_mb
from nas_core.errors import DeviceError, NasCoreError
from nas_core.training.room import is_out_of_memory
from skyline.schemas import JobSpec
from store import candidates, exports, jobs, tasks
from store.errors import (
    ArtefactsAwayError,
    BroughtGoneError,
    DamagedArtefactError,
    LeaseLostError,
    MissingArtefactError,
    OriginGoneError,
    TableGoneError,
)
from store.models import Task
from store.session import reading, unit_of_work
from store.settings import settings
from worker import conclude, export, search, verify
from worker.attempt import Attempt
from worker.control import DONE, GAVE_UP, LEASE_LOST, NO_STORE, PUT_BACK, StopFlag, Stopped
from worker.identity import Identity
from worker.loading import provide
from worker.quiet import Room

log = logging.getLogger(__name__)

KINDS = {"search": search.run, "verify": verify.run, "conclude": conclude.run}


def work_of(kind: str) -> Callable[[Attempt], None]:
    """What an attempt of a task of this kind does."""
    if kind.startswith(exports.PREFIX):
        return partial(export.run, format=kind.removeprefix(exports.PREFIX))
    return KINDS[kind]


def load(task_id: UUID, fence: int, flag: StopFlag) -> tuple[str, Attempt]:
    """The task's kind and everything an attempt of it needs."""
    with reading(settings().outage_seconds) as session:
        task = session.get_one(Task, task_id)
        job = jobs.get(session, task.job_id)
        attempt = Attempt(
            task_id=task_id,
            fence=fence,
            job_id=job.id,
            candidate_id=task.candidate_id,
            spec=JobSpec.model_validate(job.spec),
            reference_point=dict(job.reference_point),
            device=device_of(Identity().device_class),  # all that this process sees
            flag=flag,
            room=Room(),
        )
        return task.kind, attempt


def give_up(kind: str, attempt: Attempt, reason: str) -> None:
    """An error that another attempt would meet again: ends the candidate, or the job; neither for what is done beside
    the job's course.
    """
    if kind not in jobs.COURSE:
        return
    with unit_of_work(settings().outage_seconds) as session:
        tasks.hold(session, attempt.task_id, attempt.fence)
        if kind == "verify" and attempt.candidate_id is not None:
            candidates.fail(session, attempt.candidate_id, reason)
        else:
            jobs.finish(session, attempt.job_id, "failed", reason, by=attempt.task_id)


def report() -> dict[str, float | None]:
    """What only this process knows of what it used."""
    try:
        return {"peak_gpu_memory_mb": peak_memory_mb(device_of(Identity().device_class))}
    except (DeviceError, RuntimeError):  # a GPU that fell off the bus
        return {}


def run(task_id: UUID, fence: int) -> int:
    """Runs the attempt; the exit code says how it ended (worker.control)."""
    flag = StopFlag()
    torch.set_num_threads(Identity().threads)
    kind, attempt = load(task_id, fence, flag)
    try:
        try:
            if not provide(attempt, kind):
                return PUT_BACK
            work_of(kind)(attempt)
        except (
            NasCoreError,
            MissingArtefactError,
            DamagedArtefactError,
            TableGoneError,
            OriginGoneError,
            BroughtGoneError,
        ) as error:
            log.exception("the %s task ends", kind)
            give_up(kind, attempt, str(error))
            return GAVE_UP
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            log.exception("the %s task ends", kind)
            give_up(kind, attempt, f"out of memory on {describe(attempt.device)}: {error}")
            return GAVE_UP
        else:
            attempt.discard()  # otherwise a retry may go on from it
    except Stopped:
        return PUT_BACK
    except LeaseLostError:
        log.warning("the lease of task %s was lost; another attempt goes on", task_id)
        return LEASE_LOST
    except ArtefactsAwayError as error:
        log.error("the %s task ends, and is tried again where attempts are left: %s", kind, error)
        return NO_STORE
    return DONE
