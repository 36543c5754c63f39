"""Catalog, health, the OpenAPI document and what importing the application costs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from api import examples, health
from api.app import app
from skyline import schemas
from store.errors import SchemaMismatchError
from tests.api.conftest import publish
from tests.api.problems import problem

DOCUMENT = app.openapi()
OPERATIONS = [
    (path, method, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
]


def test_the_catalog_is_what_workers_published(client: httpx.Client) -> None:
    catalog = schemas.Catalog.model_validate_json(client.get("/v1/catalog").content)
    assert [entry.name for entry in catalog.algorithms] == [
        "darts",
        "entrannas",
        "given",
        "mgas",
        "nsga2",
        "random",
        "rc-darts",
        "tnd-nas",
    ]
    assert [entry.name for entry in catalog.spaces] == ["darts", "team-space"]
    assert {"digits", "npz"} < {entry.name for entry in catalog.datasets}
    assert "latency_ms" in {entry.name for entry in catalog.objectives}
    assert [(worker.name, worker.live, worker.threads) for worker in catalog.workers] == [("worker-1", True, 2)]
    publish("worker-2")
    digits = next(entry for entry in client.get("/v1/catalog").json()["datasets"] if entry["name"] == "digits")
    assert set(digits["workers"]) == {"worker-1", "worker-2"}


def test_no_catalog_before_the_first_worker(empty: httpx.Client) -> None:
    assert "no worker has registered" in problem(empty.get("/v1/catalog"), 503).detail


# --- health -----------------------------------------------------------------------------------------------------------


def test_liveness_touches_nothing(empty: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "sqlite:////nowhere/at/all.db")
    assert empty.get("/healthz").json() == {"status": "ok"}


def test_ready_with_database_and_broker(client: httpx.Client, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker_url)
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "database": "ok", "broker": "ok", "workers": 1}


def test_not_ready_without_a_broker(client: httpx.Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 503
    readiness = schemas.Readiness.model_validate_json(response.content)
    assert (readiness.status, readiness.database, readiness.workers) == ("not ready", "ok", 1)
    assert "does not answer" in readiness.broker


def test_not_ready_without_the_right_tables(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatch() -> None:
        raise SchemaMismatchError("0000", "0001", "sqlite:///x.db")

    monkeypatch.setattr(health, "check_schema", mismatch)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "python -m store.migrate" in response.json()["database"]


def test_not_ready_without_a_database(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql+psycopg://user:secret@127.0.0.1:1/x")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["database"] == "does not answer"


# --- OpenAPI ----------------------------------------------------------------------------------------------------------


def test_the_document_is_served(empty: httpx.Client) -> None:
    assert empty.get("/openapi.json").json() == DOCUMENT
    assert empty.get("/docs").status_code == 200


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=[f"{m} {p}" for p, m, _ in OPERATIONS])
def test_every_operation_is_described(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["tags"]
    assert operation["operationId"].isidentifier()
    responses = operation["responses"]
    assert "500" in responses
    for status, response in responses.items():
        if int(status) >= 400 and not (path == "/readyz" and status == "503"):
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert schemas.Problem.model_validate(content["example"]).status == int(status)
    if "{" in path:
        assert "404" in responses
        assert "422" in responses
    answered = responses.get("200") or responses.get("201")
    if answered is not None and path != "/metrics":
        shown = answered["content"].get("application/json") or answered["content"]["text/csv"]
        assert "example" in shown
    if method == "post" and path in ("/v1/jobs", "/v1/datasets", "/v1/candidates/{candidate_id}/verify"):
        assert set(operation["requestBody"]["content"]) == {"application/json", "application/yaml"}


def test_operation_ids_differ_and_references_lead_somewhere() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)

    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            here = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return here.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) <= known
    assert "HTTPValidationError" not in DOCUMENT["components"]["schemas"]


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (schemas.JobSpec, examples.SPEC),
        (schemas.TransferSpec, examples.TRANSFER),
        (schemas.Job, examples.JOB),
        (schemas.Estimate, examples.ESTIMATE),
        (schemas.JobPage, examples.JOBS),
        (schemas.Candidate, examples.CANDIDATE),
        (schemas.CandidatePage, examples.CANDIDATES),
        (schemas.Front, examples.FRONT),
        (schemas.EventPage, examples.EVENTS),
        (schemas.LogPage, examples.LOG),
        (schemas.Catalog, examples.CATALOG),
        (schemas.DatasetRegistration, examples.REGISTRATION),
        (schemas.RegisteredDataset, examples.DATASET),
        (schemas.DatasetPage, examples.DATASETS),
    ],
)
def test_examples_are_what_they_are_examples_of(model: type[BaseModel], example: dict[str, Any]) -> None:
    assert model.model_validate(example)
    assert set(example) <= set(model.model_fields)


# --- import -----------------------------------------------------------------------------------------------------------


def test_importing_the_application_is_light() -> None:
    script = "import sys, api.app; print(sorted({'torch', 'celery', 'safetensors', 'jsonschema'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
