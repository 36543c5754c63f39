"""A service with everything in it: jobs in all states, candidates, fronts, events, a log, a file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from store import candidates, jobs, keys, logs, tasks
from store.session import unit_of_work
from store.settings import settings
from tests.api import results
from tests.store.factories import must_claim


@dataclass(frozen=True)
class Service:
    """A database with a catalog, and what is in it; keys are asked for."""

    headers: dict[str, str]
    """Of a key that may do everything, as often as it likes."""
    jobs: list[UUID]
    candidates: list[UUID]


def populate() -> Service:
    with unit_of_work() as session:
        _, key = keys.create(session, "fuzz", "admin", requests_per_minute=0, open_jobs=0)
    finished, verified = results.finished(3)
    relative = f"{finished}/weights.safetensors"
    place = settings().artefact_dir / relative
    place.parent.mkdir(parents=True)
    place.write_bytes(bytes(2048))
    searching, queued = results.job(), results.job(constraints={"params": {"max": 1}})
    tried = results.record(searching, 4)
    results.front(searching, "search", tried[:2])
    results.record(queued, 2)
    with unit_of_work() as session:
        candidates.add_artefact(session, verified[0], finished, "safetensors", relative, "0" * 64, 2048)
        candidates.fail(session, tried[3], "out of memory")
        verification = tasks.add(session, searching, "verify", tried[0]).id
    claim = must_claim(verification)
    with unit_of_work() as session:
        tasks.hold(session, claim.task_id, claim.fence)
        logs.append(session, claim.task_id, claim.fence, 0, 8, "epoch 1\n")
    made = [finished, searching, queued, ended("failed"), ended("cancelled")]
    return Service({"Authorization": f"Bearer {key}"}, made, [*verified, *tried])


def ended(status: str = "succeeded") -> UUID:
    """A job that has."""
    job_id = results.job()
    with unit_of_work() as session:
        jobs.finish(session, job_id, status, "because")
    return job_id
