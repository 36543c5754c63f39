"""Metrics and versions."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from skyline import __version__
from store import candidates, loose
from store.schema import head
from store.session import unit_of_work
from tests.api import results

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(client: httpx.Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


def test_the_state_is_read_from_the_database(client: httpx.Client, spec: dict[str, Any]) -> None:
    first = client.post("/v1/jobs", json=spec).headers["location"]
    client.post("/v1/jobs", json=spec)
    client.post(f"{first}/cancel")
    found = scrape(client)
    assert found["skyline_database_up", ()] == 1
    assert found["skyline_jobs", labels(status="queued")] == 1
    assert found["skyline_jobs", labels(status="cancelled")] == 1
    assert found["skyline_tasks", labels(queue="search.cpu", status="queued")] == 1
    assert found["skyline_workers", labels(device="cpu", state="live")] == 1
    assert found["skyline_unsent_messages", ()] == 2


def test_bytes_of_artefacts_are_counted_by_format(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scrape(client)
    assert not [name for name, _ in found if name in ("skyline_artefact_bytes", "skyline_artefact_files")]
    assert (found["skyline_artefact_quota_bytes", ()], found["skyline_loose_files", ()]) == (0, 0)
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "1.5")
    job_id, ids = results.finished(2)
    with unit_of_work() as session:
        for number, candidate_id in enumerate(ids):
            candidates.add_artefact(session, candidate_id, job_id, "safetensors", f"weights-{number}", "00", 1000)
        candidates.add_artefact(session, ids[0], job_id, "onnx", "network", "00", 30)
        loose.announce(session, "on-its-way")
    found = scrape(client)
    for format, size, files in (("safetensors", 2000, 2), ("onnx", 30, 1)):
        assert found["skyline_artefact_bytes", labels(format=format)] == size
        assert found["skyline_artefact_files", labels(format=format)] == files
    assert (found["skyline_artefact_quota_bytes", ()], found["skyline_loose_files", ()]) == (1.5 * 2**20, 1)


def test_requests_are_counted_by_pattern(client: httpx.Client) -> None:
    def counted(route: str, status: str, method: str = "GET") -> float:
        name = "skyline_http_requests_total"
        return scrape(client).get((name, labels(method=method, route=route, status=status)), 0)

    job, nothing, odd = counted("/v1/jobs/{job_id}", "404"), counted("none", "404"), counted("none", "404", "other")
    for number in range(3):
        client.get(f"/v1/jobs/00000000-0000-4000-8000-00000000000{number}")
        client.get(f"/made/up/{number}")
        client.request("PROPFIND", "/made/up")
    assert counted("/v1/jobs/{job_id}", "404") == job + 3
    assert counted("none", "404") == nothing + 3
    assert counted("none", "404", "other") == odd + 3


def test_without_a_database_it_says_so(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://user:secret@127.0.0.1:1/x")
    found = scrape(client)
    assert found["skyline_database_up", ()] == 0
    assert not [name for name, _ in found if name == "skyline_jobs"]
    assert any(name == "skyline_http_seconds_count" for name, _ in found)


def test_the_version_names_programs_and_tables(client: httpx.Client) -> None:
    assert client.get("/v1/version").json() == {"version": __version__, "tables": head()}
