"""Jobs that are refused: each answer names the field, what came and what would do."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import pytest

from api import ranges
from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.settings import parse
from nas_core.spaces import spaces
from skyline.schemas import Problem
from store import catalog
from store.models import Worker
from store.session import unit_of_work
from tests.api.conftest import publish
from tests.api.problems import paths, problem


def changed(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(spec), **changes}


def refused(client: httpx.Client, spec: dict[str, Any]) -> Problem:
    return problem(client.post("/v1/jobs", json=spec), 422)


def test_no_worker_has_registered(empty: httpx.Client, spec: dict[str, Any]) -> None:
    response = empty.post("/v1/jobs", json=spec)
    assert "no worker has registered" in problem(response, 503).detail
    assert int(response.headers["retry-after"]) > 0
    # What is wrong anyway is said first.
    assert paths(problem(empty.post("/v1/jobs", json=changed(spec, seed=-1)), 422)) == ["/seed"]


@pytest.mark.parametrize(
    ("part", "value", "path", "detail"),
    [
        (
            "algorithm",
            {"name": "nsga3"},
            "/algorithm/name",
            "unknown algorithm 'nsga3'; known: darts, entrannas, given, mgas, nsga2, random, rc-darts",
        ),
        ("space", {"name": "cubes"}, "/space/name", "unknown space 'cubes'; known: darts, team-space"),
        (
            "dataset",
            {"name": "zebras"},
            "/dataset/name",
            "unknown data set 'zebras'; known: digits, fashion-mnist, npz",
        ),
        ("objectives", ["error", "beauty"], "/objectives/1/name", "unknown objective 'beauty'; known: accuracy"),
    ],
)
def test_unknown_names_list_the_known(
    shared: httpx.Client, spec: dict[str, Any], part: str, value: Any, path: str, detail: str
) -> None:
    found = refused(shared, changed(spec, **{part: value}, constraints={}))
    assert found.detail.startswith(detail)
    assert found.title.startswith("Unknown")
    assert paths(found) == [path]
    assert found.errors[0].expected.startswith("one of ")


@pytest.mark.parametrize(
    ("algorithm", "path", "got", "expected"),
    [
        ({"population": 3}, "/algorithm/population", 3, "at least 4"),
        ({"population": 8.0}, "/algorithm/population", 8.0, "an integer"),
        ({"population": True}, "/algorithm/population", True, "an integer"),
        ({"population": None}, "/algorithm/population", None, "an integer"),
        ({"crossover": 1.5}, "/algorithm/crossover", 1.5, "at most 1"),
        ({"mutation": 1}, "/algorithm/mutation", 1, "one of crossover, evaluate, population"),
        ({"evaluate": 3}, "/algorithm/evaluate", 3, "a mapping"),
        ({"evaluate": {"epochs": 0}}, "/algorithm/evaluate/epochs", 0, "at least 1"),
        ({"evaluate": {"lr": 0}}, "/algorithm/evaluate/lr", 0, "more than 0"),
        ({"evaluate": {"subset": "x"}}, "/algorithm/evaluate/subset", "x", "an integer or null"),
        ({"evaluate": {"epochs": 1, "speed": 1}}, "/algorithm/evaluate/speed", 1, "one of epochs, lr, subset"),
        ({"evaluate": {"supernet_epochs": 0}}, "/algorithm/evaluate/supernet_epochs", 0, "at least 1"),
    ],
)
def test_settings_are_held_against_the_published_form(
    shared: httpx.Client, spec: dict[str, Any], algorithm: dict[str, Any], path: str, got: Any, expected: str
) -> None:
    found = refused(shared, changed(spec, algorithm={"name": "nsga2", **algorithm}))
    assert [(error.path, error.got, error.expected) for error in found.errors] == [(path, got, expected)]
    assert "algorithm 'nsga2'" in found.detail


@pytest.mark.parametrize(
    ("changes", "path", "expected"),
    [
        ({"budget": {"evaluations": -5}}, "/budget/evaluations", "greater than or equal to 1"),
        ({"budget": {"evaluations": True}}, "/budget/evaluations", "a valid integer"),
        ({"budget": {"evaluations": "48"}}, "/budget/evaluations", "a valid integer"),
        ({"budget": {"minutes": 3}}, "/budget/minutes", "one of epochs, evaluations, max_seconds"),
        ({"color": 1}, "/color", "one of algorithm, budget, constraints, dataset"),
        ({"objectives": []}, "/objectives", "at least 1 item"),
        ({"objectives": ["params"], "constraints": {}}, "/objectives", "error or accuracy among them"),
        ({"objectives": ["error", "error"], "constraints": {}}, "/objectives/1", "a 'key' other than error"),
        ({"constraints": {"macs": {"max": 1}}}, "/constraints/macs", "or macs among the objectives"),
        ({"constraints": {"params": {}}}, "/constraints/params", "min, max or both"),
        (
            {"constraints": {"params": {"min": 5e5, "max": 4e5}}},
            "/constraints/params",
            "at most the max, 400000; 500000 lies",
        ),
        ({"space": {"cells": 3}}, "/space/name", "a value: it is required"),
        ({"space": "darts"}, "/space", "a valid dictionary"),
        ({"target": {"channels": [8, 1]}}, "/target/channels/1", "greater than or equal to 2"),
        ({"target": {"channels": []}}, "/target/channels", "at least 1 item"),
        ({"target": {"channels": [8, 8]}}, "/target/channels", "widths that differ"),
        ({"labels": {"a": 1}}, "/labels/a", "a valid string"),
    ],
)
def test_the_shape_of_a_job(
    shared: httpx.Client, spec: dict[str, Any], changes: dict[str, Any], path: str, expected: str
) -> None:
    found = refused(shared, changed(spec, **changes))
    assert paths(found) == [path]
    assert expected in found.errors[0].expected


@pytest.mark.parametrize("key", ["number", "a,b", "a<b", " a", "0", "params.kind", "test", "ä"])
def test_keys_that_nothing_else_could_hold(shared: httpx.Client, spec: dict[str, Any], key: str) -> None:
    found = refused(shared, changed(spec, objectives=["error", {"name": "params", "key": key}], constraints={}))
    assert paths(found) == ["/objectives/1/key"]
    assert f"'{key}' cannot be an objective's key" in found.detail


def test_images_that_a_supernet_would_shrink_away(shared: httpx.Client, spec: dict[str, Any]) -> None:
    def asked(shrink: int) -> dict[str, Any]:
        return changed(spec, algorithm={"name": "nsga2", "evaluate": {"supernet_epochs": 1, "shrink": shrink}})

    found = refused(shared, asked(5))  # digits: 8 x 8
    assert paths(found) == ["/algorithm/evaluate/shrink"]
    assert "5 leaves 1x1 pixels of 8x8; at least 2x2 are needed: use 4 or less" in (found.detail or "")
    assert shared.post("/v1/jobs", params={"dry_run": True}, json=asked(4)).status_code == 200


def test_a_fraction_that_leaves_classes_without_images(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = refused(shared, changed(spec, dataset={"name": "digits", "fraction": 0.027}))
    assert paths(found) == ["/dataset/fraction"] and found.errors[0].expected == "at least 0.0279"
    assert "0.027 of 1437 training images are 39; 10 classes want 4 each" in found.detail


def test_all_faults_are_told_at_once(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = refused(shared, changed(spec, seed=-1, budget={"evaluations": 0}, verify={"top": 0}))
    assert sorted(paths(found)) == ["/budget/evaluations", "/seed", "/verify/top"]
    bad = changed(spec, algorithm={"name": "nsga2", "population": 1}, space={"name": "darts", "cells": 0})
    assert sorted(paths(refused(shared, bad))) == ["/algorithm/population", "/space/cells"]


def test_settings_that_do_not_fit_together(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = refused(shared, changed(spec, space={"name": "darts", "normal_ops": ["sep_conv_9x9"]}))
    assert paths(found) == ["/space"]
    assert "unknown op 'sep_conv_9x9'" in found.detail


def test_space_and_algorithm_that_do_not_fit(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = refused(shared, changed(spec, space={"name": "team-space"}, algorithm={"name": "darts"}))
    assert found.detail == "algorithm 'darts' cannot search space 'team-space'; it searches: darts"
    assert paths(found) == ["/space/name"]


def test_a_space_that_only_workers_know_is_taken_uncounted(shared: httpx.Client, spec: dict[str, Any]) -> None:
    spec = changed(spec, space={"name": "team-space"}, constraints={"params": {"max": 1}})
    assert shared.post("/v1/jobs", json=spec).status_code == 201


# --- data -------------------------------------------------------------------------------------------------------------


def test_a_missing_data_set_says_where_it_was_looked_for_and_how_to_get_it(
    shared: httpx.Client, spec: dict[str, Any]
) -> None:
    found = refused(shared, changed(spec, dataset={"name": "fashion-mnist", "download": False}))
    assert "worker worker-1 looked in /data/fashion-mnist, /usr/share/datasets/fashion-mnist" in found.detail
    assert "apt-get install dataset-fashion-mnist" in found.detail
    assert paths(found) == ["/dataset/name"]
    response = shared.post("/v1/jobs", json=changed(spec, dataset={"name": "fashion-mnist"}, constraints={}))
    assert response.status_code == 201  # it is fetched at its first use


def test_a_file_is_asked_for_by_the_name_that_a_worker_knows(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = refused(shared, changed(spec, dataset={"name": "npz", "path": "other.npz"}))
    assert "known files: mine/birds.npz" in found.detail
    assert "looked in /data" in found.detail
    assert paths(found) == ["/dataset/path"]
    good = changed(spec, dataset={"name": "npz", "path": "mine/birds.npz"}, constraints={})
    assert shared.post("/v1/jobs", json=good).status_code == 201
    assert paths(refused(shared, changed(spec, dataset={"name": "npz"}))) == ["/dataset/path"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../mine.npz", "a/../../b", "", "a\\b", "c:/x", "~\\..\\x"])
def test_paths_cannot_leave_the_data_folder(shared: httpx.Client, spec: dict[str, Any], path: str) -> None:
    found = refused(shared, changed(spec, dataset={"name": "npz", "path": path}))
    assert (found.title, paths(found)) == ("Unsafe path", ["/dataset/path"])


def test_data_of_a_worker_that_is_gone_counts_only_when_no_other_lives(
    client: httpx.Client, spec: dict[str, Any]
) -> None:
    lacking = [
        {**entry, "workers": {"worker-2": {"present": False, "searched": ["/b"], "hint": "", "files": {}}}}
        for entry in (item for item in _entries("worker-2") if item["kind"] == "dataset")
    ]
    others = [item for item in _entries("worker-2") if item["kind"] != "dataset"]
    publish("worker-2", entries=others + lacking)
    assert client.post("/v1/jobs", json=spec).status_code == 201
    with unit_of_work() as session:
        catalog.retire(session, "worker-1")
    assert "worker worker-2 looked in /b" in refused(client, spec).detail
    with unit_of_work() as session:
        session.delete(session.get_one(Worker, "worker-2"))
    assert client.post("/v1/jobs", json=spec).status_code == 201  # it waits


def _entries(worker: str) -> list[dict[str, Any]]:
    from tests.api.publications import entries

    return entries(worker)


# --- bounds -----------------------------------------------------------------------------------------------------------


def exact(resource: str, channels: int = 8, cells: int = 5) -> tuple[int, int]:
    """Floor and ceiling by the space itself, at digits' images."""
    space = parse(spaces["darts"], {"cells": cells, "channels": channels}, "space")
    skeleton = space.skeleton((1, 8, 8), 10)
    low, high = (
        getattr(count(Architecture(space.extreme(skeleton, resource, highest), skeleton)), resource)
        for highest in (False, True)
    )
    return low, high


