"""What a worker would have recorded: candidates on a front's diagonal, verified or not."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np

from nas_core.architecture import Architecture
from nas_core.settings import parse
from nas_core.spaces import spaces
from store import candidates, fronts, jobs
from store.artefacts import STATE
from store.candidates import NewCandidate
from store.session import unit_of_work

SPEC: dict[str, Any] = {
    "name": "toy",
    "space": {"name": "darts", "cells": 3, "channels": 4},
    "dataset": {"name": "digits"},
    "objectives": [{"name": "error"}, {"name": "params"}, {"name": "latency_ms"}],
    "algorithm": {"name": "random"},
    "reference_point": {"error": 0.9, "params": 1e6, "latency_ms": 100.0},
}


def architectures(count: int) -> list[Architecture]:
    space = parse(spaces["darts"], {"cells": 3, "channels": 4}, "space")
    rng, skeleton = np.random.default_rng(0), space.skeleton((1, 8, 8), 10)
    return [Architecture(space.sample(rng), skeleton) for _ in range(count)]


def job(**changes: Any) -> UUID:
    with unit_of_work() as session:
        return jobs.create(session, {**SPEC, **changes}, "toy").id


def value(number: float, unit: str, kind: str, **detail: Any) -> dict[str, Any]:
    return {"value": number, "unit": unit, "kind": kind, **detail}


def record(job_id: UUID, count: int) -> list[UUID]:
    """Candidate n has error 0.1 + n/100, params 1000 - n and latency 10 - n/10, all as the search saw it."""
    new = [
        NewCandidate(
            hash=architecture.hash,
            architecture=architecture.to_json(),
            target=0,
            values={
                "error": value(0.1 + number / 100, "", "supernet"),
                "params": value(1000.0 - number, "", "exact"),
                "latency_ms": value(10 - number / 10, "ms", "measured", device="cpu", n=30, iqr=0.1),
            },
        )
        for number, architecture in enumerate(architectures(count))
    ]
    with unit_of_work() as session:
        return [candidate_id for candidate_id, _ in candidates.record(session, job_id, "search", new)]


def verify(ids: list[UUID]) -> None:
    """The trained error is half of what the search saw."""
    with unit_of_work() as session:
        for number, candidate_id in enumerate(ids):
            values = {
                "error": value((0.1 + number / 100) / 2, "", "trained", epochs=20, seeds=1),
                "params": value(1000.0 - number, "", "exact"),
                "latency_ms": value(8 - number / 10, "ms", "measured", device="cpu", n=60, iqr=0.1),
            }
            candidates.set_final(session, candidate_id, values)


def front(job_id: UUID, kind: fronts.Kind, ids: list[UUID], hypervolume: float = 1.5) -> int | None:
    with unit_of_work() as session:
        return fronts.replace(session, job_id, kind, ids, hypervolume, ids[0] if ids else None)


def searched(job_id: UUID) -> None:
    """The job's search is over and has kept its state."""
    with unit_of_work() as session:
        jobs.set_phase(session, job_id, status="verifying", phase="verifying 1")
        candidates.add_artefact(session, None, job_id, STATE, f"{job_id}/job.state-1.pt", "0" * 64, 1)


def finished(count: int) -> tuple[UUID, list[UUID]]:
    """A job that succeeded with ``count`` verified candidates, all on both fronts."""
    job_id = job()
    ids = record(job_id, count)
    front(job_id, "search", ids)
    verify(ids)
    front(job_id, "final", ids)
    with unit_of_work() as session:
        candidates.set_test(session, ids[0], {"error": 0.06, "sd": 0.01, "n": 360})
        jobs.finish(session, job_id, "succeeded")
    return job_id, ids
