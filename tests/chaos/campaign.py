"""Faults at random moments of real jobs, and the proof that they changed nothing."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from skyline import Client
from skyline.schemas import Job
from skyline.schemas.answers import ENDED
from tests.chaos.world import World, strike, until

SPEC: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.5},
    "objectives": ["error", "params"],
    "algorithm": {"name": "nsga2", "population": 4, "evaluate": {"epochs": 1, "batch": 16, "subset": 256}},
    "budget": {"evaluations": 16},
    "verify": {"top": 4, "epochs": 8, "batch": 16, "lr": 0.1},
}
GRANULAR: dict[str, Any] = {"fan_in": "free", "levels": "cell", "filters": True}
EPOCHS = {"budget": {"evaluations": 16, "epochs": 12}}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "nsga2": {},
    "darts": EPOCHS | {"algorithm": {"name": "darts", "batch": 16}},
    "entrannas": EPOCHS | {"algorithm": {"name": "entrannas", "batch": 16, "alpha_lr": 0.3}},
    "entrannas-dst": EPOCHS
    | {
        "algorithm": {"name": "entrannas", "batch": 16, "alpha_lr": 0.3, "dst": True},
        "space": {**SPEC["space"], "fan_in": "free"},
    },
    "rc-darts": EPOCHS
    | {
        "algorithm": {
            "name": "rc-darts",
            "batch": 16,
            "alpha_lr": 0.3,
            "bounds": [{"params": {"max": 1900.0}}, {"params": {"max": 1700.0}}],
        }
    },
    "tnd-nas": EPOCHS | {"algorithm": {"name": "tnd-nas", "batch": 16, "preferences": 3, "samples": 3, "rescored": 4}},
    "mgas": EPOCHS
    | {
        "algorithm": {
            "name": "mgas",
            "batch": 32,
            "alpha_lr": 3.0,
            "lambda_start": 0.1,
            "few_ops": 2,
            "commit_every": 1,
            "targets": [1900.0, 1700.0],
            "seed_training": {"epochs": 1, "batch": 32},
        },
        "space": {**SPEC["space"], **GRANULAR},
    },
}
"""What a job of each algorithm has instead of SPEC's."""
SPARE: dict[str, Any] = {
    **SPEC,
    "algorithm": {"name": "random", "batch": 2, "evaluate": {"epochs": 1, "batch": 32, "subset": 96}},
    "budget": {"evaluations": 2},
    "verify": {"top": 1, "epochs": 1, "batch": 32},
}
"""The job that the API dies over."""
LONGEST_WAIT = 4.0
"""Seconds from the first sign of life of a phase, or from recovery, to the next fault, at most."""
PHASES = ("searching", "verifying")

Result = tuple[Any, ...]


@dataclass(frozen=True)
class Blow:
    """One fault and what came after it."""

    phase: str
    after_seconds: float
    """From the phase's start or the recovery before."""
    recovery_seconds: float
    """Until the job told of something new: a candidate, an epoch, a new attempt, its end."""


def outcome(client: Client, job: Job) -> Result:
    """All that must not depend on faults: candidates, values, the front, test errors, the very weights."""
    tried = sorted(
        (c.hash, sorted((k, v.value) for k, v in c.search_values.items())) for c in client.candidates(job.id)
    )
    final = []
    for member in client.front(job.id, kind="final").members:
        assert member.test is not None
        values = sorted((key, value.value) for key, value in member.values.items())
        weights = hashlib.sha256(client.model(member.id, "safetensors")).hexdigest()
        final.append((member.hash, values, member.test.error, weights))
    assert len({hash for hash, _ in tried}) == len(tried), "a candidate stands twice"
    return job.status, tried, sorted(final)


def check_record(job: Job) -> None:
    """Every attempt of every task stands in the record, closed, and one of each task did the work."""
    by_task: dict[UUID, list[Any]] = {}
    for attempt in job.attempts:
        by_task.setdefault(attempt.task, []).append(attempt)
    for attempts in by_task.values():
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert all(attempt.ended_at and attempt.end for attempt in attempts)
        ends = Counter(attempt.end for attempt in attempts)
        assert attempts[-1].end == "done" and set(ends) <= {"done", "died", "drained"}, ends


class Campaign:
    """Jobs under fire in one world; a seed's unbroken run is made once."""

    def __init__(self, world: World, seed: int, algorithm: str = "nsga2") -> None:
        self.world, self.rng = world, random.Random(seed)
        self.spec = {**SPEC, **ALGORITHMS[algorithm]}
        self._unbroken: dict[int, Result] = {}
        self._spare: Result | None = None

    def unbroken(self, client: Client, seed: int) -> Result:
        if seed not in self._unbroken:
            job = client.wait(client.submit({**self.spec, "seed": seed}).id, timeout=300)
            assert job.status == "succeeded", job.reason
            self._unbroken[seed] = outcome(client, self._closed(client, job.id))
        return self._unbroken[seed]

    def run(self, faults: dict[str, list[str]], seed: int) -> list[Blow]:
        """One job with these faults by phase, in order, as many as fit into it; raises where they changed anything."""
        with Client(self.world.url) as client:
            expected = self.unbroken(client, seed)
            job_id = client.submit({**self.spec, "seed": seed}).id
        blows, more = [], []
        for phase in PHASES:
            for fault in faults.get(phase, []):
                if until(f"phase {phase}", lambda phase=phase: self._where(job_id, phase)) == "past":  # type: ignore[misc]
                    break
                wait = self.rng.uniform(0, LONGEST_WAIT)
                time.sleep(wait)
                status, seq = self.world.status(job_id)
                if status != phase:
                    break
                began = time.monotonic()
                more += strike(self.world, fault, job_id, self.rng, SPARE)
                until("sign of life", lambda seq=seq: self.world.told_since(job_id, seq))  # type: ignore[misc]
                blows.append(Blow(phase, round(wait, 2), round(time.monotonic() - began, 2)))
        with Client(self.world.url) as client:
            until("end of the job", lambda: self.world.status(job_id)[0] in ENDED)
            job = self._closed(client, job_id)
            assert job.status == "succeeded", job.reason
            found = outcome(client, job)
            assert found == expected, f"faults changed the result:\n{found}\ninstead of\n{expected}"
            check_record(job)
            for spare in more:
                self._check_spare(client, spare)
        return blows

    def _where(self, job_id: UUID, phase: str) -> str | None:
        """ "there" when a worker is at the phase, "past" when the job is over it."""
        status, _ = self.world.status(job_id)
        if status in ENDED or (phase == "searching" and status == "verifying"):
            return "past"
        return "there" if status == phase and self.world.busy(job_id) else None

    def _closed(self, client: Client, job_id: UUID) -> Job:
        """The job, once its last attempt is closed, which comes after its end."""

        def closed() -> Job | None:
            job = client.job(job_id)
            return job if all(attempt.ended_at for attempt in job.attempts) else None

        return until("end of all attempts", closed)

    def _check_spare(self, client: Client, job_id: UUID) -> None:
        until("end of the job that the API died over", lambda: self.world.status(job_id)[0] in ENDED)
        job = self._closed(client, job_id)
        assert job.status == "succeeded", job.reason
        found = outcome(client, job)
        self._spare = self._spare or found
        assert found == self._spare
        check_record(job)
