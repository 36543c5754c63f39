"""Settings of a search down to given sizes that do not fit their job: told at once, from the published form."""

from __future__ import annotations

from typing import Any

import pytest

from api import granular
from nas_core.algorithms.darts import Darts
from nas_core.algorithms.mgas import Mgas
from nas_core.settings import form, parse
from nas_core.spaces import spaces
from skyline.schemas import CatalogEntry, JobSpec

SPACE = {"cells": 3, "channels": 4, "fan_in": "free", "levels": "cell", "filters": True}


def found(cls: type[Any] = Mgas, space: dict[str, Any] = SPACE, evaluations: int = 20, **settings: Any) -> list[Any]:
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
    faults = granular.faults(spec, entry, ["params"], made, [made.skeleton((1, 8, 8), 10)])
    return [(fault.path, fault.detail) for fault in faults]


def test_what_fits_is_taken() -> None:
    assert found() == found(targets=[9000.0, 5000.0]) == found(measure="published", targets=[5.0]) == []
    assert found(Darts, space={"cells": 3}) == [], "of another algorithm nothing is asked"


@pytest.mark.parametrize(
    ("given", "path", "detail"),
    [
        ({"space": {"cells": 3}}, "/space/filters", "needs cells with widths of their own"),
        ({"measure": "watts"}, "/algorithm/measure", "use one of params, macs, published"),
        ({"rho": [0.3, 0.3]}, "/algorithm/rho", "rho: wants one for each of 3 stages; got 2"),
        ({"targets": [9000.0, 8000.0], "evaluations": 1}, "/algorithm/targets", "evaluations leaves 1"),
        ({"targets": [9000.0, 10.0]}, "/algorithm/targets/1", "10 params lies outside"),
        ({"measure": "macs", "targets": [1e12]}, "/algorithm/targets/0", "1e+12 macs lies outside"),
    ],
)
def test_what_does_not_is_told(given: dict[str, Any], path: str, detail: str) -> None:
    ((place, text),) = found(**given)
    assert place == path and detail in text