@pytest.mark.parametrize(
    ("objective", "resource", "times"), [("params", "params", 1), ("macs", "macs", 1), ("flops", "macs", 2)]
)
def test_bounds_outside_the_exact_range_name_floor_and_ceiling(
    shared: httpx.Client, spec: dict[str, Any], objective: str, resource: str, times: int
) -> None:
    floor, ceiling = (times * number for number in exact(resource))

    def bounded(**bound: float) -> dict[str, Any]:
        return changed(spec, objectives=["error", objective], constraints={objective: bound})

    for side, number in (("max", floor - 1), ("min", ceiling + 1)):
        found = refused(shared, bounded(**{side: number}))
        assert str(floor) in found.errors[0].expected
        assert str(ceiling) in found.errors[0].expected
        assert (paths(found), found.errors[0].got) == ([f"/constraints/{objective}/{side}"], number)
    for bound in ({"max": floor}, {"min": ceiling}, {"min": floor, "max": ceiling}, {"max": 100 * ceiling}):
        assert shared.post("/v1/jobs", json=bounded(**bound)).status_code == 201


def test_several_widths_are_bounded_by_the_union_of_their_ranges(shared: httpx.Client, spec: dict[str, Any]) -> None:
    narrow, wide = exact("params", 4), exact("params", 64)
    assert narrow[1] < wide[0]

    def bounded(**bound: float) -> dict[str, Any]:
        return changed(spec, target={"channels": [4, 64]}, constraints={"params": bound})

    for fine in ({"max": narrow[1]}, {"min": wide[0]}, {"max": narrow[0]}, {"min": wide[1]}):
        assert shared.post("/v1/jobs", json=bounded(**fine)).status_code == 201
    for bad in ({"max": narrow[0] - 1}, {"min": wide[1] + 1}, {"min": narrow[1] + 1, "max": wide[0] - 1}):
        found = refused(shared, bounded(**bad))
        assert f"{narrow[0]} to {narrow[1]}" in found.detail
        assert f"{wide[0]} to {wide[1]}" in found.detail


