"""A job's seeds as the worker takes them: it looks at what the API could not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nas_core.architecture import genotype_to_json
from nas_core.errors import InvalidGenotypeError
from skyline.schemas import JobSpec
from tests.contracts.problems import SPACE, genotypes
from tests.nas_core.published import DARTS_V2
from worker.assembly import plan_of, seeds_of
from worker.catalog import publication

ONE, TWO = genotypes(2)


def spec(*seeds: dict[str, Any], **changes: Any) -> JobSpec:
    document = {
        "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
        "dataset": {"name": "digits", "fraction": 0.3},
        "objectives": ["error", "params"],
        "algorithm": {"name": "given", "evaluate": None},
        "seed_genotypes": list(seeds),
    }
    return JobSpec.model_validate({**document, **changes})


def test_they_reach_the_problem_each_once(tmp_path: Path) -> None:
    documents = [genotype_to_json(genotype) for genotype in (ONE, TWO, ONE)]
    plan = plan_of(spec(*documents), tmp_path, torch.device("cpu"))
    assert plan.problem.seeds == (ONE, TWO)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (DARTS_V2, r"seed_genotypes\[1\]: cell 'normal' is not laid out as a 2-node DARTS cell"),
        ({"colour": "red"}, r"seed_genotypes\[1\]: it has the fields colour"),
    ],
)
def test_one_outside_the_space_ends_the_job_with_its_place(
    tmp_path: Path, document: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidGenotypeError, match=message):
        plan_of(spec(genotype_to_json(ONE), document), tmp_path, torch.device("cpu"))


def test_one_that_a_target_has_no_cells_for_ends_it_too() -> None:
    target = SPACE.skeleton((1, 8, 8), 10)
    deeper = type(target)((*target.cells, "late"), 2, "cifar", (1, 8, 8), 10)
    with pytest.raises(InvalidGenotypeError, match=r"seed_genotypes\[0\]: .* type late, .* depth can only be changed"):
        seeds_of(spec(genotype_to_json(ONE)), SPACE, [target, deeper])


@pytest.mark.slow
def test_the_catalog_says_who_needs_them() -> None:
    needing = {entry.name: entry.facts["needs_seeds"] for entry in publication().entries if entry.kind == "algorithm"}
    assert needing["given"] is True and needing["random"] is False
