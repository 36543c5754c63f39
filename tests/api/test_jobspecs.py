"""Every job that the catalog allows is taken, and whatever misses by a little is taken or refused in words."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyline.schemas import Job
from tests.api import jobspecs
from tests.api.problems import problem
from tests.api.publications import PRESETS, entries
from tests.api.results import searched
from tests.fuzz import fuzzed

KINDS = {"spaces": "space", "algorithms": "algorithm", "objectives": "objective", "datasets": "dataset"}
CATALOG = {plural: [entry for entry in entries() if entry["kind"] == kind] for plural, kind in KINDS.items()}

pytestmark = pytest.mark.slow


def test_what_is_drawn_from_is_the_catalog(shared: httpx.Client) -> None:
    published = shared.get("/v1/catalog").json()
    for plural, made in CATALOG.items():
        assert {entry["name"]: entry["settings"] for entry in made} == {
            entry["name"]: entry["settings"] for entry in published[plural]
        }


@fuzzed(8)
@given(spec=jobspecs.valid(CATALOG))
def test_a_valid_job_is_taken_and_means_the_same_again(shared: httpx.Client, spec: dict[str, Any]) -> None:
    response = shared.post("/v1/jobs", json=spec)
    assert response.status_code == 201, response.text
    made = Job.model_validate_json(response.content)
    read = shared.get(response.headers["location"]).json()
    assert {**read, "waiting_for": None} == {**response.json(), "waiting_for": None}, (
        "what it waits for changes with time"
    )
    again = shared.post("/v1/jobs", json=response.json()["spec"])
    assert again.status_code == 201, again.text
    assert Job.model_validate_json(again.content).spec == made.spec
    for part in ("space", "algorithm", "dataset"):
        assert getattr(made.spec, part).name == spec[part]["name"]


@fuzzed(4)
@given(data=st.data(), spec=jobspecs.valid(CATALOG, hands_on=True))
def test_a_valid_job_goes_on_from_another(shared: httpx.Client, data: st.DataObject, spec: dict[str, Any]) -> None:
    source = shared.post("/v1/jobs", json=spec).json()
    searched(UUID(source["id"]))
    response = shared.post("/v1/jobs", json=data.draw(jobspecs.going_on(CATALOG, source)))
    assert response.status_code == 201, response.text
    made = response.json()["spec"]
    assert made["from"] == source["id"]
    for part in ("space", "dataset", "seed"):
        assert made[part] == source["spec"][part]
    again = shared.post("/v1/jobs", json=made)
    assert again.status_code == 201, again.text
    assert again.json()["spec"] == made


@fuzzed(4)
@given(data=st.data(), name=st.sampled_from(sorted(PRESETS)))
def test_a_valid_job_leaves_fields_to_a_preset(shared: httpx.Client, data: st.DataObject, name: str) -> None:
    job = data.draw(jobspecs.preset(CATALOG, name, PRESETS[name]))
    response = shared.post("/v1/jobs", json=job)
    assert response.status_code == 201, response.text
    made = response.json()["spec"]
    assert made["preset"] == name
    for part, own in PRESETS[name].items():
        for key in set(own) - set(job.get(part, {})):
            assert made[part][key] == own[key] or isinstance(own[key], dict)
    again = shared.post("/v1/jobs", json=made)
    assert again.status_code == 201, again.text
    assert again.json()["spec"] == made


@fuzzed(16)
@given(spec=jobspecs.near_misses(CATALOG))
def test_a_near_miss_is_taken_or_refused_in_words(shared: httpx.Client, spec: dict[str, Any]) -> None:
    response = shared.post("/v1/jobs", content=json.dumps(spec).encode(), headers={"Content-Type": "application/json"})
    if response.status_code == 201:
        Job.model_validate_json(response.content)
        return
    found = problem(response, 422)
    assert found.errors
    for error in found.errors:
        assert error.expected
        assert error.path == "" or error.path.startswith("/")


@fuzzed(4)
@given(data=st.data(), spec=jobspecs.valid(CATALOG))
def test_a_setting_beyond_its_form_is_named(shared: httpx.Client, data: st.DataObject, spec: dict[str, Any]) -> None:
    part = data.draw(st.sampled_from(["space", "algorithm", "dataset"]))
    spec[part]["no_such_setting"] = 1
    found = problem(shared.post("/v1/jobs", json=spec), 422)
    assert [error.path for error in found.errors] == [f"/{part}/no_such_setting"]