def test_bounds_hold_at_the_target_not_at_the_searched_skeleton(shared: httpx.Client, spec: dict[str, Any]) -> None:
    floor = exact("params", channels=16, cells=8)[0]
    target = {"cells": 8, "channels": 16}
    assert exact("params")[0] < floor - 1
    refused(shared, changed(spec, target=target, constraints={"params": {"max": floor - 1}}))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"constraints": {"error": {"max": 8}}}, "/constraints/error/max"),
        ({"constraints": {"error": {"min": -0.1}}}, "/constraints/error/min"),
        ({"constraints": {"latency_ms": {"max": 0}}}, "/constraints/latency_ms/max"),
        (
            {"objectives": ["error", "peak_memory_mb"], "constraints": {"peak_memory_mb": {"max": 0}}},
            "/constraints/peak_memory_mb/max",
        ),
        ({"reference_point": {"error": 0}}, "/reference_point/error"),
        ({"reference_point": {"error": 1.5}}, "/reference_point/error"),
        ({"reference_point": {"params": 10}}, "/reference_point/params"),
        ({"reference_point": {"latency_ms": 0}}, "/reference_point/latency_ms"),
        ({"objectives": ["accuracy", "params"], "reference_point": {"accuracy": 1}}, "/reference_point/accuracy"),
    ],
)
def test_bounds_and_reference_points_that_cannot_be(
    shared: httpx.Client, spec: dict[str, Any], changes: dict[str, Any], path: str
) -> None:
    assert paths(refused(shared, changed(spec, constraints={}) | changes)) == [path]


