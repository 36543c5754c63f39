"""Whether the settings of a search by stages (``tnd-nas``) fit each other and their job, told before a worker tries.

The API imports no algorithm: what one is asked for is read from its published form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.errors import Fault
from nas_core.errors import InvalidSettingsError
from nas_core.search import SearchSpace
from skyline.schemas import CatalogEntry, JobSpec

WANTED = frozenset({"stages", "depths", "normal_left", "reduce_left", "exponents", "references"})
"""An algorithm with these settings goes by stages."""
TITLE = "Invalid setting"


def faults(
    spec: JobSpec, algorithm: CatalogEntry, costs: list[str], space: SearchSpace, input: tuple[int, int, int]
) -> Iterator[Fault]:
    """``costs``: keys of the objectives that do not follow from the error; ``input`` (C, H, W) of an image."""
    form = algorithm.settings.get("properties", {})
    if not set(form) >= WANTED:
        return
    given: dict[str, Any] = {name: spec.algorithm.settings.get(name, form[name].get("default")) for name in WANTED}
    stages = given["stages"]
    if spec.budget.epochs < stages:
        detail = f"budget.epochs: {spec.budget.epochs} are too few for {stages} stages, one for each"
        yield Fault(TITLE, detail, "/budget/epochs", spec.budget.epochs, f"{stages} or more, or fewer stages")
    yield from _lists(given, stages)
    yield from _depths(given["depths"] or [], space, input)
    for name in ("exponents", "references"):
        for key, values in (given[name] or {}).items():
            if key not in costs:
                listed = ", ".join(costs) or "none"
                detail = f"{name}: '{key}' is no cost of this job; its costs are {listed}"
                yield Fault(
                    TITLE, detail, f"/algorithm/{name}/{key}", key, f"one of {listed}, or {key} as an objective"
                )
            elif len(values) not in (1, stages):
                detail = f"{name}.{key}: wants one number, or one for each of {stages} stages; got {values}"
                yield Fault(TITLE, detail, f"/algorithm/{name}/{key}", values, f"1 or {stages} numbers")


def _lists(given: dict[str, Any], stages: int) -> Iterator[Fault]:
    for name in ("depths", "normal_left", "reduce_left"):
        values = given[name] or []
        if values and len(values) != stages:
            detail = f"{name}: wants one number for each of {stages} stages; got {values}"
            yield Fault(TITLE, detail, f"/algorithm/{name}", values, f"{stages} numbers")
        elif name != "depths" and values and (values[-1] != 1 or values != sorted(values, reverse=True)):
            detail = f"{name}: never grows, and is 1 after the last stage; got {values}"
            yield Fault(TITLE, detail, f"/algorithm/{name}", values, "numbers that fall to 1")


def _depths(depths: list[int], space: SearchSpace, input: tuple[int, int, int]) -> Iterator[Fault]:
    for index, depth in enumerate(depths):
        try:
            space.skeleton(input, 2, cells=depth)
        except InvalidSettingsError as error:
            yield Fault(TITLE, f"depths: {error}", f"/algorithm/depths/{index}", depth, "a depth that the space has")
