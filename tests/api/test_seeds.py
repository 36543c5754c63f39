"""Seeds in a posted job: read, normalised, held against space, algorithm and budget."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import numpy as np
import pytest

from api import bodies
from nas_core.architecture import Architecture, Genotype, genotype_to_json
from nas_core.settings import parse
from nas_core.spaces import spaces
from nas_core.spaces.darts import from_darts
from nas_core.variation import distinct
from tests.api.problems import paths, problem
from tests.nas_core.published import DARTS_V2

SPACE = parse(spaces["darts"], {"cells": 5, "channels": 8}, "space")


def known(count: int) -> list[Genotype]:
    rng = np.random.default_rng(0)
    return distinct(lambda: SPACE.sample(rng), count, ())


def seeded(spec: dict[str, Any], *seeds: Any, **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(spec), "seed_genotypes": list(seeds), **changes}


def test_they_are_stored_as_genotypes_in_order_each_once(shared: httpx.Client, spec: dict[str, Any]) -> None:
    one, two = known(2)
    whole = Architecture(two, SPACE.skeleton((1, 8, 8), 10, channels=24)).to_json()
    turned = genotype_to_json(one)
    turned["types"]["normal"]["edges"].reverse()
    response = shared.post("/v1/jobs", json=seeded(spec, DARTS_V2, genotype_to_json(one), whole, turned))
    assert response.status_code == 201, response.text
    stored = response.json()["spec"]
    assert stored["seed_genotypes"] == [genotype_to_json(genotype) for genotype in (from_darts(DARTS_V2), one, two)]
    again = shared.post("/v1/jobs", json=stored)
    assert again.json()["spec"] == stored


def test_without_seeds_there_are_none(shared: httpx.Client, spec: dict[str, Any]) -> None:
    assert shared.post("/v1/jobs", json=spec).json()["spec"]["seed_genotypes"] == []


def strange(**fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DARTS_V2), **fields}


@pytest.mark.parametrize(
    ("seed", "path", "detail"),
    [
        (3, "/seed_genotypes/1", "a valid dictionary"),
        ({"ops": []}, "/seed_genotypes/1", "seed_genotypes[1]: it has the fields ops; expected a genotype"),
        (
            strange(reduce=[]),
            "/seed_genotypes/1",
            "seed_genotypes[1]: 'reduce' lists 0 ops; two for each node are needed",
        ),
        (
            strange(normal=[["conv_9x9", 0], ["skip_connect", 1]] * 4),
            "/seed_genotypes/1",
            "seed_genotypes[1]: cell 'normal': op 'conv_9x9' is not of this space; use max_pool_3x3",
        ),
        (strange(normal=[["skip_connect", 0]] * 8), "/seed_genotypes/1", "takes [0, 0]; it needs two different inputs"),
        (strange(normal_concat=[4, 5]), "/seed_genotypes/1", "cell 'normal' is not laid out as a 4-node DARTS cell"),
    ],
)
def test_what_is_no_genotype_of_the_space_is_refused_with_its_place(
    shared: httpx.Client, spec: dict[str, Any], seed: Any, path: str, detail: str
) -> None:
    found = problem(shared.post("/v1/jobs", json=seeded(spec, DARTS_V2, seed)), 422)
    assert paths(found) == [path]
    assert detail in found.detail


def test_places_are_those_of_the_request_also_behind_equal_ones(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = problem(shared.post("/v1/jobs", json=seeded(spec, DARTS_V2, DARTS_V2, strange(normal_concat=[4, 5]))), 422)
    assert paths(found) == ["/seed_genotypes/2"]
    assert found.errors[0].expected == "a genotype of space 'darts' as it is set"


def test_a_long_list_of_wrong_ones_gets_a_short_answer(shared: httpx.Client, spec: dict[str, Any]) -> None:
    response = shared.post("/v1/jobs", json=seeded(spec, *([{"ops": []}] * 500)))
    assert paths(problem(response, 422)) == [f"/seed_genotypes/{index}" for index in range(20)]


def test_a_space_that_only_workers_know_is_for_them_to_check(shared: httpx.Client, spec: dict[str, Any]) -> None:
    own = {**genotype_to_json(known(1)[0]), "space": "team-space"}
    spec = seeded(spec, own, space={"name": "team-space"}, algorithm={"name": "given"})
    response = shared.post("/v1/jobs", json=spec)
    assert response.status_code == 201, response.text
    assert response.json()["spec"]["seed_genotypes"] == [own]


def test_the_budget_has_to_hold_them(shared: httpx.Client, spec: dict[str, Any]) -> None:
    seeds = [genotype_to_json(genotype) for genotype in known(3)]
    found = problem(shared.post("/v1/jobs", json=seeded(spec, *seeds, budget={"evaluations": 2})), 422)
    assert (paths(found), found.errors[0].got) == (["/budget/evaluations"], 2)
    assert "at least 3: each of the seed_genotypes is an evaluation" in found.detail
    enough = seeded(spec, *seeds, seeds[0], budget={"evaluations": 3})
    assert shared.post("/v1/jobs", json=enough).status_code == 201


def test_given_needs_some(shared: httpx.Client, spec: dict[str, Any]) -> None:
    found = problem(shared.post("/v1/jobs", json=seeded(spec, algorithm={"name": "given"})), 422)
    assert paths(found) == ["/seed_genotypes"]
    assert "algorithm 'given' evaluates seed_genotypes and nothing else, and the job has none" in found.detail


def test_what_is_not_scored_is_all_verified(shared: httpx.Client, spec: dict[str, Any]) -> None:
    seeds = [genotype_to_json(genotype) for genotype in known(3)]
    unscored = seeded(spec, *seeds, algorithm={"name": "given", "evaluate": None}, target={"channels": [8, 16]})
    found = problem(shared.post("/v1/jobs", json={**unscored, "verify": {"top": 5}}), 422)
    assert (paths(found), found.errors[0].got) == (["/verify/top"], 5)
    assert "at least 6: with algorithm.evaluate null every candidate is verified" in found.detail
    response = shared.post("/v1/jobs", json={**unscored, "verify": {"top": 6}})
    assert response.status_code == 201, response.text
    assert response.json()["spec"]["algorithm"] == {"name": "given", "batch": 10, "evaluate": None}
    scored = {**unscored, "algorithm": {"name": "given"}, "verify": {"top": 1}}
    assert shared.post("/v1/jobs", json=scored).status_code == 201


def test_a_thousand_are_taken_and_no_more(shared: httpx.Client, spec: dict[str, Any]) -> None:
    def published(genotype: Genotype) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for name, cell in genotype.types.items():
            written[name] = [[edge.op, edge.source] for edge in cell.edges]
            written[f"{name}_concat"] = list(cell.concat)
        return written

    many = [published(genotype) for genotype in known(1001)]
    response = shared.post("/v1/jobs", json=seeded(spec, *many[:1000], budget={"evaluations": 1000}))
    assert response.status_code == 201, response.text
    assert len(response.json()["spec"]["seed_genotypes"]) == 1000
    found = problem(shared.post("/v1/jobs", json=seeded(spec, *many, budget={"evaluations": 2000})), 422)
    assert paths(found) == ["/seed_genotypes"] and "at most 1000 items" in found.detail


def test_values_in_seeds_are_counted_apart(shared: httpx.Client, spec: dict[str, Any]) -> None:
    heavy = json.dumps(seeded(spec, {"ops": [0] * bodies.MAX_SEED_VALUES})).encode()
    found = problem(shared.post("/v1/jobs", content=heavy, headers={"Content-Type": "application/json"}), 422)
    assert paths(found) == ["/seed_genotypes"] and "too many values" in found.detail
