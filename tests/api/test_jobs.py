"""Posting, listing, stopping and deleting jobs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select

from skyline.schemas import Job, JobPage
from store import candidates, jobs, models
from store.session import reading, unit_of_work
from tests.api.problems import paths, problem


def post(client: httpx.Client, spec: dict[str, Any]) -> Job:
    response = client.post("/v1/jobs", json=spec)
    assert response.status_code == 201, response.text
    return Job.model_validate_json(response.content)


def test_posting_stores_the_job_its_task_and_its_first_event(client: httpx.Client, spec: dict[str, Any]) -> None:
    response = client.post("/v1/jobs", json=spec)
    assert response.status_code == 201
    job = Job.model_validate_json(response.content)
    assert response.headers["location"] == f"/v1/jobs/{job.id}"
    assert client.get(response.headers["location"]).json() == response.json()
    assert (job.name, job.status, job.progress, job.labels) == ("digits-edge", "queued", 0, {"team": "vision"})
    assert (job.front.search, job.front.final, job.attempts, job.waiting_for) == (0, 0, [], None)
    with reading() as session:
        task = session.scalars(select(models.Task)).one()
        assert (task.job_id, task.kind, task.queue, task.status) == (job.id, "search", "search.cpu", "queued")
        assert session.scalars(select(models.Outbox)).one().sent_at is None  # no broker: the relay will send it


def test_the_stored_job_is_normalised(client: httpx.Client, spec: dict[str, Any]) -> None:
    spec["algorithm"]["evaluate"] = {"supernet_epochs": 3}
    stored = client.post("/v1/jobs", json=spec).json()["spec"]
    assert [objective["key"] for objective in stored["objectives"]] == ["error", "params", "latency_ms"]
    assert stored["objectives"][2]["runtime"] == "torch"
    assert stored["space"]["nodes"] == 4
    assert stored["algorithm"] == {
        "name": "nsga2",
        "population": 8,
        "crossover": 0.9,
        "evaluate": {"supernet_epochs": 3, "shrink": 1, "lr": 0.05},
    }
    assert stored["dataset"] == {"name": "digits", "fraction": 1.0}
    assert stored["verify"]["top"] == 8
    again = client.post("/v1/jobs", json=stored)
    assert again.json()["spec"] == stored


def test_a_given_key_is_kept_and_an_alias_resolved_everywhere(client: httpx.Client, spec: dict[str, Any]) -> None:
    spec["objectives"] = ["error", {"name": "latency", "key": "lat"}, "energy"]
    spec["constraints"] = {"lat": {"max": 8}, "energy": {"max": 3}}
    spec["reference_point"] = {"energy": 10}
    stored = client.post("/v1/jobs", json=spec).json()["spec"]
    assert [objective["key"] for objective in stored["objectives"]] == ["error", "lat", "energy_mj"]
    assert stored["constraints"]["energy_mj"] == {"min": None, "max": 3}
    assert stored["reference_point"] == {"energy_mj": 10}


def test_yaml_is_taken_like_json(client: httpx.Client, spec: dict[str, Any]) -> None:
    text = """
    space: {name: darts, cells: 5, channels: 8}
    dataset: {name: digits}
    objectives: [error, params]
    algorithm: {name: random}
    verify: {lr: 1e-3}
    labels: {since: 2026-01-31}
    """
    response = client.post("/v1/jobs", content=text, headers={"Content-Type": "application/yaml; charset=utf-8"})
    assert response.status_code == 201, response.text
    assert response.json()["spec"]["verify"]["lr"] == 0.001
    assert response.json()["labels"] == {"since": "2026-01-31"}


def test_a_queue_without_a_worker_is_named(client: httpx.Client, spec: dict[str, Any]) -> None:
    spec["resources"] = {"device": "cuda"}
    assert "search.cuda" in (post(client, spec).waiting_for or "")


def test_listing_filters_and_pages_newest_first(client: httpx.Client, spec: dict[str, Any]) -> None:
    made = [str(post(client, {**spec, "name": f"n{n}", "labels": {"n": str(n % 2)}}).id) for n in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = JobPage.model_validate_json(client.get("/v1/jobs", params=query).content)
        assert len(page.items) <= 2
        seen += [str(job.id) for job in page.items]
        if page.next is None:
            break
        query["cursor"] = page.next
    assert seen == made[::-1]

    def ids(**asked: str) -> list[str]:
        return [job["id"] for job in client.get("/v1/jobs", params=asked).json()["items"]]

    assert ids(name="n3") == [made[3]]
    assert ids(label="n=1") == [made[3], made[1]]
    assert ids(label="n") == made[::-1]
    assert ids(status="succeeded") == []
    assert ids(status="queued") == made[::-1]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"status": "done"}, "/query/status"),
        ({"limit": 0}, "/query/limit"),
        ({"limit": "many"}, "/query/limit"),
        ({"colour": "red"}, "/query/colour"),
    ],
)
def test_a_bad_query_is_refused_by_name(client: httpx.Client, query: dict[str, Any], path: str) -> None:
    assert paths(problem(client.get("/v1/jobs", params=query), 422)) == [path]


@pytest.mark.parametrize("cursor", ["nonsense", "bnVsbA", "WzEsMl0", "\N{SNOWMAN}", "A" * 499])
def test_a_bad_cursor_is_refused(client: httpx.Client, cursor: str) -> None:
    found = problem(client.get("/v1/jobs", params={"cursor": cursor}), 422)
    assert "cursor" in found.detail


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/{}"),
        ("DELETE", "/v1/jobs/{}"),
        ("POST", "/v1/jobs/{}/cancel"),
        ("POST", "/v1/jobs/{}/retry"),
        ("GET", "/v1/jobs/{}/log"),
        ("GET", "/v1/jobs/{}/front"),
        ("GET", "/v1/jobs/{}/candidates"),
        ("GET", "/v1/jobs/{}/events"),
        ("GET", "/v1/candidates/{}"),
        ("GET", "/v1/candidates/{}/model"),
        ("POST", "/v1/candidates/{}/retry"),
    ],
)
def test_unknown_and_malformed_ids(client: httpx.Client, method: str, path: str) -> None:
    unknown = uuid4()
    assert str(unknown) in problem(client.request(method, path.format(unknown)), 404).detail
    found = problem(client.request(method, path.format("42")), 422)
    assert found.errors[0].got == "42"


def test_cancelling_a_queued_job_ends_it(client: httpx.Client, spec: dict[str, Any]) -> None:
    job = post(client, spec)
    response = client.post(f"/v1/jobs/{job.id}/cancel")
    assert response.status_code == 200
    assert response.json()["status"] == "cancelled"
    found = problem(client.post(f"/v1/jobs/{job.id}/cancel"), 409)
    assert "cancelled" in found.detail


def test_a_failed_job_is_retried_and_one_that_runs_or_succeeded_is_not(
    client: httpx.Client, spec: dict[str, Any]
) -> None:
    job = post(client, spec)
    path = f"/v1/jobs/{job.id}/retry"
    assert "is queued and cannot be retried" in problem(client.post(path), 409).detail
    with unit_of_work() as session:
        jobs.finish(session, job.id, "failed", "no data")
    again = Job.model_validate_json(client.post(path).content)
    assert (again.status, again.reason, again.ended_at) == ("queued", None, None)
    with unit_of_work() as session:
        jobs.finish(session, job.id, "succeeded")
    found = problem(client.post(path), 409)
    assert "is succeeded and cannot be retried; only a job that failed or was cancelled can be" in found.detail


def test_only_ended_jobs_are_deleted_with_their_files(client: httpx.Client, spec: dict[str, Any], folder: Path) -> None:
    job = post(client, spec)
    problem(client.delete(f"/v1/jobs/{job.id}"), 409)
    (folder / "artefacts").mkdir()
    file, outside = folder / "artefacts" / "weights", folder / "outside"
    file.write_bytes(b"1")
    outside.write_bytes(b"2")
    with unit_of_work() as session:
        new = [candidates.NewCandidate(f"{n}", {}, 0, {}) for n in range(2)]
        (one, _), (other, _) = candidates.record(session, job.id, "search", new)
        candidates.add_artefact(session, one, job.id, "safetensors", "weights", "00", 1)
        candidates.add_artefact(session, other, job.id, "safetensors", "../outside", "00", 1)
    client.post(f"/v1/jobs/{job.id}/cancel")
    response = client.delete(f"/v1/jobs/{job.id}")
    assert (response.status_code, response.content) == (204, b"")
    assert not file.exists()
    assert outside.exists()
    problem(client.get(f"/v1/jobs/{job.id}"), 404)


def test_waiting_ends_when_the_job_moves_on(client: httpx.Client, spec: dict[str, Any]) -> None:
    job = post(client, spec)

    def move(job_id: UUID) -> None:
        with unit_of_work() as session:
            jobs.set_phase(session, job_id, status="searching", phase="warm-up")

    timer = threading.Timer(0.3, move, [job.id])
    timer.start()
    moved = client.get(f"/v1/jobs/{job.id}", params={"wait": 30}).json()
    timer.join()
    assert (moved["status"], moved["phase"]) == ("searching", "warm-up")
    assert client.get(f"/v1/jobs/{job.id}", params={"wait": 0.01}).json()["status"] == "searching"
    client.post(f"/v1/jobs/{job.id}/cancel")
    assert client.get(f"/v1/jobs/{job.id}", params={"wait": 60}).json()["status"] == "cancelled"
    problem(client.get(f"/v1/jobs/{job.id}", params={"wait": "nan"}), 422)
