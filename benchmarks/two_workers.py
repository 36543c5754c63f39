"""How much sooner two workers verify one job's candidates than one worker does.

    python -m benchmarks.two_workers [--candidates 8] [--epochs 20] [--rounds 3] [--cache FILE]

The real embedded service, anew for each run: one worker with one thread, two with one thread each, one with two
threads, in turns. Every run verifies the same networks, all that a random search of as many evaluations drew. The wall
time of verification goes from the start of its first attempt to the end of its last. Prints a line per run and one
JSON object last; with ``--cache`` a run that was cut goes on where it stopped. Needs two cores that nobody else uses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from api.embedded import Embedded, cores
from benchmarks.rows import Row, cached
from skyline.client import Client

BAR = 1.5
"""Of the wall time of one worker with one thread to that of two (issue 3)."""
SETTINGS = {"one": (1, 1), "two": (2, 1), "two-threads": (1, 2)}
"""(workers, threads of each)."""


def job(candidates: int, epochs: int) -> dict[str, Any]:
    """All candidates of the search are verified, so that what a thread count does to its values chooses nothing."""
    return {
        "name": "two workers",
        "space": {"name": "darts", "cells": 5, "channels": 8},
        "dataset": {"name": "digits"},
        "objectives": ["error", "params"],
        "algorithm": {"name": "random", "evaluate": {"epochs": 1, "subset": 200}},
        "budget": {"evaluations": candidates},
        "verify": {"top": candidates, "epochs": epochs},
    }


def run(spec: dict[str, Any], workers: int, threads: int, patience: float) -> Row:
    """One job in a service of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="skyline-") as folder,
        Embedded(Path(folder), port=0, workers=workers, threads=threads) as service,
        Client(service.url) as client,
    ):
        submitted = client.submit(spec)
        ended = client.wait(submitted.id, timeout=patience)
        if ended.status != "succeeded":
            raise RuntimeError(f"the job ended as {ended.status}: {ended.reason}")
        hashes = sorted(each.hash for each in client.candidates(submitted.id, status="verified"))
    attempts = [each for each in ended.attempts if each.kind == "verify"]
    assert all(each.end == "done" for each in attempts), "a fault of the machine would be counted as slowness"
    times = [(each.started_at, each.ended_at) for each in attempts if each.ended_at is not None]
    seconds = [(end - start).total_seconds() for start, end in times]
    return {
        "seconds": (max(end for _, end in times) - min(start for start, _ in times)).total_seconds(),
        "each": statistics.median(seconds),
        "cpu_seconds": sum(each.cpu_seconds or 0.0 for each in attempts),
        "workers": sorted({each.worker.rpartition("-")[2] for each in attempts}),
        "load_after": os.getloadavg()[0],
        "hashes": [each[:12] for each in hashes],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds that one run may take")
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    spec = job(given.candidates, given.epochs)
    rows: dict[str, list[Row]] = {name: [] for name in SETTINGS}
    for number in range(given.rounds):
        for name, (workers, threads) in SETTINGS.items():
            key = {"setting": name, "round": number, "job": spec}
            row = cached(given.cache, key, lambda w=workers, t=threads: run(spec, w, t, given.patience))  # type: ignore[misc]
            rows[name].append(row)
            print(json.dumps({part: value for part, value in row.items() if part not in ("job", "hashes")}), flush=True)
    same = len({tuple(row["hashes"]) for found in rows.values() for row in found}) == 1
    ratios = {
        name: [one["seconds"] / row["seconds"] for one, row in zip(rows["one"], found, strict=True)]
        for name, found in rows.items()
        if name != "one"
    }
    summary: dict[str, Any] = {
        "candidates": given.candidates,
        "same_networks": same,
        "cores": cores(),
        "seconds": {name: statistics.median(row["seconds"] for row in found) for name, found in rows.items()},
        "sooner": {name: {"median": statistics.median(found), "by_round": found} for name, found in ratios.items()},
        "bar": BAR,
        "met": statistics.median(ratios["two"]) >= BAR,
    }
    print(json.dumps({"benchmark": "two_workers", **summary}))


if __name__ == "__main__":
    main()
