"""Many small jobs for half an hour while processes are killed: is any lost or done twice, does anything grow?

    python -m benchmarks.soak [--jobs 200] [--workers 4] [--minutes 30] [--database sqlite] [--rows FILE]
    python -m benchmarks.soak --jobs 6 --minutes 1
    python -m benchmarks.soak --report --rows FILE

The real embedded service with the patience it comes with. Jobs come evenly over the time, each followed over its event
stream from beginning to end, some cancelled on the way. Meanwhile attempts' processes, workers and the broker are
killed with SIGKILL at random; the first worker is spared, so that it can be seen to grow, its attempts are not. Every
few seconds resident memory and open files are noted of the API and of the first worker with its pool (attempts run in
processes of their own). When the time is up no more faults come and what is open may end. Samples, faults and jobs are
appended to ``--rows`` as they happen; ``--report`` sums up a file, also that of a run that was cut. Prints one JSON
object last.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from api.embedded import Embedded
from benchmarks.databases import KINDS, database
from benchmarks.rows import Row
from skyline.client import Client
from skyline.errors import ClientError
from skyline.schemas import Job

FAULTS = {"attempt": 5, "worker": 3, "broker": 1}
"""What is killed, and how often beside the others."""
EVALUATIONS, VERIFIED = 2, 1
CANCELLED_SHARE = 0.05
SAMPLE_SECONDS, TURN_SECONDS = 5.0, 0.2
BUSY_SHARE = 0.9
"""Of the time, over which jobs come and faults happen."""
WARM_SHARE = 0.1
"""Of the samples, which count as warming up."""
ATTEMPT = "worker.child"
"""On the command line of processes that run attempts, or wait to."""


def job(number: int) -> dict[str, Any]:
    """A search of seconds."""
    return {
        "name": f"soak {number}",
        "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 4},
        "dataset": {"name": "digits", "fraction": 0.3},
        "objectives": ["error", "params"],
        "algorithm": {"name": "random", "evaluate": {"epochs": 1, "subset": 100}},
        "budget": {"evaluations": EVALUATIONS},
        "verify": {"top": VERIFIED, "epochs": 1},
        "seed": number,
    }


# --- one job, from the outside ----------------------------------------------------------------------------------------


def follow(url: str, number: int, cancel: bool) -> Row:
    """Submits a job, watches all of it, and says what became of it."""
    began = time.monotonic()
    with Client(url) as client:
        submitted = client.submit(job(number), idempotency_key=f"soak-{number}")
        numbers, told = [], []
        for event in client.watch(submitted.id):
            numbers.append(event.seq)
            if event.type == "candidate":
                told.append((event.data["hash"], event.data["stage"]))
            if event.type == "attempt" and cancel:
                cancel = False
                with suppress(ClientError):  # it may have ended by now
                    client.cancel(submitted.id)
        ended = client.job(submitted.id)
        hashes = [candidate.hash for candidate in client.candidates(submitted.id)]
        members = len(list(client.front(submitted.id).members))
    return {
        "row": "job",
        "id": str(submitted.id),
        "status": ended.status,
        "reason": ended.reason,
        "missed_events": numbers != list(range(1, len(numbers) + 1)),
        "candidates": len(hashes),
        "doubled": sum(Counter(hashes).values()) - len(set(hashes)) + len(told) - len(set(told)),
        "overlaps": overlaps(ended),
        "incomplete": ended.status == "succeeded" and (len(hashes) != EVALUATIONS or not members),
        "attempts": len(ended.attempts),
        "ends": dict(Counter(str(attempt.end) for attempt in ended.attempts)),
        "seconds": time.monotonic() - began,
    }


def overlaps(ended: Job) -> int:
    """How often a task had two attempts at one time."""
    found = 0
    for task in {attempt.task for attempt in ended.attempts}:
        attempts = sorted((a for a in ended.attempts if a.task == task), key=lambda attempt: attempt.number)
        found += sum(1 for one, other in pairwise(attempts) if one.ended_at is None or other.started_at < one.ended_at)
    return found


@dataclass
class Follower:
    """A thread that follows one job."""

    url: str
    number: int
    cancel: bool
    outcome: Row | None = None
    error: str | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.outcome = follow(self.url, self.number, self.cancel)
        except ClientError as error:
            self.error = str(error)


# --- the service, from the inside -------------------------------------------------------------------------------------


def kill(service: Embedded, what: str, rng: random.Random) -> Row | None:
    """One fault; None where there is nothing of the kind just now."""
    named = {child.name: psutil.Process(child.process.pid) for child in service.children if child.code is None}
    workers = [process for name, process in named.items() if name.startswith("worker")]
    found: list[psutil.Process] = []
    if what == "broker":
        found = [process for name, process in named.items() if name == "broker"]
    elif what == "worker":
        found = [process for name, process in named.items() if name.startswith("worker") and name != "worker 1"]
    else:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                found += [process for process in worker.children(recursive=True) if runs_attempts(process)]
    if not found:
        return None
    victim = rng.choice(found)
    with suppress(psutil.NoSuchProcess):
        victim.kill()
    return {"row": "fault", "what": what}


def runs_attempts(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return ATTEMPT in process.cmdline()
    return False


def sample(service: Embedded) -> dict[str, dict[str, float]]:
    """Memory and files of the processes that live as long as the service."""
    found = {}
    for child in service.children:
        if child.name not in ("API", "worker 1"):
            continue
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            main = psutil.Process(child.process.pid)
            family = [main, *(each for each in main.children(recursive=True) if not runs_attempts(each))]
            found[child.name] = {
                "rss_mb": sum(each.memory_info().rss for each in family) / 2**20,
                "files": float(sum(each.num_fds() for each in family)),
                "processes": float(len(family)),
            }
    return found


class Soak:
    """The time and what happens in it."""

    def __init__(self, service: Embedded, given: argparse.Namespace, rows: list[Row]) -> None:
        self.service, self.given, self.rows = service, given, rows
        self.rng = random.Random(given.seed)
        self.seconds = 60.0 * given.minutes
        self.began = time.monotonic()
        self.open: list[Follower] = []
        self.submitted = 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def note(self, row: Row) -> None:
        row = {**row, "at": round(self.elapsed, 1)}
        self.rows.append(row)
        if self.given.rows is not None:
            with self.given.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if row["row"] != "sample":
            print(json.dumps(row), flush=True)

    def run(self) -> None:
        self.note({"row": "start", "jobs": self.given.jobs, "workers": self.given.workers})
        next_fault, next_sample = self._pause(), 0.0
        while self.elapsed < self.seconds + self.given.patience and (self.open or self.elapsed < self.seconds):
            self.service.check()  # by the thread that started them: they die with it
            busy = self.elapsed < BUSY_SHARE * self.seconds
            self._submit()
            self._collect()
            if busy and self.elapsed > next_fault:
                what = self.rng.choices(list(FAULTS), list(FAULTS.values()))[0]
                fault = kill(self.service, what, self.rng)
                if fault is not None:
                    self.note(fault)
                    next_fault = self.elapsed + self._pause()
            if self.elapsed > next_sample:
                self.note({"row": "sample", "open": len(self.open), **sample(self.service)})
                next_sample = self.elapsed + SAMPLE_SECONDS
            time.sleep(TURN_SECONDS)
        for follower in self.open:
            self.note({"row": "job", "number": follower.number, "status": "not ended"})

    def _pause(self) -> float:
        return self.rng.expovariate(1 / self.given.fault_seconds)

    def _submit(self) -> None:
        """As many as are due; no more at a time than the workers get through."""
        due = self.given.jobs * min(1.0, self.elapsed / (BUSY_SHARE * self.seconds))
        while self.submitted < due and len(self.open) < 3 * self.given.workers and self.elapsed < self.seconds:
            cancel = self.rng.random() < CANCELLED_SHARE
            self.open.append(Follower(self.service.url, self.submitted, cancel))
            self.submitted += 1

    def _collect(self) -> None:
        for follower in [each for each in self.open if not each.thread.is_alive()]:
            self.open.remove(follower)
            lost: Row = {"row": "job", "number": follower.number, "status": "not followed", "reason": follower.error}
            self.note(follower.outcome or lost)


# --- summing up -------------------------------------------------------------------------------------------------------


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """What a run's rows come to."""
    jobs = [row for row in rows if row["row"] == "job"]
    samples = [row for row in rows if row["row"] == "sample"]
    followed = [row for row in jobs if "attempts" in row]
    ends: Counter[str] = Counter()
    for row in followed:
        ends.update(row["ends"])
    status = Counter(row["status"] for row in jobs)
    wrong = {
        "not_ended": status["not ended"] + status["not followed"],
        "candidates_doubled": sum(row["doubled"] for row in followed),
        "attempts_at_one_time": sum(row["overlaps"] for row in followed),
        "incomplete": sum(row["incomplete"] for row in followed),
        "missed_events": sum(row["missed_events"] for row in followed),
    }
    return {
        "minutes": round(max((row["at"] for row in rows), default=0.0) / 60, 1),
        "jobs": len(jobs),
        "status": dict(status),
        "reasons": sorted({str(row["reason"])[:200] for row in followed if row["status"] == "failed"}),
        "attempts": dict(ends),
        "seconds_of_a_job": statistics.median(row["seconds"] for row in followed) if followed else None,
        "faults": dict(Counter(row["what"] for row in rows if row["row"] == "fault")),
        **wrong,
        "growth": {name: growth(samples, name) for name in ("API", "worker 1")},
        "met": not any(wrong.values()),
    }


