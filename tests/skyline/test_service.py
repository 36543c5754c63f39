"""Client and command against the real service: broker, API and database of `skyline serve`, rows by the store."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from api.embedded import Embedded
from skyline.cli import build
from skyline.client import Client
from skyline.errors import ApiError
from skyline.schemas import Event, JobSpec
from store import candidates, events, fronts, jobs, session
from store.candidates import NewCandidate
from store.settings import settings

SPEC = {
    "name": "digits",
    "space": {"name": "darts", "cells": 5, "channels": 8},
    "dataset": {"name": "digits"},
    "objectives": ["error", "params"],
    "algorithm": {"name": "nsga2"},
    "reference_point": {"error": 0.9, "params": 1e6},
}
POINTS = [(0.08, 9000.0), (0.04, 30000.0), (0.02, 90000.0), (0.3, 95000.0)]
"""Error and params; the last one is dominated."""
WEIGHTS = b"weights of a network"


@dataclass
class Service:
    """A running service with one ended job of four candidates."""

    embedded: Embedded
    job: UUID
    ids: list[UUID]

    def run(self, *arguments: str) -> Result:
        environment = {"SKYLINE_URL": self.embedded.url, "COLUMNS": "160"}
        return CliRunner().invoke(build(), arguments, env=environment, prog_name="skyline")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="skyline-"))
    with pytest.MonkeyPatch.context() as patch, Embedded(folder, port=0, workers=0) as embedded:
        patch.setenv("SKYLINE_DATA_DIR", str(folder))
        job = new_job()
        ids = fill(job)
        yield Service(embedded, job, ids)
        session.dispose()
    shutil.rmtree(folder)


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.embedded.url) as made:
        yield made


def new_job(**changes: Any) -> UUID:
    spec = JobSpec.model_validate_json(json.dumps({**SPEC, **changes})).model_dump(mode="json")
    with session.unit_of_work() as database:
        return jobs.create(database, spec, "digits", {"team": "vision"}).id


def fill(job: UUID) -> list[UUID]:
    """Candidates, both fronts, a file and events; then the job has succeeded."""
    found = [
        NewCandidate(f"{number:064x}", {"genotype": {"number": number}}, 0, values(point, "supernet"))
        for number, point in enumerate(POINTS)
    ]
    with session.unit_of_work() as database:
        ids = [candidate for candidate, _ in candidates.record(database, job, "search", found)]
        fronts.replace(database, job, "search", ids[:3], 0.5, ids[1])
        for candidate, point in zip(ids[:3], POINTS, strict=False):
            candidates.set_final(database, candidate, values(point, "trained"))
        candidates.set_test(database, ids[0], {"error": 0.09, "sd": 0.01, "n": 360})
        fronts.replace(database, job, "final", ids[:3], 0.6, ids[1])
        file = settings().artefact_dir / str(job) / "network.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(WEIGHTS)
        digest = hashlib.sha256(WEIGHTS).hexdigest()
        path = str(file.relative_to(settings().artefact_dir))
        candidates.add_artefact(database, ids[0], job, "safetensors", path, digest, len(WEIGHTS))
        jobs.finish(database, job, "succeeded")
    return ids


def values(point: tuple[float, float], kind: str) -> candidates.Documents:
    error, params = point
    return {
        "error": {"value": error, "unit": "", "kind": kind},
        "params": {"value": params, "unit": "", "kind": "exact"},
    }


def test_a_service_without_workers_is_ready_but_says_that_none_can_run_a_job(service: Service, client: Client) -> None:
    ready = client.ready()
    assert (ready.database, ready.broker, ready.workers) == ("ok", "ok", 0)
    with pytest.raises(ApiError, match="no worker has registered") as caught:
        client.catalog()
    assert caught.value.status == 503
    assert service.run("catalog").exit_code == 3


def test_jobs_by_status_name_and_label(service: Service, client: Client) -> None:
    listed = {job.id: job for job in client.jobs(status="succeeded", name="digits", label="team=vision", limit=1)}
    assert listed[service.job].front.final == 3
    assert not list(client.jobs(name="another"))
    assert str(service.job)[:8] in service.run("jobs").stdout


def test_the_front_as_model_table_and_json(service: Service, client: Client) -> None:
    front = client.front(service.job)
    assert front.kind == "final" and [member.id for member in front.members] == service.ids[:3]
    assert client.front(service.job) is front, "an unchanged front is not sent again"
    table = service.run("front", str(service.job)[:12])
    assert table.exit_code == 0, table.stderr
    order = [table.stdout.index(str(candidate)[:8]) for candidate in service.ids[:3]]
    assert order == sorted(order), "sorted by params"
    assert "9.00 ±1.00 %" in table.stdout
    bounded = json.loads(service.run("front", str(service.job), "--max", "params=50000", "--json").stdout)
    assert [member["id"] for member in bounded["members"]] == [str(candidate) for candidate in service.ids[:2]]
    search = json.loads(service.run("front", str(service.job), "--kind", "search", "--json").stdout)
    assert {member["values"]["error"]["kind"] for member in search["members"]} == {"supernet"}


def test_a_bound_on_no_objective_is_refused_by_name(service: Service) -> None:
    done = service.run("front", str(service.job), "--max", "weight=3")
    assert done.exit_code == 2 and "weight" in done.stderr


def test_a_gate_on_a_real_front(service: Service, client: Client) -> None:
    gate = client.gate(service.job, "error<=5%,params<90000")
    assert (gate.passed, gate.best, gate.rule, gate.members) == (True, service.ids[1], "least error", 3)
    assert client.gate(service.job, ["params<=90000", "error<=5%"]).best == service.ids[1]
    assert client.gate(service.job, "error<=0.05", "search").best == service.ids[2]
    done = service.run("gate", str(service.job), "--require", "error<=5%,params<=9000")
    assert done.exit_code == 4, done.stderr
    nearest = str(service.ids[0])[:8]
    assert (
        f"the nearest is {nearest}:\n  error<=5%: it has 8.00 %, which misses by 3.00 %, 60 % of the bound\n"
        in done.stdout
    )


def test_a_gate_on_a_front_that_the_jobs_bounds_left_empty_names_who_came_nearest(
    service: Service, client: Client
) -> None:
    job = new_job(constraints={"params": {"max": 1000}})
    found = [NewCandidate(f"{number:064x}", {}, 0, values(point, "supernet")) for number, point in enumerate(POINTS)]
    with session.unit_of_work() as database:
        ids = [candidate for candidate, _ in candidates.record(database, job, "search", found)]
        for candidate, (error, params) in zip(ids[:2], POINTS, strict=False):
            candidates.set_final(database, candidate, values((error / 2, params), "trained"))
        jobs.finish(database, job, "succeeded")
    final = client.gate(job, "error<=1%")
    assert (final.passed, final.members) == (False, 0)
    assert final.nearest is not None and final.nearest.id == ids[0]
    assert [(miss.requirement.text, miss.value, miss.by) for miss in final.misses] == [
        ("error<=1%", 0.04, 0.03),
        ("params<=1000 (the job's own bound)", 9000.0, 8000.0),
    ]
    done = service.run("gate", str(job), "--require", "error<=1%")
    empty = "the final front is empty (no network holds the job's own bounds), so nothing holds error<=1%\n"
    assert done.exit_code == 4 and done.stdout.startswith(empty)
    search = client.gate(job, "error<=10%", "search")
    assert not search.passed and search.nearest is not None and search.nearest.id == ids[0]
    assert [miss.value for miss in search.misses] == [9000.0], "what it misses is the job's bound alone"


def test_candidates_come_in_order_over_pages(service: Service, client: Client) -> None:
    listed = list(client.candidates(service.job, sort="error", limit=1))
    assert [found.values["error"].value for found in listed] == sorted(error for error, _ in POINTS)
    assert [found.id for found in client.candidates(service.job, status="evaluated")] == service.ids[3:]
    shown = json.loads(service.run("candidates", str(service.job), "--sort", "error", "--descending", "--json").stdout)
    assert shown[0]["id"] == str(service.ids[3])


def test_pull_writes_what_the_service_holds(service: Service, client: Client, tmp_path: Path) -> None:
    assert client.candidate(service.ids[0]).artefacts == ["json", "safetensors"]
    weights, architecture = tmp_path / "network.safetensors", tmp_path / "network.json"
    short = str(service.ids[0])[:8]
    done = service.run("pull", short, "--format", "safetensors", "-o", str(weights))
    assert done.exit_code == 0, done.stderr
    assert weights.read_bytes() == WEIGHTS
    assert service.run("pull", short, "-o", str(architecture), "--job", str(service.job)).exit_code == 0
    assert json.loads(architecture.read_text()) == {"genotype": {"number": 0}}
    unverified = service.run("pull", str(service.ids[3]), "--format", "safetensors", "-o", str(tmp_path / "no"))
    assert unverified.exit_code == 2 and "verified" in unverified.stderr


def test_all_candidates_as_csv(service: Service, client: Client) -> None:
    done = service.run("candidates", str(service.job), "--csv", "--sort", "error", "--stage", "final")
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout_bytes.decode(), newline="")))
    assert [row["id"] for row in rows] == [str(service.ids[number]) for number in (2, 1, 0, 3)]
    assert [row["error"] for row in rows] == ["0.02", "0.04", "0.08", "0.3"]
    assert b"".join(client.candidates_csv(service.job, sort="error", stage="final")) == done.stdout_bytes
    refused = service.run("candidates", str(service.job), "--csv", "--sort", "beauty")
    assert refused.exit_code == 2 and "cannot sort by 'beauty'" in refused.stderr and refused.stdout == ""


def test_watch_of_an_ended_job_gives_all_events_and_the_table(service: Service, client: Client) -> None:
    numbers = [event.seq for event in client.watch(service.job)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 4
    lines = service.run("watch", str(service.job), "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == numbers
    shown = service.run("watch", str(service.job))
    assert shown.exit_code == 0, shown.stderr
    assert "succeeded  front 3, best error 2.00 %" in shown.stdout


def test_watch_of_a_failed_job_is_exit_1_with_the_reason(service: Service) -> None:
    job = new_job()
    with session.unit_of_work() as database:
        jobs.finish(database, job, "failed", "the worker ran out of memory")
    done = service.run("watch", str(job))
    assert done.exit_code == 1 and "the worker ran out of memory" in done.stdout


def test_cancel_then_delete(service: Service, client: Client) -> None:
    job = new_job()
    assert client.job(job).waiting_for, "no worker is there"
    assert service.run("delete", str(job)).exit_code == 2, "not ended yet"
    assert json.loads(service.run("cancel", str(job), "--json").stdout)["status"] == "cancelled"
    assert service.run("delete", str(job)).exit_code == 0
    gone = service.run("job", str(job))
    assert gone.exit_code == 2 and "404" in gone.stderr


def test_watching_misses_nothing_when_the_service_is_restarted(service: Service) -> None:
    job = new_job()
    seen: list[Event] = []

    def watch() -> None:
        with Client(service.embedded.url) as client:
            seen.extend(client.watch(job))

    thread = Thread(target=watch)
    thread.start()
    append(job, 1, 4)
    service.embedded.stop()
    append(job, 4, 7)
    service.embedded.start()
    append(job, 7, 10)
    with session.unit_of_work() as database:
        jobs.finish(database, job, "succeeded")
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [event.data["step"] for event in seen if event.type == "progress"] == list(range(1, 10))


def append(job: UUID, first: int, after: int) -> None:
    with session.unit_of_work() as database:
        events.append(database, job, [("progress", {"step": step}) for step in range(first, after)])
