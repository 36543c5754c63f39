"""``?dry_run=true``: what a job would be, without one."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from api import examples
from nas_core.architecture import Architecture
from nas_core.objectives import objectives
from nas_core.settings import parse
from nas_core.spaces import spaces
from skyline.schemas import Estimate, JobSpec, Span
from store import catalog, keys
from store.models import Base, Event, IdempotencyKey, Job, Outbox, Task
from store.session import reading, unit_of_work
from tests.api import publications
from tests.api.conftest import publish
from tests.api.problems import paths, problem

DRY = {"dry_run": "true"}


def estimated(client: httpx.Client, spec: dict[str, Any], **headers: str) -> Estimate:
    response = client.post("/v1/jobs", params=DRY, json=spec, headers=headers)
    assert response.status_code == 200, response.text
    assert "location" not in response.headers
    return Estimate.model_validate_json(response.content)


def changed(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(spec), **changes}


def rows() -> dict[str, int]:
    """Of every table that a job writes."""
    tables: tuple[type[Base], ...] = (Job, Task, Event, Outbox, IdempotencyKey)
    with reading() as session:
        return {
            model.__tablename__: session.execute(select(func.count()).select_from(model)).scalar_one()
            for model in tables
        }


# --- what is counted --------------------------------------------------------------------------------------------------


def test_the_example_is_what_the_service_answers(shared: httpx.Client) -> None:
    found = shared.post("/v1/jobs", params=DRY, json=examples.SPEC).json()
    stored = found.pop("spec")
    assert found == {key: value for key, value in examples.ESTIMATE.items() if key != "spec"}
    posted = shared.post("/v1/jobs", json=examples.SPEC).json()
    assert stored == posted["spec"], "the job as it would be stored"


def test_floors_and_ceilings_are_exact_for_each_objective_on_each_target(
    shared: httpx.Client, spec: dict[str, Any]
) -> None:
    wanted = changed(
        spec,
        target={"channels": [4, 64], "cells": 6},
        objectives=["error", {"name": "params", "key": "size"}, "flops"],
        constraints={"size": {"min": 1.5, "max": 60_000.5}},
    )
    found = estimated(shared, wanted)
    assert [(target.cells, target.channels, target.stem) for target in found.targets] == [
        (6, 4, "cifar"),
        (6, 64, "cifar"),
    ]
    space = parse(spaces["darts"], {"cells": 5, "channels": 8}, "space")
    for target in found.targets:
        skeleton = space.skeleton((1, 8, 8), 10, cells=6, channels=target.channels)
        assert set(target.ranges) == {"size", "flops"}
        for key, name, resource in (("size", "params", "params"), ("flops", "flops", "macs")):
            low, high = (
                parse(objectives[name], {}, name)
                .value(Architecture(space.extreme(skeleton, resource, highest), skeleton))
                .value
                for highest in (False, True)
            )
            assert target.ranges[key].possible == Span(floor=int(low), ceiling=int(high))
    narrow, wide = (target.ranges["size"] for target in found.targets)
    assert narrow.possible is not None and narrow.left == narrow.possible, "all of it lies within the bound"
    assert wide.possible is not None and wide.possible.floor > 60_000
    assert wide.left is None, "this width has no network within the bound"
    assert found.targets[0].ranges["flops"].bound is None
    assert found.targets[0].ranges["flops"].left == found.targets[0].ranges["flops"].possible


def test_a_bound_leaves_whole_numbers(shared: httpx.Client, spec: dict[str, Any]) -> None:
    cells = estimated(shared, changed(spec, constraints={"params": {"min": 30_000.2, "max": 40_000.9}})).targets[0]
    assert cells.ranges["params"].left == Span(floor=30_001, ceiling=40_000)
    flops = {"flops": {"min": 1_000_001, "max": 2_000_001}}
    cells = estimated(shared, changed(spec, objectives=["error", "flops"], constraints=flops)).targets[0]
    assert cells.ranges["flops"].left == Span(floor=1_000_002, ceiling=2_000_000), "twice a whole number"


def test_a_space_that_only_workers_know_has_no_ranges_and_says_why(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = estimated(shared, changed(spec, space={"name": "team-space"}, target={"channels": [4, 8]}))
    assert [(target.cells, target.channels, target.stem) for target in found.targets] == [
        (None, 4, None),
        (None, 8, None),
    ]
    for target in found.targets:
        params = target.ranges["params"]
        assert (params.possible, params.left) == (None, None)
        assert params.bound is not None and params.bound.max == 60_000
        assert params.reason == "only workers know space 'team-space'; its networks are counted there"


def test_an_objective_that_only_workers_know_has_no_range_and_says_why(
    client: httpx.Client, spec: dict[str, Any]
) -> None:
    facts = {"unit": "B", "direction": "minimize", "source": "exact"}
    params = next(entry for entry in publications.entries() if entry["name"] == "params")
    publish("worker-1", entries=[*publications.entries(), {**params, "name": "weight_bytes", "facts": facts}])
    bounded = changed(spec, objectives=["error", "weight_bytes"], constraints={"weight_bytes": {"max": 1}})
    found = estimated(client, bounded)
    weight = found.targets[0].ranges["weight_bytes"]
    assert weight.possible is None
    assert weight.reason == "the value of objective 'weight_bytes' is no multiple of a count; workers say what it is"
    posted = client.post("/v1/jobs", json=bounded)
    assert posted.status_code == 201, "its bound is for workers to judge"
    (_, described) = client.get(f"{posted.headers['location']}/front").json()["objectives"]
    assert (described["unit"], described["direction"]) == ("B", "minimize"), "as the catalog says"


@pytest.mark.parametrize(
    ("changes", "search", "verification"),
    [
        ({}, (7, 14, 7, 14), (8, 8, 160)),
        ({"algorithm": {"name": "nsga2", "evaluate": {"epochs": 3}}}, (7, 14, 7, 21), (8, 8, 160)),
        ({"algorithm": {"name": "nsga2", "evaluate": {"supernet_epochs": 4}}}, (7, 14, 1, 4), (8, 8, 160)),
        ({"algorithm": {"name": "nsga2", "evaluate": {"supernet_epochs": 400}}}, (7, 14, 1, 50), (8, 8, 160)),
        ({"algorithm": {"name": "darts"}}, (7, 14, 1, 50), (8, 8, 160)),
        ({"verify": {"top": 100, "seeds": 3, "epochs": 5}}, (7, 14, 7, 14), (14, 42, 210)),
    ],
)
def test_work_is_counted(
    shared: httpx.Client,
    spec: dict[str, Any],
    changes: dict[str, Any],
    search: tuple[int, ...],
    verification: tuple[int, ...],
) -> None:
    found = estimated(shared, changed(spec, budget={"evaluations": 7}, target={"channels": [6, 8]}, **changes))
    asked = found.search
    assert (asked.evaluations, asked.candidates, asked.trainings, asked.epochs) == search
    assert asked.reason is None
    verified = found.verification
    assert (verified.candidates, verified.trainings, verified.epochs) == verification


def test_what_an_algorithm_of_a_worker_trains_is_not_guessed(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = estimated(shared, changed(spec, algorithm={"name": "random"})).search
    assert (found.trainings, found.epochs) == (None, None)
    assert found.reason == "what algorithm 'random' trains is not published"


def test_images_are_counted_where_they_are_published(shared: httpx.Client, spec: dict[str, Any]) -> None:
    spec = changed(spec, constraints={})
    half = estimated(shared, changed(spec, dataset={"name": "digits", "fraction": 0.5})).images
    assert (half.train, half.validation, half.select, half.test, half.reason) == (288, 287, 143, 360, None)
    birds = estimated(shared, changed(spec, dataset={"name": "npz", "path": "mine/birds.npz"})).images
    assert (birds.train, birds.validation, birds.select, birds.test) == (3600, 3600, 800, 2000)
    unknown = estimated(shared, changed(spec, dataset={"name": "fashion-mnist"})).images
    assert (unknown.train, unknown.validation, unknown.select, unknown.test) == (None, None, None, None)
    assert unknown.reason == "data set 'fashion-mnist' does not publish how many images it has"


def test_who_could_take_it(client: httpx.Client, spec: dict[str, Any]) -> None:
    publish("worker-2", memory_gb=64.0)
    with unit_of_work() as session:
        catalog.publish(
            session, {"name": "exports", "host": "desk", "queues": ["short"]}, publications.publication("exports")
        )
    found = estimated(client, spec)
    assert (found.workers, found.waiting_for) == (["worker-1", "worker-2"], None)
    assert estimated(client, changed(spec, resources={"min_memory_gb": 9})).workers == ["worker-2"]
    large = estimated(client, changed(spec, resources={"min_memory_gb": 100}))
    assert large.workers == []
    assert large.waiting_for == "a worker on queue search.cpu with at least 100 GB of memory; the largest has 64 GB"
    gpu = changed(spec, resources={"device": "cuda"})
    waiting = estimated(client, gpu).waiting_for
    assert waiting is not None and "a worker on queue search.cuda, device cuda" in waiting
    assert client.post("/v1/jobs", json=gpu).json()["waiting_for"] == waiting, "as the job itself would say"


def test_memory_and_time_are_not_estimated_yet(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = estimated(shared, spec)
    assert [(figure.value, figure.reason) for figure in (found.memory, found.time)] == 2 * [(None, "not estimated yet")]


# --- what is checked, and what is not done ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1, "budget": {"evaluations": 0}},
        {"algorithm": {"name": "nsga3"}},
        {"algorithm": {"name": "nsga2", "population": 1}},
        {"dataset": {"name": "npz", "path": "../mine.npz"}},
        {"space": {"name": "darts", "normal_ops": ["sep_conv_9x9"]}},
        {"constraints": {"params": {"max": 1}}},
        {"target": {"channels": [8, 8]}},
    ],
)
def test_what_a_post_refuses_is_refused_in_the_same_words(
    shared: httpx.Client, spec: dict[str, Any], changes: dict[str, Any]
) -> None:
    bad = changed(spec, **changes)
    asked = problem(shared.post("/v1/jobs", params=DRY, json=bad), 422)
    assert asked == problem(shared.post("/v1/jobs", json=bad), 422)


def test_before_the_first_worker_nothing_is_known(empty: httpx.Client, spec: dict[str, Any]) -> None:
    assert "no worker has registered" in problem(empty.post("/v1/jobs", params=DRY, json=spec), 503).detail


def test_yaml_is_read_too(shared: httpx.Client) -> None:
    text = "{space: {name: darts}, dataset: {name: digits}, objectives: [error], algorithm: {name: random}}"
    headers = {"Content-Type": "application/yaml"}
    response = shared.post("/v1/jobs", params=DRY, content=text, headers=headers)
    assert response.status_code == 200 and response.json()["targets"][0]["ranges"] == {}


def test_nothing_is_written(client: httpx.Client, spec: dict[str, Any]) -> None:
    before = rows()
    estimated(client, spec)
    assert rows() == before == dict.fromkeys(before, 0)


def test_a_key_of_idempotency_stays_free_and_is_not_looked_up(client: httpx.Client, spec: dict[str, Any]) -> None:
    named = {"Idempotency-Key": "nightly"}
    estimated(client, spec, **named)
    other = changed(spec, seed=7)
    assert client.post("/v1/jobs", json=other, headers=named).status_code == 201, "another body: it was not taken"
    assert estimated(client, spec, **named).spec == JobSpec.model_validate(
        client.post("/v1/jobs", json=spec).json()["spec"]
    ), "a body that the key's job does not have is no conflict"


def test_it_needs_scope_submit_and_no_room_for_a_job(
    client: httpx.Client, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_KEYS", "required")
    with unit_of_work() as session:
        reader = keys.create(session, "reader", "read")[1]
        poster = keys.create(session, "poster", "submit", open_jobs=1)[1]
    refused = client.post("/v1/jobs", params=DRY, json=spec, headers={"Authorization": f"Bearer {reader}"})
    assert "submit" in problem(refused, 403).detail
    headers = {"Authorization": f"Bearer {poster}"}
    for _ in range(3):
        estimated(client, spec, **headers)
    assert client.post("/v1/jobs", json=spec, headers=headers).status_code == 201, "none was counted"
    estimated(client, spec, **headers)


@pytest.mark.parametrize(
    ("query", "path"), [({"dryrun": "true"}, "/query/dryrun"), ({"dry_run": "x"}, "/query/dry_run")]
)
def test_a_slip_of_the_pen_posts_no_job(
    client: httpx.Client, spec: dict[str, Any], query: dict[str, str], path: str
) -> None:
    assert paths(problem(client.post("/v1/jobs", params=query, json=spec), 422)) == [path]
    assert rows()["jobs"] == 0


def test_false_is_a_post(client: httpx.Client, spec: dict[str, Any]) -> None:
    assert client.post("/v1/jobs", params={"dry_run": "false"}, json=spec).status_code == 201
