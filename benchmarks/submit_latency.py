"""How long from ``POST /v1/jobs`` to the first event that carries a training loss, in the real embedded service.

    python -m benchmarks.submit_latency [--repeats 5] [--databases sqlite postgresql] [--job FILE ...]

Jobs come one at a time to a service at rest, one worker with one thread, and are cancelled once they have told a loss;
the events are watched as they are streamed. The first job after a start is given apart. Beside it, in the same run,
what a process takes to start, to import what an attempt needs, and to read the data. Prints one JSON object last;
times are seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from api.embedded import Embedded
from api.processes import environment
from benchmarks.databases import KINDS, database
from skyline.client import Client
from skyline.schemas import JobSpec
from skyline.specs import load

BAR, WISHED = 5.0, 3.0
"""Seconds at the median (architecture, section 6)."""
_COMMON = {
    "space": {"name": "darts", "cells": 5, "channels": 8},
    "dataset": {"name": "digits"},
    "objectives": ["error", "params"],
}
JOBS: dict[str, dict[str, Any]] = {
    "supernet": {**_COMMON, "algorithm": {"name": "darts"}, "budget": {"epochs": 50}},
    "short-training": {**_COMMON, "algorithm": {"name": "nsga2", "population": 8}, "budget": {"evaluations": 48}},
}
REST_SHARE, REST_SECONDS, PATIENCE = 0.03, 1.5, 60.0
"""At rest: its processes use less than this share of a core for so long."""
BEFORE_FIRST_STEP = """
import json, sys, time
from pathlib import Path
began = time.perf_counter()
import worker.run
imported = time.perf_counter()
import torch
from skyline.schemas import JobSpec
from worker.assembly import plan_of
plan_of(JobSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), torch.device("cpu"))
print(json.dumps({"import": imported - began, "data": time.perf_counter() - imported}))
"""


def first_loss(client: Client, spec: dict[str, Any]) -> dict[str, float]:
    """Seconds from the request on, and its parts; leaves the job cancelled."""
    began, clock = time.perf_counter(), time.time()
    job = client.submit(spec)
    posted = time.perf_counter() - began
    claimed: datetime | None = None
    for event in client.watch(job.id):
        if event.type == "attempt" and claimed is None:
            claimed = event.at
        if event.type == "progress" and "loss" in event.data.get("metrics", {}):
            break
    else:
        raise RuntimeError(f"job {job.id} ended without a loss: {client.job(job.id).reason}")
    total = time.perf_counter() - began
    assert claimed is not None, "a loss comes from an attempt"
    client.cancel(job.id)
    client.wait(job.id, timeout=PATIENCE)
    return {
        "total": total,
        "post": posted,
        "claim": claimed.timestamp() - clock - posted,
        "attempt": (event.at - claimed).total_seconds(),
        "stream": clock + total - event.at.timestamp(),
    }


def wait_for_rest(service: Embedded) -> None:
    """Returns when the service's processes have nothing to do, or after a while."""
    calm, deadline = time.monotonic(), time.monotonic() + PATIENCE
    before = _used(service)
    while time.monotonic() - calm < REST_SECONDS and time.monotonic() < deadline:
        time.sleep(0.25)
        now = _used(service)
        if now - before > REST_SHARE * 0.25 + 0.02:  # a tick of the clock is 10 ms
            calm = time.monotonic()
        before = now


def _used(service: Embedded) -> float:
    """Processor seconds of all processes of the service so far."""
    used = 0.0
    for child in service.children:
        try:
            for process in (parent := psutil.Process(child.process.pid), *parent.children(recursive=True)):
                times = process.cpu_times()
                used += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return used


def before_first_step(spec: dict[str, Any], folder: Path) -> dict[str, float]:
    """What a fresh process needs: interpreter, imports, data."""
    began = time.perf_counter()
    argv = [sys.executable, "-c", BEFORE_FIRST_STEP, JobSpec.model_validate(spec).model_dump_json(), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment())
    found: dict[str, float] = json.loads(done.stdout)
    return {"process": time.perf_counter() - began - sum(found.values()), **found}


def measure(folder: Path, specs: dict[str, dict[str, Any]], repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with Embedded(folder, port=0, workers=1, threads=1) as service, Client(service.url) as client:
        wait_for_rest(service)
        first = first_loss(client, next(iter(specs.values())))
        for name, spec in specs.items():
            runs = []
            for _ in range(repeats):
                wait_for_rest(service)
                runs.append(first_loss(client, spec))
            totals = [run["total"] for run in runs]
            median = statistics.median(totals)
            found[name] = {
                "median": median,
                "min": min(totals),
                "max": max(totals),
                "parts": {part: statistics.median(run[part] for run in runs) for part in first if part != "total"},
                "met": median < BAR,
                "wished": median < WISHED,
            }
    return {"first_after_start": first["total"], **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--job", type=Path, nargs="+", help="job files instead of the two built in")
    given = parser.parse_args()
    specs = {path.stem: dict(load(path)) for path in given.job} if given.job else JOBS
    found: dict[str, Any] = {}
    for kind in given.databases:
        with database(kind), tempfile.TemporaryDirectory(prefix="skyline-") as folder:
            found[kind] = measure(Path(folder), specs, given.repeats)
        print(json.dumps({"database": kind, **found[kind]}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        beside = [before_first_step(next(iter(specs.values())), Path(folder)) for _ in range(3)]
    parts = {part: min(each[part] for each in beside) for part in beside[0]}
    bars = {"bar_seconds": BAR, "wished_seconds": WISHED}
    print(json.dumps({"benchmark": "submit_latency", **bars, **found, "fresh_process": parts}))


if __name__ == "__main__":
    main()
