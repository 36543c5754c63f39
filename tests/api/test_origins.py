"""Jobs that go on from the search of another: completed by that job, held against it, refused in words."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from nas_core.algorithms.tnd_nas import TndNas
from nas_core.settings import form
from skyline.schemas import Estimate, Job, Problem
from store import jobs
from store.session import unit_of_work
from tests.api import results
from tests.api.conftest import publish
from tests.api.problems import paths, problem
from tests.api.publications import entries

STAGED = {"name": "tnd-nas", "weight": 0.25, "policy": {"epochs": 7}, "evaluate": {"epochs": 3}}
SPACE = {"name": "darts", "cells": 5, "channels": 8}


def posted(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/jobs", json=fields)
    assert response.status_code == 201, response.text
    spec: dict[str, Any] = Job.model_validate_json(response.content).spec.model_dump(mode="json")
    assert spec == response.json()["spec"] == client.get(response.headers["location"]).json()["spec"]
    return spec


def refused(client: httpx.Client, **fields: Any) -> Problem:
    return problem(client.post("/v1/jobs", json={"objectives": ["error", "macs"], **fields}), 422)


def begun(client: httpx.Client, spec: dict[str, Any], **changes: Any) -> str:
    response = client.post("/v1/jobs", json={**spec, "algorithm": STAGED, **changes})
    assert response.status_code == 201, response.text
    found: str = response.json()["id"]
    return found


@pytest.fixture
def source(shared: httpx.Client, spec: dict[str, Any]) -> str:
    """A job whose search is over; nothing of it is as it would be by default."""
    changes: dict[str, Any] = {
        "dataset": {"name": "npz", "path": "mine/birds.npz", "fraction": 0.5},
        "seed": 7,
        "target": {"cells": 9, "channels": [12, 24]},
        "budget": {"evaluations": 30, "epochs": 5},
        "verify": {"top": 3, "epochs": 2},
        "resources": {"min_memory_gb": 1},
        "constraints": {},
        "reference_point": {"params": 1e6},
    }
    job_id = begun(shared, spec, **changes)
    results.searched(UUID(job_id))
    return job_id


def test_what_is_not_said_is_taken_from_there(shared: httpx.Client, source: str) -> None:
    before = shared.get(f"/v1/jobs/{source}").json()["spec"]
    spec = posted(shared, **{"from": source}, objectives=["error", "macs"])
    assert spec["from"] == source and "from" not in before
    for part in ("space", "dataset", "algorithm", "seed", "target", "budget", "verify", "resources"):
        assert spec[part] == before[part], part
    assert [objective["key"] for objective in spec["objectives"]] == ["error", "macs"]
    assert (spec["constraints"], spec["reference_point"], spec["labels"], spec["name"]) == ({}, {}, {}, "")


def test_what_is_said_takes_the_place_of_it(shared: httpx.Client, source: str) -> None:
    before = shared.get(f"/v1/jobs/{source}").json()["spec"]
    fields = {
        "from": source.upper(),
        "name": "edge",
        "space": {"name": "darts", "cells": 5},
        "dataset": {"name": "npz", "path": "mine/birds.npz"},
        "algorithm": {"name": "tnd-nas", "weight": 2.0, "policy": {"lr": 1.0}, "evaluate": {"epochs": 3}},
        "seed": 7,
        "objectives": ["error", "latency"],
        "constraints": {"latency": {"max": 8}},
        "reference_point": {"latency": 20},
        "target": {"channels": 16},
        "budget": {"epochs": 2},
        "verify": {"top": 1},
        "resources": {"device": "cuda"},
        "labels": {"a": "b"},
    }
    spec = posted(shared, **fields)
    assert spec["algorithm"] == {
        **before["algorithm"],
        "weight": 2.0,
        "policy": {"epochs": 2, "subset": None, "lr": 1.0},
    }
    assert (spec["space"], spec["dataset"], spec["from"]) == (before["space"], before["dataset"], source)
    assert spec["target"] == {"cells": 9, "channels": 16, "stem": None}
    assert (spec["budget"]["evaluations"], spec["budget"]["epochs"]) == (30, 2)
    assert (spec["verify"]["top"], spec["verify"]["epochs"]) == (1, 2)
    assert spec["resources"] == {"device": "cuda", "min_memory_gb": 1.0}
    assert (spec["name"], spec["labels"]) == ("edge", {"a": "b"})
    assert posted(shared, **spec) == spec, "what was stored may be posted again"


def test_an_estimate_says_that_it_does_not_know_what_is_trained(shared: httpx.Client, source: str) -> None:
    body = {"from": source, "objectives": ["error", "macs"]}
    response = shared.post("/v1/jobs", json=body, params={"dry_run": "true"})
    found = Estimate.model_validate_json(response.content)
    assert str(found.spec.origin) == response.json()["spec"]["from"] == source
    assert found.search.trainings is None and found.search.epochs is None
    assert found.search.reason == (
        f"it goes on from job {source}; what algorithm 'tnd-nas' trains anew is not published"
    )
    assert problem(shared.post("/v1/jobs", json={**body, "seed": 1}, params={"dry_run": "true"}), 422)


@pytest.mark.parametrize(
    ("fields", "path", "expected"),
    [
        ({"space": {"name": "team-space"}}, "/space/name", "'darts', as job {id} has"),
        ({"space": {"name": "darts", "cells": 6}}, "/space/cells", "5, as job {id} has"),
        ({"space": {"name": "darts", "cells": True}}, "/space/cells", "5, as job {id} has"),
        ({"space": {"name": "darts", "speed": 1}}, "/space/speed", "one of cells"),
        ({"space": 3}, "/space", "a valid dictionary"),
        ({"algorithm": {"name": "nsga2"}}, "/algorithm/name", "'tnd-nas', as job {id} has"),
        ({"algorithm": {"name": "tnd-nas", "evaluate": {"epochs": 4}}}, "/algorithm/evaluate", "'epochs': 3"),
        ({"algorithm": {"name": "tnd-nas", "weight": 0}}, "/algorithm/weight", "more than 0"),
        ({"dataset": {"name": "digits"}}, "/dataset/name", "'npz', as job {id} has"),
        ({"dataset": {"name": "npz", "path": "other.npz"}}, "/dataset/path", "'mine/birds.npz', as job {id} has"),
        ({"dataset": {"name": "npz", "fraction": 1.0}}, "/dataset/fraction", "0.5, as job {id} has"),
        ({"dataset": {"name": []}}, "/dataset/name", "a valid string"),
        ({"seed": 0}, "/seed", "7, as job {id} has"),
        ({"verify": {"epochs": 0}}, "/verify/epochs", "greater than or equal to 1"),
        ({"verify": None}, "/verify", "a valid dictionary"),
        ({"objectives": ["params"]}, "/objectives", "error or accuracy among them"),
        ({"constraints": {"params": {"max": 1}}}, "/constraints/params", "or params among the objectives"),
        ({"constraints": {"macs": {"max": 1}}}, "/constraints/macs/max", "9 cells, 12 channels"),
        ({"origin": "x"}, "/origin", "dataset, from, labels"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_place(
    shared: httpx.Client, source: str, fields: dict[str, Any], path: str, expected: str
) -> None:
    found = refused(shared, **{"from": source}, **fields)
    assert paths(found) == [path]
    assert expected.format(id=source) in found.errors[0].expected


def test_a_difference_is_told_with_both_values_and_what_would_do(shared: httpx.Client, source: str) -> None:
    found = refused(shared, **{"from": source}, space={"name": "darts", "cells": 6}, seed=8)
    assert (found.title, paths(found)) == ("Another search", ["/space/cells", "/seed"])
    assert found.detail.startswith(
        f"space.cells: got 6; expected 5, as job {source} has, whose search this one goes on from: leave it out, or "
        "post a job without 'from'; seed: got 8; expected 7, as"
    )


def test_objectives_have_to_be_given(shared: httpx.Client, source: str) -> None:
    found = problem(shared.post("/v1/jobs", json={"from": source}), 422)
    assert paths(found) == ["/objectives"] and found.errors[0].expected == "a value: it is required"


@pytest.mark.parametrize("named", [5, "last", "", [], {"id": 1}])
def test_what_is_no_id_is_refused(shared: httpx.Client, named: Any) -> None:
    found = refused(shared, **{"from": named})
    assert (paths(found), found.errors[0].expected) == (["/from"], "the id of a job, as its answer has it")


def test_an_unknown_job_is_told(shared: httpx.Client) -> None:
    missing = str(uuid4())
    found = refused(shared, **{"from": missing})
    assert (found.title, paths(found), found.errors[0].got) == ("Unknown job", ["/from"], missing)
    assert f"unknown job '{missing}'" in found.detail and "'skyline jobs' lists them" in found.detail


def test_a_search_has_to_be_over_and_kept(shared: httpx.Client, spec: dict[str, Any]) -> None:
    job_id = begun(shared, spec)
    found = refused(shared, **{"from": job_id})
    assert (found.title, paths(found)) == ("Search not over", ["/from"])
    assert f"job {job_id} is queued, and the state of its search is kept when that is over; wait" in found.detail
    shared.post(f"/v1/jobs/{job_id}/cancel")
    found = refused(shared, **{"from": job_id})
    assert (found.title, paths(found)) == ("Nothing to go on from", ["/from"])
    assert f"job {job_id} is cancelled and has kept no state of its search" in found.detail
    results.searched(UUID(job_id))
    assert posted(shared, **{"from": job_id}, objectives=["error", "macs"])["space"]["cells"] == 5


def test_an_algorithm_has_to_be_one_that_goes_on(shared: httpx.Client, spec: dict[str, Any]) -> None:
    job_id: str = shared.post("/v1/jobs", json=spec).json()["id"]
    results.searched(UUID(job_id))
    found = refused(shared, **{"from": job_id})
    assert (found.title, paths(found)) == ("Algorithm goes on from nothing", ["/from"])
    assert f"job {job_id} was searched by 'nsga2', which cannot go on from a search" in found.detail
    assert found.errors[0].expected == "a job of one of: tnd-nas"


def test_what_is_wrong_with_that_job_now_stands_at_its_name(client: httpx.Client, spec: dict[str, Any]) -> None:
    job_id = begun(client, spec)
    results.searched(UUID(job_id))
    publish("worker-1", entries=[entry for entry in entries() if entry["name"] != "digits"])
    found = refused(client, **{"from": job_id})
    assert (found.title, paths(found)) == ("Unknown data set", ["/from"])
    publish("worker-1", entries=[entry for entry in entries() if entry["name"] != "tnd-nas"])
    assert paths(refused(client, **{"from": job_id}, algorithm={"name": "tnd-nas"})) == ["/algorithm/name"]


def test_a_registered_data_set_stays_the_same_under_its_name(client: httpx.Client, spec: dict[str, Any]) -> None:
    birds = {"name": "npz", "path": "mine/birds.npz"}
    assert client.post("/v1/datasets", json={"name": "birds", "dataset": birds}).status_code == 201
    job_id = begun(client, spec, dataset={"name": "birds", "fraction": 0.5}, constraints={})
    results.searched(UUID(job_id))
    noted = {**birds, "fraction": 0.5, "registered": "birds"}
    goes_on = {"from": job_id, "objectives": ["error"]}
    assert posted(client, **goes_on)["dataset"] == noted
    assert posted(client, **goes_on, dataset={"name": "birds"})["dataset"] == noted
    assert posted(client, **goes_on, dataset=birds)["dataset"] == {**birds, "fraction": 0.5}
    assert client.delete("/v1/datasets/birds").status_code == 204
    assert posted(client, **goes_on)["dataset"] == {**birds, "fraction": 0.5}


def test_a_job_that_is_needed_is_not_deleted(client: httpx.Client, spec: dict[str, Any]) -> None:
    source = begun(client, spec)
    results.searched(UUID(source))
    with unit_of_work() as session:
        jobs.finish(session, UUID(source), "succeeded")
    job_id = client.post("/v1/jobs", json={"from": source, "objectives": ["error"]}).json()["id"]
    found = problem(client.delete(f"/v1/jobs/{source}"), 409)
    assert found.title == "Job in use" and job_id in found.detail
    client.post(f"/v1/jobs/{job_id}/cancel")
    assert client.delete(f"/v1/jobs/{source}").status_code == 204
    found = problem(client.post(f"/v1/jobs/{job_id}/retry"), 409)
    assert found.title == "Nothing to go on from" and source in found.detail


def test_a_candidate_of_such_a_job_is_verified_anew_from_scratch(shared: httpx.Client, source: str) -> None:
    job_id = shared.post("/v1/jobs", json={"from": source, "objectives": ["error"]}).json()["id"]
    (candidate_id,) = results.record(UUID(job_id), 1)
    made = shared.post(f"/v1/candidates/{candidate_id}/verify")
    assert made.status_code == 201, made.text
    assert "from" not in made.json()["spec"] and made.json()["spec"]["algorithm"]["name"] == "given"


def test_exponents_go_along_unless_they_would_leave_a_new_cost_out(client: httpx.Client, spec: dict[str, Any]) -> None:
    """By the form that ``tnd-nas`` has; objectives as they are stored, with defaults, are those that were posted."""
    facts = {"spaces": ["darts"], "needs": "Relaxable", "hands_on": True, "redone": sorted(TndNas.redone)}
    own = {"kind": "algorithm", "name": "tnd-nas", "summary": "", "settings": form(TndNas), "facts": facts}
    others = [entry for entry in entries() if entry["name"] != "tnd-nas" and entry["kind"] != "preset"]
    publish("worker-1", entries=[*others, {**own, "workers": {}}])
    exponents = {"params": [-0.3], "latency_ms": [-0.1]}
    job_id = begun(
        client,
        {**spec, "objectives": ["error", "params", "latency"], "constraints": {}, "reference_point": {}},
        algorithm={"name": "tnd-nas", "exponents": exponents},
    )
    results.searched(UUID(job_id))

    def taken(*objectives: Any) -> Any:
        return posted(client, **{"from": job_id}, objectives=["error", *objectives])["algorithm"]["exponents"]

    assert taken("params", {"name": "latency_ms"}) == exponents
    assert taken("latency") == {"latency_ms": [-0.1]}
    assert taken("params", "macs") == taken("params", {"name": "latency", "batch": 8}) == {}
