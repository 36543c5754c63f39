"""Settings of a search down to given sizes that do not fit their job: told at once, from the published form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import pytest

from api import granular
from nas_core.algorithms.darts import Darts
from nas_core.algorithms.mgas import Mgas
from nas_core.granularity.measure import ByParts, Counted, reachable
from nas_core.parts import parts_on
from nas_core.predicted import FromProfile
from nas_core.profiles import DeviceProfile, Protocol, Row
from nas_core.settings import form, parse
from nas_core.spaces import spaces
from skyline.schemas import CatalogEntry, JobSpec

SPACE = {"cells": 3, "channels": 4, "fan_in": "free", "levels": "cell", "filters": True}


def found(
    cls: type[Any] = Mgas,
    space: dict[str, Any] = SPACE,
    evaluations: int = 20,
    measures: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> list[Any]:
    spec = JobSpec.model_validate(
        {
            "space": {"name": "darts", **space},
            "dataset": {"name": "digits"},
            "objectives": ["error", "params"],
            "algorithm": {"name": "mgas", **settings},
            "budget": {"evaluations": evaluations},
        }
    )
    entry = CatalogEntry(kind="algorithm", name="mgas", summary="", settings=form(cls))
    made = parse(spaces["darts"], space, "space")
    on = made.skeleton((1, 8, 8), 10)
    faults = granular.faults(spec, entry, ["params", *measures], measures, made, on, on)
    return [(fault.path, fault.detail) for fault in faults]


def test_what_fits_is_taken() -> None:
    assert found() == found(targets=[9000.0, 5000.0]) == found(measure="published", targets=[5.0]) == []
    assert found(Darts, space={"cells": 3}) == [], "of another algorithm nothing is asked"


@pytest.mark.parametrize(
    ("given", "path", "detail"),
    [
        ({"space": {"cells": 3}}, "/space/filters", "needs cells with widths of their own"),
        ({"measure": "watts"}, "/algorithm/measure", "use one of params, macs, published"),
        ({"space": {**SPACE, "normal_ops": ["conv_3x3"]}}, "/space", "no gates for op 'conv_3x3' of cell 'normal1'"),
        ({"rho": [0.3, 0.3]}, "/algorithm/rho", "rho: wants one for each of 3 stages; got 2"),
        ({"targets": [9000.0, 8000.0], "evaluations": 1}, "/algorithm/targets", "evaluations leaves 1"),
        ({"targets": [9000.0, 10.0]}, "/algorithm/targets/1", "10 in 'params' lies outside"),
        ({"measure": "macs", "targets": [1e12]}, "/algorithm/targets/0", "1e+12 in 'macs' lies outside"),
        ({"measure": "published", "targets": [1e6]}, "/algorithm/targets/0", "1000000 in 'published' lies outside"),
    ],
)
def test_what_does_not_is_told(given: dict[str, Any], path: str, detail: str) -> None:
    ((place, text),) = found(**given)
    assert place == path and detail in text


def test_without_narrower_cells_fewer_targets_can_be_reached() -> None:
    """Between what halves of all cells and what full ones cost with one op to a node."""
    made = parse(spaces["darts"], SPACE, "space")
    on = made.skeleton((1, 8, 8), 10)
    narrow, wide = (reachable(Counted("params"), made, on, on, filters)[0] for filters in (True, False))
    between = (narrow + wide) / 2
    assert narrow < wide and found(targets=[between]) == []
    ((place, text),) = found(targets=[between], filters=False)
    assert place == "/algorithm/targets/0" and f"lies outside what networks have here, {wide:.12g} to" in text


def test_targets_in_a_predicted_cost_are_held_against_the_profile() -> None:
    made = parse(spaces["darts"], SPACE, "space")
    on = made.skeleton((1, 8, 8), 10)
    rows = tuple(Row(**asdict(part), ms=1.0) for part in parts_on(made, on))
    board = DeviceProfile(name="board", device="cpu:none", protocol=Protocol(runtime="none"), parts=rows)
    given = {"measures": {"time": ByParts(FromProfile(board, "ms"))}, "measure": "time"}
    assert found(targets=[100.0], **given) == []
    ((place, text),) = found(targets=[1.0], **given)
    assert place == "/algorithm/targets/0" and "1 in 'time' lies outside what networks have here" in text
    bare = replace(board, parts=rows[:1])
    assert found(targets=[1.0], measures={"time": ByParts(FromProfile(bare, "ms"))}, measure="time") == [], (
        "told elsewhere"
    )


def test_which_widths_a_search_gives_to_cells() -> None:
    def of(form: dict[str, Any], **settings: Any) -> str:
        algorithm = CatalogEntry(kind="algorithm", name="own", summary="", settings=form)
        document = {"space": {"name": "darts"}, "dataset": {"name": "digits"}, "objectives": ["error", "params"]}
        return granular.widths(
            JobSpec.model_validate({**document, "algorithm": {"name": "own", **settings}}), algorithm
        )

    assert (of(form(Mgas)), of(form(Mgas), filters=False), of(form(Darts))) == ("all", "full", "rule")
    plugin = {"properties": {name: {} for name in ("measure", "targets", "rho")}}
    assert of(plugin) == "rule", "a plug-in's own"
