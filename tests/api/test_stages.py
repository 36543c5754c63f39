"""Settings of a search by stages that do not fit each other or their job: told at once, from the published form."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from api import stages
from nas_core.algorithms.tnd_nas import TndNas
from nas_core.settings import form
from nas_core.spaces.darts import DartsCells
from nas_core.spaces.nasbench201 import NasBench201
from skyline.schemas import CatalogEntry, JobSpec

ENTRY = CatalogEntry(kind="algorithm", name="tnd-nas", summary="", settings=form(TndNas))


def found(epochs: int = 9, **settings: Any) -> list[tuple[str, str]]:
    spec = JobSpec.model_validate(
        {
            "space": {"name": "darts"},
            "dataset": {"name": "digits"},
            "objectives": ["error", "params"],
            "algorithm": {"name": "tnd-nas", **settings},
            "budget": {"epochs": epochs},
        }
    )
    faults = stages.faults(spec, ENTRY, ["params"], DartsCells(), (1, 8, 8))
    return [(fault.path, fault.detail) for fault in faults]


def test_what_fits_is_taken() -> None:
    assert found() == found(depths=[3, 5, 7], normal_left=[5, 5, 1], exponents={"params": [-0.2]}) == []
    assert found(epochs=2, stages=2, references={"params": [1e5, 2e5]}) == []
    assert found(draws=4, path_explore=1.0) == found(weights="relaxed", path_explore=0.0) == []
    assert found(ranked_by={"supernet": 1.0, "macs": 1.0}) == []


@pytest.mark.parametrize(
    ("settings", "path", "detail"),
    [
        ({"epochs": 2}, "/budget/epochs", "2 are too few for 3 stages"),
        ({"depths": [5, 11]}, "/algorithm/depths", "one number for each of 3 stages; got [5, 11]"),
        ({"depths": [1, 5, 5]}, "/algorithm/depths/0", "has at least 3; got 1"),
        ({"normal_left": [3, 2, 2]}, "/algorithm/normal_left", "is 1 after the last stage"),
        ({"reduce_left": [3, 4, 1]}, "/algorithm/reduce_left", "never grows"),
        (
            {"exponents": {"macs": [-0.2]}},
            "/algorithm/exponents/macs",
            "'macs' is no cost of this job; its costs are params",
        ),
        ({"references": {"params": [1.0, 2.0]}}, "/algorithm/references/params", "one for each of 3 stages"),
        ({"ranked_by": {"synflow": 1}}, "/algorithm/ranked_by", "'supernet' must be among them; got synflow"),
        ({"ranked_by": {}}, "/algorithm/ranked_by", "got nothing"),
        ({"carry": True, "depths": [3, 4, 5]}, "/algorithm/carry", "one depth do not fit another"),
        ({"weights": "relaxed", "draws": 4}, "/algorithm/draws", "'weights: relaxed' draws none"),
        ({"weights": "relaxed", "path_explore": 0.5}, "/algorithm/path_explore", "'weights: relaxed' draws none"),
        ({"untrained_draws": 2, "ranked_by": {"supernet": 1.0}}, "/algorithm/untrained_draws", "ranked_by has none"),
        ({"final_draws": 2, "ranked_by": {"supernet": 1, "macs": 1}}, "/algorithm/final_draws", "ranked_by has none"),
        ({"skip_dropout": [0.1, 0.2, 0.3, 0.4]}, "/algorithm/skip_dropout", "4 rates, but there are 3 stages"),
        ({"exponents": {"error": [-0.2]}}, "/algorithm/exponents/error", "'error' is no cost of this job"),
        ({"normal_left": [100, 50, 1]}, "/algorithm/normal_left", "an edge has 8 ops; got [100, 50, 1]"),
    ],
)
def test_what_does_not_is_named(settings: dict[str, Any], path: str, detail: str) -> None:
    ((where, text),) = found(**settings)
    assert where == path and detail in text


def test_a_space_of_one_cell_type_has_no_other_to_shrink() -> None:
    spec = JobSpec.model_validate(
        {
            "space": {"name": "nasbench201"},
            "dataset": {"name": "digits"},
            "objectives": ["error", "params"],
            "algorithm": {"name": "tnd-nas", "reduce_left": [3, 2, 1], "normal_left": [3, 2, 1]},
        }
    )
    (fault,) = stages.faults(spec, ENTRY, ["params"], NasBench201(), (1, 8, 8))
    assert fault.path == "/algorithm/reduce_left" and "no cells of that type" in fault.detail


def test_a_job_that_goes_on_from_another_trains_no_epoch() -> None:
    spec = JobSpec.model_validate(
        {
            "from": str(uuid4()),
            "space": {"name": "darts"},
            "dataset": {"name": "digits"},
            "objectives": ["error", "params"],
            "algorithm": {"name": "tnd-nas"},
            "budget": {"epochs": 1},
        }
    )
    assert not list(stages.faults(spec, ENTRY, ["params"], DartsCells(), (1, 8, 8)))


def test_a_refusal_advises_what_can_be_done() -> None:
    def expected(objectives: list[str], key: str) -> list[str | None]:
        spec = JobSpec.model_validate(
            {
                "space": {"name": "darts"},
                "dataset": {"name": "digits"},
                "objectives": objectives,
                "algorithm": {"name": "tnd-nas", "exponents": {key: [-0.2]}},
            }
        )
        costs = [name for name in objectives if name != "error"]
        return [fault.expected for fault in stages.faults(spec, ENTRY, costs, DartsCells(), (1, 8, 8))]

    assert expected(["error", "params"], "error") == ["params, or 'exponents: {}' for none"]
    assert expected(["error"], "params") == ["params as an objective, or 'exponents: {}' for none"]


def test_a_reference_of_what_does_not_enter_is_refused() -> None:
    spec = JobSpec.model_validate(
        {
            "space": {"name": "darts"},
            "dataset": {"name": "digits"},
            "objectives": ["error", "params", "macs"],
            "algorithm": {"name": "tnd-nas", "exponents": {"params": [-0.2]}, "references": {"macs": [1e6]}},
        }
    )
    (fault,) = stages.faults(spec, ENTRY, ["params", "macs"], DartsCells(), (1, 8, 8))
    assert fault.path == "/algorithm/references/macs" and "'exponents' leaves it out" in fault.detail


@pytest.mark.parametrize(
    ("settings", "costs", "most"),
    [
        ({}, ["params"], 50),
        ({"preferences": 4, "rescored": 3}, ["params"], 7),
        ({"preferences": 4, "rescored": 3}, [], 4),
        ({"preferences": 1, "rescored": 0}, ["params"], 1),
    ],
)
def test_a_search_proposes_no_more_than_its_preferences_and_best_samples(
    settings: dict[str, Any], costs: list[str], most: int
) -> None:
    spec = JobSpec.model_validate(
        {
            "space": {"name": "darts"},
            "dataset": {"name": "digits"},
            "objectives": ["error", *costs],
            "algorithm": {"name": "tnd-nas", **settings},
            "budget": {"evaluations": 50},
        }
    )
    assert stages.most_evaluations(spec, ENTRY, costs) == most
    plain = ENTRY.model_copy(update={"settings": {"properties": {"preferences": {"default": 1}}}})
    assert stages.most_evaluations(spec, plain, costs) == 50


def test_settings_of_objectives_that_a_job_has_not_are_not_taken_over() -> None:
    own = {"exponents": {"params": [-0.3], "latency_ms": [-0.1]}, "references": {"params": [1.0]}, "stages": 3}
    before = ["error", "params", {"name": "latency_ms", "batch": 1}]
    properties = {"properties": {"batch": {"type": "integer", "default": 1}}}
    known = {"latency_ms": CatalogEntry(kind="objective", name="latency_ms", summary="", settings=properties)}

    def kept(*objectives: Any) -> dict[str, Any]:
        return stages.taken_over(own, before, list(objectives), known)

    assert kept("error", "params", "latency") == kept("error", "accuracy", *before[1:]) == own
    assert kept("error", {"name": "latency"}) == own | {"exponents": {"latency_ms": [-0.1]}, "references": {}}
    assert kept("error", "params") == own | {"exponents": {"params": [-0.3]}}
    assert kept(7) == stages.taken_over(own, before, None, known) == own


def test_no_exponents_are_taken_over_that_would_leave_a_new_cost_out() -> None:
    own = {"exponents": {"params": [-0.3]}, "references": {"params": [1.0]}}
    before = ["error", "params"]
    taken = stages.taken_over(own, before, ["error", "params", "macs"], {})
    assert taken == {"exponents": {}, "references": {"params": [1.0]}}
    other = stages.taken_over(own, before, ["error", {"name": "macs", "key": "params"}], {})
    assert other == {"exponents": {}, "references": {}}, "the same key of another metric"


def test_other_algorithms_are_not_asked() -> None:
    spec = JobSpec.model_validate(
        {"space": {"name": "darts"}, "dataset": {"name": "digits"}, "objectives": ["error"], "algorithm": {"name": "x"}}
    )
    plain = ENTRY.model_copy(update={"settings": {"properties": {"stages": {"default": 99}}}})
    assert not list(stages.faults(spec, plain, [], DartsCells(), (1, 8, 8)))
