"""Settings of a search by stages that do not fit each other or their job: told at once, from the published form."""

from __future__ import annotations

from typing import Any

import pytest

from api import stages
from nas_core.algorithms.tnd_nas import TndNas
from nas_core.settings import form
from nas_core.spaces.darts import DartsCells
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
    ],
)
def test_what_does_not_is_named(settings: dict[str, Any], path: str, detail: str) -> None:
    ((where, text),) = found(**settings)
    assert where == path and detail in text


def test_other_algorithms_are_not_asked() -> None:
    spec = JobSpec.model_validate(
        {"space": {"name": "darts"}, "dataset": {"name": "digits"}, "objectives": ["error"], "algorithm": {"name": "x"}}
    )
    plain = ENTRY.model_copy(update={"settings": {"properties": {"stages": {"default": 99}}}})
    assert not list(stages.faults(spec, plain, [], DartsCells(), (1, 8, 8)))
