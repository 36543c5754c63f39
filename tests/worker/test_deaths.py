"""Attempts that die again and again, and the death of those who watch them, in the real service."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from api.embedded import Embedded
from skyline import Client
from skyline.schemas import Attempt, Job
from tests.waiting import until

pytestmark = pytest.mark.e2e

SECONDS = 150.0
SPEC: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.5},
    "objectives": ["error", "params"],
    "algorithm": {"name": "nsga2", "population": 4, "evaluate": {"epochs": 1, "batch": 32, "subset": 96}},
    "budget": {"evaluations": 6},
    "verify": {"top": 2, "epochs": 2, "batch": 32, "lr": 0.1},
}
KILLED = "killed (SIGKILL): often the system's out-of-memory killer; peak memory "


@pytest.fixture(scope="module")
def client(short_folder: Path) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYLINE_LEASE_SECONDS", "5")  # what nobody watches comes back after that
        patch.setenv("SKYLINE_HEARTBEAT_SECONDS", "0.5")
        with Embedded(short_folder / "deaths", port=0, workers=1, threads=1) as running, Client(running.url) as made:
            yield made


def at_work() -> psutil.Process | None:
    """The process of the attempt that runs; there is one worker."""
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.name() == "skyline-child":
                return process
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return None


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def running(client: Client, job_id: UUID) -> Attempt | None:
    """The attempt that runs."""
    return next((attempt for attempt in client.job(job_id).attempts if attempt.ended_at is None), None)


@contextmanager
def killing(client: Client, job_id: UUID, wanted: Callable[[Attempt], bool]) -> Iterator[list[int]]:
    """Kills the process of every such attempt as soon as it is seen; the numbers of those killed."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            attempt, process = running(client, job_id), at_work()
            if attempt is not None and process is not None and wanted(attempt) and running(client, job_id) == attempt:
                process.kill()
                psutil.wait_procs([process], timeout=10)
                killed.append(process.pid)
            over.wait(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    over.set()
    thread.join()


def died(job: Job, kind: str) -> list[Attempt]:
    return [attempt for attempt in job.attempts if attempt.kind == kind and attempt.end == "died"]


def test_a_search_that_always_dies_fails_the_job_after_three_attempts(client: Client) -> None:
    job_id = client.submit(SPEC).id
    with killing(client, job_id, lambda attempt: attempt.kind == "search") as killed:
        job = client.wait(job_id, timeout=SECONDS)
    assert job.status == "failed" and job.reason is not None
    first = job.reason.splitlines()[0]
    assert first.startswith("the search died 3 times, the most that is allowed; the last time on worker")
    assert KILLED in first and first.endswith(" MB")
    attempts = died(job, "search")
    assert [attempt.number for attempt in attempts] == [1, 2, 3] and len(set(killed)) == 3
    assert {attempt.exit_signal for attempt in attempts} == {signal.SIGKILL}
    assert all(attempt.cpu_seconds and attempt.peak_memory_mb for attempt in attempts)


def test_a_verification_that_always_dies_costs_one_candidate(client: Client) -> None:
    job_id = client.submit(SPEC).id
    victims: list[UUID] = []

    def first_verification(attempt: Attempt) -> bool:
        if attempt.kind == "verify" and not victims:
            victims.append(attempt.task)
        return attempt.task in victims

    with killing(client, job_id, first_verification):
        job = client.wait(job_id, timeout=SECONDS)
    assert (job.status, job.reason) == ("succeeded", None)
    assert [(attempt.task, attempt.exit_signal) for attempt in died(job, "verify")] == [
        (victims[0], signal.SIGKILL)
    ] * 3
    tried = list(client.candidates(job_id))
    failed = [candidate for candidate in tried if candidate.status == "failed"]
    assert len(failed) == 1 and failed[0].failure is not None and KILLED in failed[0].failure
    assert failed[0].failure.startswith("the verification died 3 times, the most that is allowed")
    assert len([candidate for candidate in tried if candidate.status == "verified"]) == 1
    assert failed[0].id not in {member.id for member in client.front(job_id, kind="final").members}


def test_a_killed_pool_process_takes_its_attempt_and_its_template_along_and_the_task_comes_back(client: Client) -> None:
    job_id = client.submit({**SPEC, "verify": {"top": 1, "epochs": 25, "batch": 32}}).id
    until("verification", lambda: (now := running(client, job_id)) and now.kind == "verify")
    child = until("process", at_work)
    pool = child.parent().parent()  # above the template
    family = pool.children(recursive=True)
    pool.kill()
    until("death of its children", lambda: all(gone(process) for process in family))
    job = client.wait(job_id, timeout=SECONDS)
    assert job.status == "succeeded", job.reason
    attempts = [attempt for attempt in job.attempts if attempt.kind == "verify"]
    assert [attempt.end for attempt in attempts] == ["died", "done"]
    assert attempts[0].exit_signal is None, "nobody saw how it ended"
