"""``python -m worker.child TASK FENCE SUPERVISOR``: one attempt of one task, in a process of its own.

The only place of the service where torch runs. An error that says what is wrong with a job or a candidate ends that
with a reason; anything else is a crash, which the supervisor counts.
"""

from __future__ import annotations

import logging
import sys
from uuid import UUID

import torch

from nas_core.devices import device_of
from nas_core.errors import NasCoreError
from skyline.schemas import JobSpec
from store import candidates, jobs, tasks
from store.errors import LeaseLostError
from store.models import Task
from store.session import reading, unit_of_work
from store.settings import settings
from worker import conclude, search, verify
from worker.attempt import Attempt
from worker.control import DONE, LEASE_LOST, PUT_BACK, StopFlag, Stopped, die_with
from worker.identity import Identity
from worker.quiet import Room

log = logging.getLogger(__name__)

RUN = {"search": search.run, "verify": verify.run, "conclude": conclude.run}


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
            device=device_of(Identity().device),
            flag=flag,
            room=Room(),
        )
        return task.kind, attempt


def give_up(kind: str, attempt: Attempt, reason: str) -> None:
    """An error that another attempt would meet again: ends the candidate, or the job."""
    with unit_of_work(settings().outage_seconds) as session:
        tasks.hold(session, attempt.task_id, attempt.fence)
        if kind == "verify" and attempt.candidate_id is not None:
            candidates.fail(session, attempt.candidate_id, reason)
        else:
            jobs.finish(session, attempt.job_id, "failed", reason, by=attempt.task_id)


def main(task_id: UUID, fence: int) -> int:
    """Runs the attempt; the exit code says how it ended (worker.control)."""
    flag = StopFlag()
    torch.set_num_threads(Identity().threads)
    kind, attempt = load(task_id, fence, flag)
    try:
        try:
            RUN[kind](attempt)
        except NasCoreError as error:
            log.exception("the %s task ends", kind)
            give_up(kind, attempt, str(error))
        else:
            attempt.discard()  # otherwise a retry may go on from it
    except Stopped:
        return PUT_BACK
    except LeaseLostError:
        log.warning("the lease of task %s was lost; another attempt goes on", task_id)
        return LEASE_LOST
    return DONE


if __name__ == "__main__":
    die_with(int(sys.argv[3]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.exit(main(UUID(sys.argv[1]), int(sys.argv[2])))
