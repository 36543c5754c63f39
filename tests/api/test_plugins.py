"""What the API makes of users' plug-ins, which it knows from the catalog alone."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from nas_core.objectives import objectives
from skyline import schemas
from store import catalog
from store.session import unit_of_work
from tests.api.conftest import publish
from tests.api.problems import problem
from tests.api.publications import entries

FORM = {"type": "object", "properties": {"grid": {"type": "number", "default": 350.0}}, "additionalProperties": False}


def objective(name: str, source: str, direction: str = "minimize", **facts: Any) -> dict[str, Any]:
    described = {"unit": "B", "direction": direction, "source": source, "plugin": "mine.py", **facts}
    return {"kind": "objective", "name": name, "summary": "", "settings": FORM, "facts": described, "workers": {}}


def plugin(worker: str, name: str, *adds: str, error: str | None = None) -> dict[str, Any]:
    part = {worker: {"adds": [*adds], "error": error}}
    return {"kind": "plugin", "name": name, "summary": "", "settings": {}, "facts": {}, "workers": part}


@pytest.fixture
def team(empty: httpx.Client) -> httpx.Client:
    """A service with a worker that has plug-ins, and one that has none."""
    own = [
        objective("weight_bytes", "exact", resource="params", scale=4),
        objective("shape", "exact", resource="params"),
        objective("utility", "measured", "maximize"),
        objective("per_mille", "data"),
        plugin("worker-1", "mine.py", "objective 'weight_bytes'", "objective 'shape'"),
        plugin("worker-1", "broken.py", error="KeyError: 'x' (line 3)"),
    ]
    publish("worker-1", entries=[*entries("worker-1"), *own])
    publish("worker-2")
    return empty


def job(spec: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    return {**spec, "objectives": ["error", name], "constraints": {}, **changes}


def test_the_catalog_shows_them_by_worker(team: httpx.Client) -> None:
    found = schemas.Catalog.model_validate_json(team.get("/v1/catalog").content)
    first, second = found.workers
    assert [plugin.model_dump() for plugin in first.plugins] == [
        {"name": "broken.py", "adds": [], "error": "KeyError: 'x' (line 3)"},
        {"name": "mine.py", "adds": ["objective 'weight_bytes'", "objective 'shape'"], "error": None},
    ]
    assert second.plugins == []
    listed = {entry.name: entry for entry in found.objectives}
    assert listed["utility"].facts["plugin"] == "mine.py" and set(listed["utility"].workers) == {"worker-1"}
    assert not {"mine.py", "broken.py"} & set(listed)
    assert "weight_bytes" not in objectives, "this process has none of them"


def test_an_exact_one_is_counted_as_its_facts_say(team: httpx.Client, spec: dict[str, Any]) -> None:
    def refused(name: str, limit: float) -> str:
        answer = team.post("/v1/jobs", json=job(spec, name, constraints={name: {"max": limit}}))
        return problem(answer, 422).errors[0].expected

    floor = int(refused("params", 1).split()[0])
    assert int(refused("weight_bytes", 4 * floor - 1).split()[0]) == 4 * floor
    for name, limit in (("weight_bytes", 4 * floor), ("shape", 1)):  # what is no multiple has no floor that is known
        fine = job(spec, name, constraints={name: {"max": limit}})
        assert team.post("/v1/jobs", json=fine).status_code == 201


@pytest.mark.parametrize(("name", "number"), [("utility", -3.5), ("per_mille", 120.0)])
def test_any_number_may_be_a_value_of_a_users_own(
    team: httpx.Client, spec: dict[str, Any], name: str, number: float
) -> None:
    bounds = {"constraints": {name: {"max": number}}, "reference_point": {name: number}}
    answer = team.post("/v1/jobs", json=job(spec, name, **bounds))
    assert answer.status_code == 201
    assert answer.json()["spec"]["objectives"][1] == {"name": name, "key": name, "grid": 350.0}


def test_a_job_says_when_no_live_worker_has_one(team: httpx.Client, spec: dict[str, Any]) -> None:
    posted = schemas.Job.model_validate_json(team.post("/v1/jobs", json=job(spec, "utility")).content)
    assert posted.waiting_for is None
    with unit_of_work() as session:
        catalog.retire(session, "worker-1")
    read = schemas.Job.model_validate_json(team.get(f"/v1/jobs/{posted.id}").content)
    assert read.waiting_for == (
        "a worker on queue search.cpu with objective 'utility' "
        "(a user's own: `skyline worker --plugins FILE`); worker-2 has no objective 'utility'"
    )
