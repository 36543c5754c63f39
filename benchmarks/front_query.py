"""How long a front of 1,000 members takes over HTTP: all of it, a page of it, and the word that it is unchanged.

    python -m benchmarks.front_query [--candidates 100000] [--members 1000] [--repeats 50] [--folder FOLDER]

A job of 100,000 candidates lies in the database; a real server answers, a process of its own that keeps nothing
between requests; this one asks. Beside it, in the same run, a request that reads nothing (``/healthz``) and the naive
way: all rows read and the front computed anew, without any HTTP. Prints one JSON object last; times are milliseconds,
``cpu`` the processor time of the server's process alone, which others on the machine disturb less. ``--folder`` keeps
the filled databases for the next run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import create_engine, select, text

from api import views
from benchmarks import synthetic
from benchmarks.databases import KINDS, database
from nas_core.architecture import Architecture
from nas_core.pareto import non_dominated
from store import candidates, fronts, jobs
from store.candidates import NewCandidate
from store.engine import parse_url
from store.models import Job
from store.session import reading, unit_of_work

BARS = {"front": 40.0, "page": 10.0, "unchanged": 5.0}
"""Milliseconds at the median (architecture, section 6)."""
PAGE = 100
BATCH = 1000


def fill(count: int, members: int) -> UUID:
    """A job that succeeded: all candidates with search values, the members verified. Or the one that is there."""
    name = f"{count} candidates, {members} members"
    with reading() as session:
        there = session.scalars(select(Job.id).where(Job.name == name, Job.status == "succeeded")).first()
    if there is not None:
        return there
    points, place = synthetic.with_front(count, members)
    with unit_of_work() as session:
        job_id = jobs.create(session, synthetic.SPEC, name).id
    found: list[UUID] = []
    genotypes = synthetic.genotypes(count)
    while batch := [Architecture(each, synthetic.SKELETON) for each in islice(genotypes, BATCH)]:
        new = [
            NewCandidate(each.hash, each.to_json(), 0, documents(points[len(found) + index]))
            for index, each in enumerate(batch)
        ]
        with unit_of_work() as session:
            found += [candidate_id for candidate_id, _ in candidates.record(session, job_id, "search", new)]
    ids = [found[index] for index in place]
    with unit_of_work() as session:
        for version in range(10):  # a history: members that have left stay in the table
            before = found[version :: count // members][: members - 1]
            fronts.replace(session, job_id, "search", before, 1.0, before[0])
        fronts.replace(session, job_id, "search", ids, 1.0, ids[0])
        for candidate_id, index in zip(ids, place, strict=True):
            candidates.set_final(session, candidate_id, documents(points[index], verified=True))
            candidates.set_test(session, candidate_id, {"error": float(points[index][0]), "sd": 0.011, "n": 360})
            path = f"{job_id}/{candidate_id}.safetensors"
            candidates.add_artefact(session, candidate_id, job_id, "safetensors", path, "0" * 64, 1_000_000)
        fronts.replace(session, job_id, "final", ids, 1.0, ids[0])
        jobs.finish(session, job_id, "succeeded")
    return job_id


def documents(point: synthetic.Points, verified: bool = False) -> candidates.Documents:
    found = synthetic.values(*map(float, point), verified=verified)
    return {key: value.to_json() for key, value in found.items()}


def vacuum(url: str) -> None:
    """What PostgreSQL does by itself within a minute of so many writes."""
    if parse_url(url).get_backend_name() == "postgresql":
        engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """Port and process id of the API as ``skyline serve`` starts it, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    argv = [sys.executable, "-m", "uvicorn", "api.app:app", "--port", str(port), "--no-access-log"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, env={**os.environ, "SKYLINE_KEYS": "off"}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        raise RuntimeError(f"the server does not start:\n{log.read().decode()}") from None
                    time.sleep(0.05)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


class Asker:
    """One connection that stays open; a request takes from the first byte sent to the last one read."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.connect()
        assert self._connection.sock is not None
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path: str, tag: str | None = None, expected: int = 200) -> tuple[float, bytes, str]:
        """(milliseconds, body, entity tag)."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"If-None-Match": tag} if tag else {})
        answer = self._connection.getresponse()
        body = answer.read()
        taken = 1e3 * (time.perf_counter() - began)
        if answer.status != expected:
            raise RuntimeError(f"{path}: {answer.status} {body[:500]!r}")
        return taken, body, answer.headers.get("ETag", "")


def busy(pid: int) -> float:
    """Milliseconds that a process has computed, as Linux counts them; 0 elsewhere."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6


def naive(job_id: UUID) -> float:
    """Milliseconds to read every candidate's values, compute the front and build its answer through the models."""
    began = time.perf_counter()
    with reading() as session:
        rows = [row for row in candidates.all_values(session, job_id, "search") if row.values]
        costs = [[row.values[key]["value"] for key in ("error", "params", "latency_ms")] for row in rows]
        ids = [row.candidate_id for row, kept in zip(rows, non_dominated(costs), strict=True) if kept]
        members = views.candidate_list(session, candidates.many(session, ids))
    sum(len(member.model_dump_json()) for member in members)
    return 1e3 * (time.perf_counter() - began)


def measure(url: str, count: int, members: int, repeats: int) -> dict[str, Any]:
    """Figures on one database; the kinds of requests take turns, so that a slow moment hits them alike."""
    job_id = fill(count, members)
    vacuum(url)
    front = f"/v1/jobs/{job_id}/front"
    with server() as (port, pid):
        asker = Asker(port)
        _, body, tag = asker.get(front)
        answer = json.loads(body)
        assert len(answer["members"]) == members, "every member is there"
        search = json.loads(asker.get(f"{front}?kind=search")[1])
        assert [each["id"] for each in search["members"]] == [each["id"] for each in answer["members"]]
        half = json.loads(asker.get(f"{front}?limit={members // 2}")[1])["next"]
        page = f"{front}?limit={PAGE}&cursor={half}"
        assert len(json.loads(asker.get(page)[1])["members"]) == min(PAGE, members // 2)
        asks: dict[str, Callable[[], float]] = {
            "nothing": lambda: asker.get("/healthz")[0],
            "front": lambda: asker.get(front)[0],
            "search_front": lambda: asker.get(f"{front}?kind=search")[0],
            "page": lambda: asker.get(page)[0],
            "unchanged": lambda: asker.get(front, tag, 304)[0],
        }
        taken: dict[str, list[float]] = {name: [] for name in asks}
        computed: dict[str, list[float]] = {name: [] for name in asks}
        for _ in range(repeats):
            for name, ask in asks.items():
                before = busy(pid)
                taken[name].append(ask())
                computed[name].append(busy(pid) - before)
    naively = min(naive(job_id) for _ in range(2))
    figures = {name: {**summary(taken[name]), "cpu": statistics.median(computed[name])} for name in asks}
    return {
        "bytes": len(body),
        **figures,
        "naive": naively,
        "naive_to_front": naively / figures["search_front"]["p50"],
        "to_nothing": {name: figures[name]["p50"] / figures["nothing"]["p50"] for name in BARS},
        "met": {name: figures[name]["p50"] < bar for name, bar in BARS.items()},
    }


def summary(times: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(times), "p95": statistics.quantiles(times, n=20)[-1], "min": min(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in given.databases:
        with database(kind, given.folder / kind if given.folder else None) as url:
            found[kind] = measure(url, given.candidates, given.members, given.repeats)
        print(json.dumps({"database": kind, **found[kind]}), flush=True)
    print(json.dumps({"benchmark": "front_query", "bars_ms": BARS, **found}))


if __name__ == "__main__":
    main()
