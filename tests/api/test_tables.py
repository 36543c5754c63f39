"""Tables of values: what is refused, what is known of them, what jobs make of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.validation import costs
from nas_core.architecture import genotype_to_json
from nas_core.settings import form
from nas_core.spaces import spaces
from nas_core.spaces.nasbench201 import from_arch
from skyline.schemas import CatalogEntry, Estimate, JobSpec, RegisteredTable
from store import candidates, tables
from store.session import reading, unit_of_work
from tests.api.conftest import publish, served
from tests.api.problems import paths, problem
from tests.api.publications import entries
from tests.made_table import ARCHS, SPACE, job, registration, text, values

DIGITS_LIKE = {"name": "npz", "path": "mine/birds.npz"}


def published(worker: str = "worker-1") -> list[dict[str, Any]]:
    found = entries(worker)
    for entry in found:
        if entry["kind"] == "algorithm":
            entry["facts"]["spaces"] = [*entry["facts"]["spaces"], "nasbench201"]
    space = {"kind": "space", "name": "nasbench201", "summary": "", "settings": form(spaces["nasbench201"])}
    return [*found, {**space, "facts": {}, "workers": {}}]


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path: Path, server: str) -> Iterator[httpx.Client]:
    """A service with one live worker, on each database in turn."""
    with served(request, tmp_path, server, entries=published()) as client:
        yield client


@pytest.fixture
def client(client: httpx.Client) -> httpx.Client:
    """On SQLite alone."""
    publish("worker-1", entries=published())
    return client


@pytest.fixture
def there(client: httpx.Client) -> httpx.Client:
    """With the table."""
    assert register(client).status_code == 201
    return client


def register(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post("/v1/tables", json=registration(**changes))


def post(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post("/v1/jobs", json=job(**changes))


def nothing_stored() -> bool:
    with reading() as session:
        return not tables.listed(session)


# --- a life -----------------------------------------------------------------------------------------------------------


def test_from_registration_to_deletion(service: httpx.Client) -> None:
    made = register(service, description="made up")
    assert made.status_code == 201, made.text
    assert made.headers["location"] == "/v1/tables/made"
    found = RegisteredTable.model_validate_json(made.content)
    assert (found.name, found.key, found.description, found.partial) == ("made", "arch", "made up", False)
    assert found.sha256 == hashlib.sha256(text().encode()).hexdigest()
    assert found.space == {**SPACE, "stem": "auto"}
    assert (found.skeleton["channels"], found.skeleton["input"], found.skeleton["classes"]) == (2, [1, 8, 8], 10)
    assert (found.rows, found.left_out, found.missing) == (len(ARCHS), 0, 0)
    costs = [values(arch)["ms"] for arch in ARCHS]
    last = found.columns[-1].model_dump()
    assert last == {
        "name": "ms",
        "unit": "ms",
        "direction": "minimize",
        "low": min(costs),
        "high": max(costs),
        "says": None,
    }
    assert [column.says for column in found.columns] == ["accuracy", "accuracy", None]
    assert service.get("/v1/tables/made").json() == made.json()
    assert service.get("/v1/tables").json() == {"items": [made.json()], "next": None}

    again = register(service, description="made up")
    assert (again.status_code, again.json()) == (200, made.json())
    for other in ({"description": ""}, {"description": "made up", "csv": text(ARCHS[::-1])}):
        assert problem(register(service, **other), 409).title == "Name in use"

    posted = post(service)
    assert posted.status_code == 201, posted.text
    refused = problem(service.delete("/v1/tables/made"), 409)
    assert refused.title == "Table in use" and posted.json()["id"] in refused.detail
    assert service.post(f"{posted.headers['location']}/cancel").status_code == 200
    assert service.delete("/v1/tables/made").status_code == 204
    for gone in (service.get("/v1/tables/made"), service.delete("/v1/tables/made")):
        assert "no registered table 'made'" in problem(gone, 404).detail
    refused = problem(service.post(f"{posted.headers['location']}/retry"), 409)
    assert refused.title == "Table gone" and "register it again under this name" in refused.detail
    assert register(service).status_code == 201
    assert service.post(f"{posted.headers['location']}/retry").status_code == 200


def test_the_list_is_paged_by_name(service: httpx.Client) -> None:
    for name in ("b", "c", "a"):
        assert register(service, name=name).status_code == 201
    first = service.get("/v1/tables", params={"limit": 2}).json()
    assert [item["name"] for item in first["items"]] == ["a", "b"]
    second = service.get("/v1/tables", params={"limit": 2, "cursor": first["next"]}).json()
    assert ([item["name"] for item in second["items"]], second["next"]) == (["c"], None)
    assert "not one of this list" in problem(service.get("/v1/tables", params={"cursor": "x"}), 422).detail


def test_no_worker_is_needed_to_register(empty: httpx.Client) -> None:
    assert register(empty).status_code == 201


def test_a_table_may_be_larger_than_other_bodies(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_MAX_BODY_BYTES", "1024")
    assert register(client).status_code == 201
    problem(client.post("/v1/jobs", json={**job(), "name": "x" * 2000}), 413)
    monkeypatch.setenv("SKYLINE_MAX_TABLE_BYTES", "2048")
    assert "larger than 2048 bytes" in problem(register(client, name="more"), 413).detail


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "path", "detail"),
    [
        ({"name": "a b"}, "/name", "1 to 100 letters"),
        ({"space": {"name": "chains"}}, "/space/name", "the spaces that this service knows itself: darts, nasbench201"),
        ({"space": {**SPACE, "cells": 6}}, "/space", "three equal stages"),
        ({"space": {**SPACE, "depth": 6}}, "/space/depth", "known: "),
        ({"input": [3, 8]}, "/input", "at least 3 items"),
        ({"classes": 1}, "/classes", "greater than or equal to 2"),
        ({"columns": {}}, "/columns", "at least 1 item"),
        ({"columns": {"ms": {}}}, "/columns/ms/unit", "required"),
        ({"columns": {"ms": {"unit": ""}}}, "/columns/ms/unit", "at least 1 character"),
        ({"columns": {"ms": {"unit": "ms", "direction": "down"}}}, "/columns/ms/direction", "'minimize' or 'maximize'"),
        ({"columns": {"arch": {"unit": "ms"}}}, "/columns/arch", "names the architectures"),
        ({"csv": 3}, "/csv", "a valid string"),
        ({"key": "cell"}, "/csv", "line 1, column 'cell': got a header that has it not: arch, acc, test_acc, ms"),
        ({"columns": {"mj": {"unit": "mJ"}}}, "/csv", "line 1, column 'mj': got a header that has it not"),
        ({"csv": text(change=lambda rows: rows[2].__setitem__(1, "nan"))}, "/csv", "line 3, column 'acc': got 'nan'"),
        ({"csv": text(ARCHS[1:])}, "/csv", f"without a row: {ARCHS[0]}"),
        ({"colour": 1}, "/colour", "one of classes, columns, csv"),
    ],
)
def test_nothing_is_kept_of_what_is_wrong(
    client: httpx.Client, changes: dict[str, Any], path: str, detail: str
) -> None:
    found = problem(register(client, **changes), 422)
    assert paths(found) == [path]
    assert detail in found.detail
    assert nothing_stored()


def test_every_fault_of_a_text_is_told(client: httpx.Client) -> None:
    def spoil(rows: list[list[Any]]) -> None:
        rows[1][3], rows[5][0], rows[9][2] = "inf", "|x~0|", ""
        rows[12] = rows[11]
        rows[13].append("more")

    found = problem(register(client, csv=text(change=spoil)), 422)
    assert paths(found) == ["/csv"] * 5
    assert [str(error.got).split(":")[0] for error in found.errors] == [
        "line 2, column 'ms'",
        "line 6, column 'arch'",
        "line 10, column 'test_acc'",
        "line 13, column 'arch'",
        "line 14",
    ]
    assert found.errors[0].expected == "a finite number"
    assert nothing_stored()


def test_a_partial_table_is_taken_when_it_is_said(client: httpx.Client) -> None:
    found = register(client, csv=text(ARCHS[:7]), partial=True).json()
    assert (found["rows"], found["missing"], found["partial"]) == (7, len(ARCHS) - 7, True)


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_holds_what_it_looks_up(there: httpx.Client) -> None:
    spec = post(there).json()["spec"]
    sha256 = there.get("/v1/tables/made").json()["sha256"]
    assert spec["dataset"] is None
    assert spec["objectives"] == [
        {
            "name": "error",
            "key": "error",
            "table": "made",
            "column": "acc",
            "test": "test_acc",
            "sha256": sha256,
            "unit": "",
            "direction": "minimize",
        },
        {
            "name": "tabular",
            "key": "ms",
            "table": "made",
            "column": "ms",
            "test": None,
            "sha256": sha256,
            "unit": "ms",
            "direction": "minimize",
        },
    ]
    assert spec["verify"]["top"] == 1000, "the whole front, as nothing is trained for it"
    again = there.post("/v1/jobs", json=spec)
    assert (again.status_code, again.json()["spec"]) == (201, spec)
    assert post(there, verify={"top": 3}).json()["spec"]["verify"]["top"] == 3
    objectives = [*job()["objectives"], "latency_ms"]
    assert post(there, objectives=objectives).json()["spec"]["verify"]["top"] == 8, "measuring takes time"


def test_units_and_directions_of_a_front_are_the_columns(there: httpx.Client) -> None:
    made = post(there, objectives=[{"name": "accuracy", "table": "made", "column": "acc"}, *job()["objectives"][1:]])
    found = there.get(f"{made.headers['location']}/front").json()["objectives"]
    assert [(one["key"], one["unit"], one["direction"]) for one in found] == [
        ("accuracy", "", "maximize"),
        ("ms", "ms", "minimize"),
    ]


def test_an_estimate_says_that_nothing_is_trained(there: httpx.Client) -> None:
    response = there.post("/v1/jobs", params={"dry_run": "true"}, json=job())
    found = Estimate.model_validate_json(response.content)
    assert (found.search.evaluations, found.search.trainings, found.search.epochs) == (100, 0, 0)
    assert (found.verification.trainings, found.verification.epochs) == (0, 0)
    assert found.images.train is None and "error comes from a table" in (found.images.reason or "")
    assert found.waiting_for is None


def objective(index: int, **changes: Any) -> dict[str, Any]:
    objectives: list[dict[str, Any]] = json.loads(json.dumps(job()["objectives"]))
    objectives[index] |= changes
    return {"objectives": objectives}


LOW, HIGH = (end([values(arch)["ms"] for arch in ARCHS]) for end in (min, max))


@pytest.mark.parametrize(
    ("changes", "path", "detail"),
    [
        (objective(1, table="other"), "/objectives/1/table", "unknown table 'other'; known: made"),
        (
            objective(1, column="mj"),
            "/objectives/1/column",
            "table 'made' has no column 'mj'; it has acc, test_acc, ms",
        ),
        (objective(0, column="ms"), "/objectives/0/column", "column 'ms' of table 'made': an error is taken from"),
        (objective(0, test="ms"), "/objectives/0/test", "column 'ms' of table 'made': an error is taken from"),
        (objective(1, test="acc"), "/objectives/1/test", "only error and accuracy have"),
        (objective(0, table=3), "/objectives/0/table", "a string"),
        (objective(1, colour=3), "/objectives/1/colour", "known: "),
        (objective(0, sha256="b" * 64), "/objectives/0/sha256", "the service notes it by itself"),
        (objective(1, unit="s"), "/objectives/1/unit", "table 'made' has 'ms' now"),
        ({"objectives": [{"name": "error", "table": "made"}]}, "/objectives/0/column", "needs the setting 'column'"),
        (
            {"objectives": [{"name": "tabular", "table": "made", "column": "ms"}]},
            "/objectives",
            "'error' or 'accuracy'",
        ),
        ({"objectives": ["error", *job()["objectives"][1:]]}, "/dataset", "required, unless error or accuracy come"),
        (
            {"space": {**SPACE, "cells": 8}},
            "/objectives/0/table",
            "of 5 cells, 2 channels, stem cifar, for images of 1",
        ),
        ({"target": {"channels": [2, 4]}}, "/objectives/0/table", "this job's have 5 cells, 4 channels"),
        ({"space": {"name": "darts"}}, "/objectives/0/table", "'nasbench201', and the job searches 'darts'"),
        (
            {"dataset": DIGITS_LIKE},
            "/objectives/0/table",
            "this job's have 5 cells, 2 channels, stem cifar, for images",
        ),
        ({"algorithm": {"name": "darts"}}, "/dataset", "trains a supernet"),
        (
            {"algorithm": {"name": "nsga2", "evaluate": {"epochs": 1}}},
            "/algorithm/evaluate",
            "this job takes it from a table",
        ),
        ({"constraints": {"error": {"max": 5}}}, "/constraints/error/max", "is no fraction; expected 0 to 1"),
        ({"constraints": {"ms": {"max": LOW - 0.1}}}, "/constraints/ms/max", f"lies below {LOW:.8g}, the least of the"),
        ({"constraints": {"ms": {"min": HIGH + 1}}}, "/constraints/ms/min", f"expected {LOW:.8g} to {HIGH:.8g}, as in"),
        ({"constraints": {"error": {"max": 0.01}}}, "/constraints/error/max", "the least of the table"),
        ({"reference_point": {"ms": LOW}}, "/reference_point/ms", "is not above"),
    ],
)
def test_a_job_is_refused_with_what_would_do(
    there: httpx.Client, changes: dict[str, Any], path: str, detail: str
) -> None:
    found = problem(post(there, **changes), 422)
    assert path in paths(found)
    assert detail in found.detail


def test_an_error_from_a_table_is_no_cost() -> None:
    spec = JobSpec.model_validate(job())
    tabular = CatalogEntry(kind="objective", name="tabular", summary="", settings={}, facts={"source": "tabular"})
    assert costs(spec, {("objectives", index): tabular for index in range(2)}) == ["ms"]


def test_bounds_within_the_table_are_taken(there: httpx.Client) -> None:
    bounds = {"ms": {"min": LOW, "max": HIGH}, "error": {"max": 0.5}}
    assert post(there, constraints=bounds, reference_point={"ms": HIGH}).status_code == 201


def test_without_a_table_the_message_says_so(client: httpx.Client) -> None:
    refused = problem(post(client), 422)
    assert "unknown table 'made'; known: none is registered" in refused.detail
    assert refused.errors[0].expected == "a table that was registered (POST /v1/tables)"


def test_a_found_network_is_trained_on_images_of_its_shape(there: httpx.Client) -> None:
    made = UUID(post(there).json()["id"])
    architecture = {
        "genotype": genotype_to_json(from_arch(ARCHS[0])),
        "skeleton": there.get("/v1/tables/made").json()["skeleton"],
    }
    with unit_of_work() as session:
        new = candidates.NewCandidate(
            "h" * 64, architecture, 0, {"error": {"value": 0.5, "unit": "", "kind": "tabular"}}
        )
        ((candidate, _),) = candidates.record(session, made, "search", [new])
    assert (
        "nothing was trained"
        in problem(there.get(f"/v1/candidates/{candidate}/model", params={"format": "safetensors"}), 409).detail
    )
    assert there.get(f"/v1/candidates/{candidate}/model").json() == architecture
    path = f"/v1/candidates/{candidate}/verify"
    assert paths(problem(there.post(path, json={}), 422)) == ["/dataset"]
    spec = there.post(path, json={"dataset": DIGITS_LIKE, "objectives": ["error", "params"]}).json()["spec"]
    assert spec["dataset"]["name"] == "npz" and spec["verify"]["top"] == 1
    found = problem(there.post(path, json={"dataset": DIGITS_LIKE}), 422)
    assert "this job's have" in found.detail, "what it costs is in the table for other images alone"
