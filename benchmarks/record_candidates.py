"""How many candidates a second a search can record: rows, values, events and the front, as the service does it.

    python -m benchmarks.record_candidates [--candidates 5000] [--rounds 3]

Events of a search with three objectives go through the real recorder, under the fence of a claimed task, in
transactions of at most 50, with fsync on. Candidates are made beforehand. Beside it, in the same run, what the disk
gives: the same bytes appended to a file and synced as often. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, select

from benchmarks import synthetic
from benchmarks.databases import KINDS, database
from nas_core.events import Evaluated, Evaluation
from nas_core.objectives.error import Error
from nas_core.objectives.latency_ms import LatencyMs
from nas_core.objectives.params import Params
from nas_core.search import Axes
from store import fronts, jobs, tasks
from store.models import Task
from store.session import engine, reading, unit_of_work
from worker.recorder import FLUSH_COUNT, SearchRecorder

BAR = 1000.0
"""Candidates a second (architecture, section 6)."""
AXES = Axes({"error": Error(), "params": Params(), "latency_ms": LatencyMs()})


def events_of(count: int, seed: int) -> list[Evaluated]:
    """What a search says; a measured value would be written at once, so latency says that it is predicted."""
    said = []
    for genotype, point in zip(synthetic.genotypes(count, seed), synthetic.converging(count, seed), strict=True):
        values = synthetic.values(*map(float, point), cheap=True)
        said.append(Evaluated(Evaluation(genotype, (values,))))
    return said


def recorder() -> SearchRecorder:
    """One with the lease of a new job's search."""
    with unit_of_work() as session:
        job = jobs.create(session, synthetic.SPEC, "benchmark")
        task_id = session.scalars(select(Task.id).where(Task.job_id == job.id)).one()
        claim = tasks.claim(session, task_id, "benchmark", "cpu", 1, lease_seconds=3600, max_attempts=3)
    assert claim is not None
    reference = synthetic.SPEC["reference_point"]
    return SearchRecorder(claim.task_id, claim.fence, claim.job_id, AXES, (synthetic.SKELETON,), reference)


def record(said: Sequence[Evaluated]) -> tuple[float, int]:
    """(seconds, members of the front in the end)."""
    taking = recorder()
    began = time.perf_counter()
    for each in said:
        taking.take(each)
    taking.flush()
    seconds = time.perf_counter() - began
    with reading() as session:
        front = fronts.state(session, taking.job_id, "search")
        assert front is not None
        return seconds, front.size


def statements(said: Sequence[Evaluated]) -> float:
    """Statements in a transaction of ``FLUSH_COUNT`` candidates, without the bulk inserts that go past SQLAlchemy."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    taking, counted = recorder(), engine()
    assert isinstance(counted, Engine)
    event.listen(counted, "before_cursor_execute", note)
    for each in said:
        taking.take(each)
    event.remove(counted, "before_cursor_execute", note)
    return len(seen) / (len(said) / FLUSH_COUNT)


def disk(transactions: int, size: int) -> float:
    """Seconds to append and sync a file so often."""
    with tempfile.TemporaryFile(dir=Path(os.environ["SKYLINE_DATA_DIR"])) as file:
        began = time.perf_counter()
        for _ in range(transactions):
            file.write(b"\0" * size)
            file.flush()
            os.fsync(file.fileno())
        return time.perf_counter() - began


def measure(said: Sequence[Evaluated], rounds: int) -> dict[str, Any]:
    few = said[: 10 * FLUSH_COUNT]
    in_transaction = statements(few)
    runs = [record(said) for _ in range(rounds)]
    seconds = [taken for taken, _ in runs]
    size = sum(len(json.dumps(each.evaluation.values[0]["error"].to_json())) * 8 for each in few) // 10
    rates = [len(said) / taken for taken in seconds]
    synced = disk(len(said) // FLUSH_COUNT, size)
    return {
        "a_second": statistics.median(rates),
        "best": max(rates),
        "front": runs[-1][1],
        "statements": in_transaction,
        "seconds": min(seconds),
        "disk_seconds": synced,
        "to_disk": min(seconds) / synced,
        "met": statistics.median(rates) >= BAR,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    said = events_of(given.candidates, seed=0)
    found: dict[str, Any] = {}
    for kind in given.databases:
        with database(kind):
            found[kind] = measure(said, given.rounds)
        print(json.dumps({"database": kind, **found[kind]}), flush=True)
    print(json.dumps({"benchmark": "record_candidates", "bar_a_second": BAR, **found}))


if __name__ == "__main__":
    main()
