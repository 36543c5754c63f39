"""How long from a cancel to the end of the last process that worked on the job, in the real embedded service.

    python -m benchmarks.cancel_latency [--repeats 10] [--databases sqlite postgresql]

Jobs are cancelled while they wait behind another, while they search and while they verify, at random moments. The end
is when the job is `cancelled`, its attempts are closed, and no process that was under its attempt is left. Prints one
JSON object last; times are seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from api.embedded import Embedded
from benchmarks.databases import KINDS, database
from skyline.client import Client

BAR, PATIENCE, LOOK_SECONDS = 10.0, 120.0, 0.02
STATES = ("queued", "searching", "verifying")
ATTEMPT = "skyline-child"
"""Name of a process that works on an attempt."""
_COMMON: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 4},
    "dataset": {"name": "digits", "fraction": 0.3},
    "objectives": ["error", "params"],
    "algorithm": {"name": "random", "evaluate": {"epochs": 1, "subset": 100}},
}
SEARCHES = {**_COMMON, "budget": {"evaluations": 5000}}
VERIFIES = {**_COMMON, "budget": {"evaluations": 2}, "verify": {"top": 1, "epochs": 5000}}


def until(what: str, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {PATIENCE:g} s")
        time.sleep(LOOK_SECONDS)
    return found


def at_work(service: Embedded) -> list[psutil.Process]:
    """Processes that work on attempts, with what they started."""
    found: list[psutil.Process] = []
    for child in service.children:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(child.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.name() == ATTEMPT:
                        found += [process, *process.children(recursive=True)]
    return found


def cancelled(service: Embedded, client: Client, state: str, rng: random.Random) -> dict[str, float]:
    """Seconds until the service says so, and until the processes are gone."""
    before = client.submit(SEARCHES).id if state == "queued" else None
    if before is not None:
        until("job before it", lambda: client.job(before).status == "searching")
    job_id: UUID = client.submit(VERIFIES if state == "verifying" else SEARCHES).id
    mine: list[psutil.Process] = []
    if state != "queued":
        until(f"status {state}", lambda: client.job(job_id).status == state)
        until("candidate", lambda: next(iter(client.candidates(job_id)), None))
        mine = until("process", lambda: at_work(service))
    time.sleep(rng.uniform(0, 2))
    kept = len(list(client.candidates(job_id)))
    began = time.monotonic()
    client.cancel(job_id)
    until("end of the job", lambda: client.job(job_id).status == "cancelled")
    told = time.monotonic() - began
    until("end of its processes", lambda: not any(map(lives, mine)))
    gone = time.monotonic() - began
    until("end of its attempts", lambda: all(attempt.ended_at for attempt in client.job(job_id).attempts))
    if len(list(client.candidates(job_id))) < kept:
        raise RuntimeError(f"job {job_id} lost candidates by the cancel")
    if before is not None:
        client.cancel(before)
        until("end of the other", lambda: client.job(before).status == "cancelled")
        until("its processes", lambda: not at_work(service))
    return {"told": told, "gone": gone}


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in given.databases:
        rng = random.Random(given.seed)
        runs: dict[str, list[dict[str, float]]] = {state: [] for state in STATES}
        with (
            database(kind),
            tempfile.TemporaryDirectory(prefix="skyline-") as folder,
            Embedded(Path(folder), port=0, workers=1, threads=1) as service,
            Client(service.url) as client,
        ):
            for _ in range(given.repeats):
                for state in STATES:
                    runs[state].append(cancelled(service, client, state, rng))
        found[kind] = {
            state: {
                part: {"median": statistics.median(times), "max": max(times)}
                for part in ("told", "gone")
                for times in [[run[part] for run in each]]
            }
            for state, each in runs.items()
        }
        print(json.dumps({"database": kind, **found[kind]}), flush=True)
    worst = max(found[kind][state]["gone"]["max"] for kind in found for state in STATES)
    summary = {"repeats": given.repeats, "bar_seconds": BAR, "worst": worst, "met": worst < BAR}
    print(json.dumps({"benchmark": "cancel_latency", **summary, **found}))


if __name__ == "__main__":
    main()