def growth(samples: Sequence[Row], name: str) -> dict[str, Any]:
    """Memory and files in the first and the last quarter after warming up, and the slope over all of it by the hour."""
    found = [(row["at"], row[name]) for row in samples if name in row]
    found = found[int(WARM_SHARE * len(found)) :]
    quarter = len(found) // 4
    if not quarter:
        return {}
    hours = [at / 3600 for at, _ in found]
    summary: dict[str, Any] = {"samples": len(found)}
    for what in ("rss_mb", "files"):
        values = [each[what] for _, each in found]
        first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        slope = statistics.linear_regression(hours, values).slope
        summary[what] = {"first": round(first, 1), "last": round(last, 1), "an_hour": round(slope, 2)}
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--fault-seconds", type=float, default=20.0, help="between two faults, on the average")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds for what is open at the end")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--report", action="store_true", help="run nothing, sum up --rows")
    given = parser.parse_args()
    rows: list[Row] = []
    if given.report:
        rows = [json.loads(line) for line in given.rows.read_text().splitlines()]
    else:
        with (
            database(given.database),
            tempfile.TemporaryDirectory(prefix="skyline-") as folder,
            Embedded(Path(folder), port=0, workers=given.workers, threads=1) as service,
        ):
            Soak(service, given, rows).run()
    print(json.dumps({"benchmark": "soak", "database": given.database, **report(rows)}))


if __name__ == "__main__":
    main()
