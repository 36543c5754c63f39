"""Jobs that name a preset: completed by it, field by field; the body wins; the papers' hold what was published."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from nas_core.algorithms.tnd_nas import TndNas
from nas_core.presets import presets
from nas_core.settings import form
from skyline.schemas import Catalog, Estimate
from tests.api import results
from tests.api.conftest import publish
from tests.api.problems import paths, problem
from tests.api.publications import PRESETS, entries

BIRDS = {"name": "npz", "path": "mine/birds.npz"}
SMALL = {"preset": "small-darts", "dataset": BIRDS, "objectives": ["error", "params"]}
STEPS = ["none", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5"]
POOLS = ["none", "skip_connect", "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "avg_pool_3x3"]
PAPER: dict[str, dict[str, Any]] = {  # written out by hand: the run of 2 July 2021, and the later one on CIFAR-100
    "paper-cifar10": {
        "space.name": "darts",
        "space.channels": 16,
        "space.nodes": 4,
        "space.fan_in": "any",
        "space.normal_ops": [*STEPS, "conv_1x1", "conv_3x3", "conv_3x1_1x3"],
        "space.reduce_ops": POOLS,
        "target.cells": 20,
        "target.channels": [36, 16, 24, 48],
        "algorithm.name": "tnd-nas",
        "algorithm.preferences": 1,
        "algorithm.depths": [5, 11, 17],
        "algorithm.normal_left": [6, 3, 1],
        "algorithm.reduce_left": [4, 2, 1],
        "algorithm.warmup": 0.6,
        "algorithm.batch": 256,
        "algorithm.lr": 0.04,
        "algorithm.weight_decay": 0.0003,
        "algorithm.weights": "relaxed",
        "algorithm.alpha_lr": 0.006,
        "algorithm.alpha_weight_decay": 0.001,
        "algorithm.samples": 10,
        "algorithm.interval": 1,
        "algorithm.explore": 0,
        "algorithm.skip_dropout": [0.3, 0.6, 0.8],
        "algorithm.exponents": {"params": [-0.45, -0.2, -0.25]},
        "algorithm.references": {"params": [6400000, 5400000, 4400000]},
        "algorithm.score": "error",
        "algorithm.ranked_by": {"supernet": 1},
        "algorithm.max_skips": None,
        "algorithm.rescored": 0,
        "algorithm.redraws": 0,
        "algorithm.elites": 0,
        "algorithm.reward": "sum",
        "algorithm.carry": False,
        "algorithm.average": 0,
        "algorithm.shrink": 1,
        "algorithm.augment": True,
        "budget.epochs": 75,
        "verify.top": 4,
        "verify.epochs": 600,
        "verify.batch": 128,
        "verify.lr": 0.025,
        "verify.weight_decay": 0.0003,
        "verify.drop_path": 0.3,
        "verify.auxiliary": 0.4,
        "verify.cutout": 16,
    }
}
PAPER["paper-cifar100"] = {
    **PAPER["paper-cifar10"],
    "space.channels": 24,
    "space.normal_ops": [*STEPS, "conv_3x3", "conv_3x1_1x3"],
    "target.channels": [24, 36],
    "algorithm.warmup": 0.5,
    "algorithm.batch": 64,
    "algorithm.alpha_lr": 0.01,
    "algorithm.interval": 4,
    "algorithm.skip_dropout": [0.3, 0.8, 0.9],
    "algorithm.exponents": {"params": [-0.95, -1, -1]},
    "algorithm.references": {"params": [4400000, 3200000, 2500000]},
    "budget.epochs": 48,
    "verify.top": 2,
    "verify.epochs": 800,
}


def posted(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/v1/jobs", json=job)
    assert response.status_code == 201, response.text
    spec: dict[str, Any] = response.json()["spec"]
    assert client.get(response.headers["location"]).json()["spec"] == spec
    assert client.post("/v1/jobs", json=spec).json()["spec"] == spec, "what was stored may be posted again"
    return spec


def test_the_catalog_shows_what_each_fills_in(shared: httpx.Client) -> None:
    found = Catalog.model_validate_json(shared.get("/v1/catalog").content).presets
    assert {each.name: each.job for each in found} == PRESETS
    assert [(each.summary, each.source) for each in found] == [(f"{name}.", "ours") for name in sorted(PRESETS)]


def test_what_the_body_leaves_out_is_the_presets(shared: httpx.Client, spec: dict[str, Any]) -> None:
    made = posted(shared, SMALL)
    plain = posted(shared, {**PRESETS["small-darts"], "dataset": BIRDS, "objectives": ["error", "params"]})
    assert made == {**plain, "preset": "small-darts"} and "preset" not in plain
    assert made["verify"]["seeds"] == 1, "what neither says is as ever"


def test_the_body_wins_field_by_field(shared: httpx.Client) -> None:
    body = {
        "space": {"cells": 7},
        "target": {"channels": 16},
        "algorithm": {"name": "nsga2", "crossover": 0.5, "evaluate": {"supernet_epochs": 4}},
        "budget": {"evaluations": 30},
        "verify": {"top": 5},
    }
    made = posted(shared, {**SMALL, **body})
    assert made["space"]["cells"] == 7 and made["space"]["channels"] == 8
    assert made["target"] == {"cells": 6, "channels": 16, "stem": None}
    assert (made["algorithm"]["population"], made["algorithm"]["crossover"]) == (8, 0.5)
    assert made["algorithm"]["evaluate"]["supernet_epochs"] == 4 and "epochs" not in made["algorithm"]["evaluate"]
    assert (made["budget"]["evaluations"], made["budget"]["epochs"]) == (30, 7)
    assert (made["verify"]["top"], made["verify"]["epochs"]) == (5, 9)


def test_one_without_a_method_goes_with_any(shared: httpx.Client, spec: dict[str, Any]) -> None:
    made = posted(shared, {**spec, "preset": "tenth"})
    assert (made["dataset"]["name"], made["dataset"]["fraction"], made["verify"]["epochs"]) == ("digits", 0.1, 250)
    assert posted(shared, {**spec, "preset": None}) == posted(shared, spec)


def test_an_estimate_takes_one_too(shared: httpx.Client) -> None:
    response = shared.post("/v1/jobs", json=SMALL, params={"dry_run": "true"})
    assert [target.channels for target in Estimate.model_validate_json(response.content).targets] == [12, 8]


@pytest.mark.parametrize(
    ("fields", "path", "expected"),
    [
        ({"preset": "paper"}, "/preset", "one of small-darts, staged, tenth"),
        ({"preset": 5}, "/preset", "a valid string"),
        ({"preset": ""}, "/preset", "at least 1 character"),
        ({"from": "0b0e4c4e-7f0c-4b53-9f0c-5c4c2f6f2d11"}, "/from", "the id of a job that is there"),
        ({"algorithm": {"name": "random"}}, "/algorithm/name", "'nsga2', as preset 'small-darts' has"),
        ({"space": {"name": "team-space"}}, "/space/name", "'darts', as preset 'small-darts' has"),
        ({"algorithm": {"name": 5}}, "/algorithm/name", "a valid string"),
        ({"algorithm": 5}, "/algorithm", "a valid dictionary"),
        ({"target": None}, "/target", "a valid dictionary"),
        ({"verify": {"epochs": 0}}, "/verify/epochs", "greater than or equal to 1"),
        ({"preset": "tenth"}, "/space", "a value: it is required"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_place(
    shared: httpx.Client, fields: dict[str, Any], path: str, expected: str
) -> None:
    found = problem(shared.post("/v1/jobs", json={**SMALL, **fields}), 422)
    assert paths(found)[0] == path and expected in found.errors[0].expected


def test_another_algorithm_is_told_what_to_do(shared: httpx.Client) -> None:
    found = problem(shared.post("/v1/jobs", json={**SMALL, "algorithm": {"name": "random"}}), 422)
    assert found.detail == (
        "algorithm.name: got 'random'; expected 'nsga2', as preset 'small-darts' has: leave it out, or post the job "
        "without 'preset'"
    )


def test_a_job_that_goes_on_from_another_takes_no_preset(shared: httpx.Client, spec: dict[str, Any]) -> None:
    source = shared.post("/v1/jobs", json=spec).json()["id"]
    found = problem(shared.post("/v1/jobs", json={**SMALL, "from": source}), 422)
    assert paths(found) == ["/preset"] and "name the preset in the job that is gone on from" in found.detail


def test_jobs_made_from_one_with_a_preset_have_none(shared: httpx.Client) -> None:
    source = shared.post("/v1/jobs", json={**SMALL, "preset": "staged"}).json()
    assert source["spec"]["preset"] == "staged"
    results.searched(UUID(source["id"]))
    further = posted(shared, {"from": source["id"], "objectives": ["error"]})
    assert further["algorithm"] == source["spec"]["algorithm"] and "preset" not in further
    (candidate,) = results.record(UUID(source["id"]), 1)
    assert "preset" not in shared.post(f"/v1/candidates/{candidate}/verify").json()["spec"]


def test_what_is_wrong_with_a_preset_stands_at_its_name(empty: httpx.Client) -> None:
    assert problem(empty.post("/v1/jobs", json=SMALL), 503).title == "No worker"
    publish("worker-1", entries=[entry for entry in entries() if entry["name"] != "nsga2"])
    found = problem(empty.post("/v1/jobs", json=SMALL), 422)
    assert (found.title, paths(found)) == ("Unknown algorithm", ["/preset"])


@pytest.mark.parametrize("name", [*PAPER])
def test_the_papers_settings_are_what_a_job_gets(empty: httpx.Client, name: str) -> None:
    kept = [entry for entry in entries() if entry["kind"] != "preset"]
    for entry in kept:
        if entry["name"] == "tnd-nas":
            entry["settings"] = form(TndNas)
    paper = {"kind": "preset", "name": name, "summary": "", "settings": {}}
    facts = {"source": presets[name].source, "job": presets[name].job}
    publish("worker-1", entries=[*kept, {**paper, "facts": facts, "workers": {}}])
    made = posted(empty, {"preset": name, "dataset": BIRDS, "objectives": ["error", "params"]})
    got = {path: made[path.partition(".")[0]][path.partition(".")[2]] for path in PAPER[name]}
    assert got == PAPER[name]
