"""Sets of bounds that no network can hold are told at once, from the published form of the algorithm."""

from __future__ import annotations

from typing import Any

import pytest

from api import boundsets
from nas_core.algorithms.rc_darts import RcDarts
from nas_core.objectives import objectives
from nas_core.settings import form
from nas_core.spaces.darts import DartsCells
from skyline.schemas import CatalogEntry, JobSpec

ENTRY = CatalogEntry(kind="algorithm", name="rc-darts", summary="", settings=form(RcDarts))
SPACE = DartsCells()
FACTS = ("source", "resource", "scale", "predicts", "direction")


def found(
    bounds: list[dict[str, Any]],
    constraints: dict[str, Any] | None = None,
    summed: tuple[str, ...] = ("params", "macs", "latency_ms"),
    space: DartsCells = SPACE,
    **budget: int,
) -> list[tuple[str, str]]:
    names = ["error", "params", "macs", "latency_ms"]
    spec = JobSpec.model_validate(
        {
            "space": {"name": "darts"},
            "dataset": {"name": "digits"},
            "objectives": names,
            "algorithm": {"name": "rc-darts", "bounds": bounds},
            "constraints": constraints or {},
            "budget": budget,
        }
    )
    entries = {}
    for name in names:
        facts = {fact: getattr(objectives[name], fact) for fact in FACTS if hasattr(objectives[name], fact)}
        entries[name] = CatalogEntry(kind="objective", name=name, summary="", settings={}, facts=facts)
    skeletons = [SPACE.skeleton((3, 32, 32), 10)]
    return [(fault.path, fault.detail) for fault in boundsets.faults(spec, ENTRY, entries, summed, space, skeletons)]


def test_what_can_be_held_is_taken() -> None:
    assert found([{"params": {"max": 2e5}}, {"params": {"max": 3e5}, "macs": {"min": 3e7}}, {}]) == []
    assert found([{"latency_ms": {"max": 3.0}}], {"params": {"max": 2e5}, "error": {"max": 0.1}}) == []
    assert found([]) == []


@pytest.mark.parametrize(
    ("bounds", "constraints", "path", "detail"),
    [
        ([{}, {"params": {"max": 1e5}}], {}, "/algorithm/bounds/1/params/max", "lies below 100730, the least"),
        ([{"macs": {"min": 1e9}}], {}, "/algorithm/bounds/0/macs/min", "lies above 81873408, the most"),
        ([{"error": {"max": 0.1}}], {}, "/algorithm/bounds/0/error", "has: params, macs, latency_ms"),
        (
            [{"weight": {"max": 1}}],
            {},
            "/algorithm/bounds/0/weight",
            "'weight' is no cost of this job that adds up over ops",
        ),
        ([{"params": {"min": 3e5, "max": 2e5}}], {}, "/algorithm/bounds/0/params/min", "lies above its max"),
        (
            [{"params": {"min": 3e5}}],
            {"params": {"max": 2e5}},
            "/algorithm/bounds/0/params",
            "at least 300000 and less",
        ),
    ],
)
def test_what_cannot_is_named(bounds: Any, constraints: Any, path: str, detail: str) -> None:
    ((where, text),) = found(bounds, constraints)
    assert where == path and detail in text


def test_a_measured_latency_is_no_cost_to_look_ahead_to() -> None:
    ((path, detail),) = found([{"latency_ms": {"max": 3.0}}], summed=("params", "macs"))
    assert path == "/algorithm/bounds/0/latency_ms" and "of these it has: params, macs" in detail


def test_cells_of_several_ops_an_edge_are_refused() -> None:
    ((path, detail),) = found([], space=DartsCells(fan_in="free"))
    assert path == "/space/fan_in" and "rc-darts: derives one op an edge" in detail


def test_sets_want_a_network_and_an_epoch_each() -> None:
    ((path, detail),) = found([{}, {}, {}], epochs=2)
    assert path == "/algorithm/bounds" and "3 sets want a network and an epoch each" in detail
    assert found([{}, {}, {}], evaluations=2)[0][0] == "/algorithm/bounds"


def test_other_algorithms_are_not_asked() -> None:
    spec = JobSpec.model_validate(
        {
            "space": {"name": "darts"},
            "dataset": {"name": "digits"},
            "objectives": ["error"],
            "algorithm": {"name": "x", "bounds": [{"error": {"max": 0}}]},
        }
    )
    plain = ENTRY.model_copy(update={"settings": {"properties": {"bounds": {}}}})
    assert not list(boundsets.faults(spec, plain, {}, [], SPACE, []))
