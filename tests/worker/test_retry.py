"""Second chances in the real service, where one death is the most that is allowed: and the log that tells of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.embedded import Embedded
from skyline import Client
from skyline.schemas import Candidate, Job
from tests.waiting import until

pytestmark = pytest.mark.e2e

SECONDS = 150.0
SPEC: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.5},
    "objectives": ["error", "params"],
    "algorithm": {"name": "nsga2", "population": 4, "evaluate": {"epochs": 1, "batch": 32, "subset": 96}},
    "budget": {"evaluations": 6},
    "verify": {"top": 2, "epochs": 12, "batch": 32, "lr": 0.1},  # long enough for a kill in the middle
}
KILLED = "killed (SIGKILL): often the system's out-of-memory killer; peak memory "
LATENCY = {"name": "latency_ms", "seconds": 0.05, "key": "lat"}


@pytest.fixture(scope="module")
def client(short_folder: Path) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYLINE_MAX_ATTEMPTS", "1")
        with Embedded(short_folder / "retry", port=0, workers=1, threads=1) as running, Client(running.url) as made:
            yield made


def kill_child() -> bool:
    """Whether there was a child at work to kill."""
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.name() != "skyline-spare" and "worker.child" in " ".join(process.cmdline()):
                process.kill()
                return True
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return False


def running(client: Client, job: Job, kind: str) -> bool:
    return any(attempt.kind == kind and attempt.ended_at is None for attempt in client.job(job.id).attempts)


def tried(client: Client, job: Job) -> dict[str, Candidate]:
    return {candidate.hash: candidate for candidate in client.candidates(job.id)}


def test_a_verification_that_was_killed_is_done_again(client: Client) -> None:
    job = client.submit({**SPEC, "objectives": [*SPEC["objectives"], LATENCY]})
    until("verification", lambda: running(client, job, "verify"))
    until("child to kill", kill_child)
    job = client.wait(job.id, timeout=SECONDS)
    assert job.status == "succeeded", job.reason
    failed = next(candidate for candidate in client.candidates(job.id) if candidate.status == "failed")
    assert failed.failure is not None
    first = failed.failure.splitlines()[0]
    assert first.startswith("the verification died once, the most that is allowed") and KILLED in first
    before = {member.hash: member for member in client.front(job.id, kind="final").members}
    assert before and failed.hash not in before

    assert client.retry_candidate(failed.id).status == "evaluated"
    job = client.wait(job.id, timeout=SECONDS)
    assert (job.status, job.reason, job.progress) == ("succeeded", None, 1.0)
    again = tried(client, job)
    done = again[failed.hash]
    assert (done.status, done.failure) == ("verified", None)
    assert {key: value.kind for key, value in done.values.items()} == {
        "error": "trained",
        "params": "exact",
        "lat": "measured",
    }
    for hash, member in before.items():  # measured and tested once
        assert (again[hash].values, again[hash].test) == (member.values, member.test)
    assert {member.hash for member in client.front(job.id, kind="final").members} <= {failed.hash, *before}

    deaths = [attempt for attempt in job.attempts if attempt.end == "died"]
    assert [(attempt.kind, attempt.exit_signal) for attempt in deaths] == [("verify", signal.SIGKILL)]
    pieces = list(client.log_pieces(job.id, follow=True))
    assert {(piece.kind, piece.attempt) for piece in pieces} >= {("search", 1), ("verify", 2), ("conclude", 2)}
    told = client.log_text(job.id, task=deaths[0].task, attempt=2)
    assert f"==> verify, attempt 2, candidate {str(failed.id)[:8]}" in told and "epoch 12 of 12: loss" in told


def test_a_search_that_was_killed_and_one_that_was_cancelled_end_like_the_unbroken_one(client: Client) -> None:
    unbroken = client.wait(client.submit(SPEC).id, timeout=SECONDS)
    assert unbroken.status == "succeeded", unbroken.reason
    job = client.submit(SPEC)
    until("first candidate", lambda: next(iter(client.candidates(job.id)), None))
    until("child to kill", kill_child)
    dead = client.wait(job.id, timeout=SECONDS)
    assert dead.status == "failed" and dead.reason is not None
    first, *log = dead.reason.splitlines()
    assert first.startswith("the search died once") and KILLED in first
    assert any("searching on cpu" in line for line in log)

    found = set(tried(client, job))
    client.retry(job.id)
    until("next attempt", lambda: running(client, job, "search"))
    client.cancel(job.id)
    assert client.wait(job.id, timeout=SECONDS).status == "cancelled"
    client.retry(job.id)
    done = client.wait(job.id, timeout=SECONDS)
    assert (done.status, done.reason) == ("succeeded", None)
    assert found <= set(tried(client, job))
    numbers = [attempt.number for attempt in done.attempts if attempt.kind == "search"]
    assert numbers in ([1, 2], [1, 2, 3])  # the second may have come to its end before it saw that it was to stop
    assert results(client, done) == results(client, unbroken)


def results(client: Client, job: Job) -> list[tuple[Any, ...]]:
    """What must not depend on how often a job was interrupted."""
    return [
        (
            hash,
            candidate.status,
            candidate.search_values["error"].value,
            candidate.values["error"].value,
            candidate.test,
        )
        for hash, candidate in sorted(tried(client, job).items())
    ]
