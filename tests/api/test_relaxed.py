"""Settings of a differentiable search that do not fit their job: told at once, from the published form."""

from __future__ import annotations

from typing import Any

import pytest

from api import relaxed
from nas_core.algorithms.darts import Darts
from nas_core.algorithms.entrannas import EnTranNas
from nas_core.settings import form, parse
from nas_core.spaces import spaces
from skyline.schemas import CatalogEntry, JobSpec

FORMS = {"darts": Darts, "entrannas": EnTranNas, "x": None}


def found(
    name: str,
    space: dict[str, Any] | None = None,
    costs: tuple[str, ...] = ("params",),
    epochs: int = 9,
    evaluations: int = 20,
    **settings: Any,
) -> list[tuple[str, str]]:
    space = space or {"name": "darts", "cells": 5}
    spec = JobSpec.model_validate(
        {
            "space": space,
            "dataset": {"name": "digits"},
            "objectives": ["error", *costs],
            "algorithm": {"name": name, **settings},
            "budget": {"epochs": epochs, "evaluations": evaluations},
        }
    )
    cls = FORMS[name]
    entry = CatalogEntry(kind="algorithm", name=name, summary="", settings=form(cls) if cls else {"properties": {}})
    made = parse(spaces[space["name"]], {key: value for key, value in space.items() if key != "name"}, "space")
    faults = relaxed.faults(spec, entry, list(costs), made, made.skeleton((1, 8, 8), 10))
    return [(fault.path, fault.detail) for fault in faults]


FREE = {"name": "darts", "cells": 5, "fan_in": "free"}


def test_what_fits_is_taken() -> None:
    assert found("darts") == found("darts", resource_weights=[0, 1], resource="params", warmup_epochs=4) == []
    assert (
        found("entrannas", FREE, dst=True) == found("entrannas", engines=[0, 1]) == found("x", warmup_epochs=99) == []
    )
    assert found("entrannas", {"name": "nasbench201", "cells": 5}, engines=[0, 4]) == []


@pytest.mark.parametrize(
    ("name", "settings", "path", "detail"),
    [
        ("darts", {"warmup_epochs": 9}, "/algorithm/warmup_epochs", "9 leave none of 9 epochs"),
        ("darts", {"resource": "params"}, "/algorithm/resource", "says nothing without resource_weights"),
        ("darts", {"resource": "macs", "resource_weights": [1]}, "/algorithm/resource", "of these it has: params"),
        ("darts", {"resource_weights": [1], "costs": ()}, "/algorithm/resource_weights", "none of the objectives"),
        ("darts", {"resource_weights": [1, 2], "epochs": 1}, "/budget/epochs", "1 are too few for 2 networks"),
        ("darts", {"resource_weights": [1, 2], "warmup_epochs": 5}, "/algorithm/warmup_epochs", "none of the 5 epochs"),
        ("darts", {"resource_weights": [1, 2], "evaluations": 1}, "/budget/evaluations", "leaves 1 networks, too few"),
        ("entrannas", {"dst": True}, "/algorithm/dst", "darts with fan_in: free"),
        ("entrannas", {"dst": True, "none": True, "space": FREE}, "/algorithm/none", "thresholds leave ops out"),
        (
            "entrannas",
            {"space": {"name": "darts", "cells": 5, "connection": True}},
            "/space/connection",
            "do not choose what prepares",
        ),
        ("entrannas", {"engines": [0, 7]}, "/algorithm/engines", "no searched cell stands at 7"),
        ("entrannas", {"engines": [0]}, "/algorithm/engines", "none is of type 'reduce'"),
    ],
)
def test_what_does_not_is_named(name: str, settings: dict[str, Any], path: str, detail: str) -> None:
    ((where, text),) = found(name, **settings)
    assert where == path and detail in text