def test_a_bound_that_leaves_no_whole_number(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = refused(shared, changed(spec, constraints={"params": {"min": 30000.2, "max": 30000.8}}))
    assert paths(found) == ["/constraints/params"]
    assert "no network lies between 30000.2 and 30000.8" in found.detail
    odd = changed(spec, objectives=["error", "flops"], constraints={"flops": {"min": 1_000_001, "max": 1_000_001}})
    assert "no network lies between 1000001 and 1000001" in refused(shared, odd).detail


def test_bounds_that_contradict_each_other(shared: httpx.Client, spec: dict[str, Any]) -> None:
    """Each could be held."""
    floor, ceiling = exact("macs")
    middle = (floor + ceiling) // 2
    several = changed(spec, objectives=["error", "macs", "flops"])
    found = refused(shared, {**several, "constraints": {"macs": {"max": middle}, "flops": {"min": 2 * middle + 2}}})
    assert (found.title, paths(found)) == ("Bounds contradict each other", ["/constraints"])
    assert "constraints 'macs', 'flops': each can be held, but no network holds all of them" in found.detail
    for listed in (f"macs {floor} to {ceiling}", f"flops {2 * floor} to {2 * ceiling}"):
        assert listed in found.errors[0].expected
    fine = {"macs": {"max": middle}, "flops": {"min": 2 * middle}}
    assert shared.post("/v1/jobs", json={**several, "constraints": fine}).status_code == 201


def test_bounds_of_which_no_target_meets_all(shared: httpx.Client, spec: dict[str, Any]) -> None:
    narrow, wide = exact("params", 4), exact("macs", 64)
    assert exact("macs", 4)[1] < wide[0]
    wanted = changed(spec, objectives=["error", "params", "macs"], target={"channels": [4, 64]})
    bounds = {"params": {"max": narrow[1]}, "macs": {"min": wide[0]}}
    found = refused(shared, {**wanted, "constraints": bounds})
    assert paths(found) == ["/constraints"]
    assert "4 channels" in found.detail and "64 channels" in found.detail
    bounds["macs"]["min"] = exact("macs", 4)[1]
    assert shared.post("/v1/jobs", json={**wanted, "constraints": bounds}).status_code == 201


@pytest.mark.parametrize(
    ("error", "accuracy", "says"),
    [
        ({"max": 0.1}, {"max": 0.8}, "an error of at least 0.2 and at most 0.1"),
        ({"min": 0.3}, {"min": 0.8}, "an error of at least 0.3 and at most 0.2"),
        ({"min": 0.1}, {"min": 0.9}, None),
        ({"max": 0.1}, {"min": 0.99}, None),
    ],
)
def test_an_accuracy_is_one_minus_the_error(
    shared: httpx.Client, spec: dict[str, Any], error: Any, accuracy: Any, says: str | None
) -> None:
    both = {"error": error, "acc": accuracy}
    wanted = changed(spec, objectives=["error", {"name": "accuracy", "key": "acc"}], constraints=both)
    if says is None:
        assert shared.post("/v1/jobs", json=wanted).status_code == 201
    else:
        found = refused(shared, wanted)
        assert paths(found) == ["/constraints"] and says in found.detail


def test_good_reference_points(shared: httpx.Client, spec: dict[str, Any]) -> None:
    good = changed(spec, objectives=["accuracy", "params"], reference_point={"accuracy": 0, "params": 1e6})
    assert shared.post("/v1/jobs", json=good).status_code == 201


def test_a_network_that_cannot_be_built(
    shared: httpx.Client, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_core.errors import InvalidGenotypeError

    def impossible(architecture: Architecture) -> Any:
        raise InvalidGenotypeError(f"maps shrink to nothing at {len(architecture.skeleton.cells)} cells")

    monkeypatch.setattr(ranges, "count", impossible)
    ranges._exact_range.cache_clear()
    found = refused(shared, changed(spec, target={"cells": 9}))
    assert paths(found) == ["/space", "/target"]
    assert "maps shrink to nothing at 9 cells" in found.detail


def test_a_target_that_the_space_cannot_have(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = refused(shared, changed(spec, target={"cells": 2, "channels": [4, 8]}))
    assert paths(found) == ["/target"]
    assert "the target does not fit space 'darts': cells: a stack of DARTS cells has at least 3; got 2" in found.detail


@pytest.mark.parametrize("name", [["error"], {"name": "error"}, None, 1])
def test_a_name_that_is_no_text(shared: httpx.Client, spec: dict[str, Any], name: Any) -> None:
    found = refused(shared, changed(spec, objectives=["error", {"name": name}]))
    assert paths(found) == ["/objectives/1/name"]


def test_the_largest_space_is_counted_before_the_client_gives_up(shared: httpx.Client, spec: dict[str, Any]) -> None:
    space = {"name": "darts", "cells": 100, "nodes": 8}
    largest = changed(spec, space=space, target={"channels": list(range(4, 20))}, constraints={"params": {"max": 1}})
    response = shared.post("/v1/jobs", json=largest)
    assert "expected" in problem(response, 422).detail
