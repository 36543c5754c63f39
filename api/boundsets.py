"""Whether the sets of bounds that a search is given (``rc-darts``) can be held, told before a worker tries.

The API imports no algorithm: what one is asked for is read from its published form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from api import ranges
from api.errors import Fault, pointer
from nas_core.architecture import Skeleton
from nas_core.search import SearchSpace
from skyline.schemas import Bound, CatalogEntry, JobSpec

WANTED = frozenset({"bounds", "projection_steps"})
"""An algorithm with these settings holds bounds while it searches."""
TITLE = "Invalid setting"
FIELD = ("algorithm", "bounds")


def faults(
    spec: JobSpec,
    algorithm: CatalogEntry,
    entries: Mapping[str, CatalogEntry],
    summed: Sequence[str],
    space: SearchSpace | None,
    skeletons: Sequence[Skeleton],
) -> Iterator[Fault]:
    """``entries``: the catalog's entry by objective key; ``summed``: keys of the objectives that may be sums over
    ops.
    """
    if not set(algorithm.settings.get("properties", {})) >= WANTED:
        return
    if getattr(space, "weighted", False):
        detail = f"{spec.algorithm.name}: derives one op an edge; it wants fan_in two or any, not free"
        yield Fault(TITLE, detail, "/space/fan_in", "free", "two or any")
    given: list[dict[str, Any]] = spec.algorithm.settings.get("bounds") or []
    if not given:
        return
    left = max(1, spec.budget.evaluations - len(spec.seed_genotypes))
    if len(given) > min(left, spec.budget.epochs):
        detail = (
            f"bounds: {len(given)} sets want a network and an epoch each; budget.evaluations leaves {left} networks, "
            f"budget.epochs is {spec.budget.epochs}"
        )
        yield Fault(TITLE, detail, pointer(FIELD), len(given), "fewer sets, or more of both")
    for index, bounds in enumerate(given):
        wrong = list(_unknown(index, bounds, summed))
        yield from wrong or _unmet(spec, index, bounds, entries, space, skeletons)


def _unknown(index: int, bounds: Mapping[str, Any], summed: Sequence[str]) -> Iterator[Fault]:
    listed = ", ".join(summed) or "none"
    for key, bound in bounds.items():
        low, high = bound.get("min"), bound.get("max")
        if key not in summed:
            detail = f"bounds: '{key}' is no cost of this job that adds up over ops; of these it has: {listed}"
            yield Fault(TITLE, detail, pointer((*FIELD, index, key)), key, f"one of {listed}")
        elif low is not None and high is not None and low > high:
            detail = f"bounds: '{key}' has a min of {low:.12g}, which lies above its max"
            yield Fault(TITLE, detail, pointer((*FIELD, index, key, "min")), low, f"at most the max, {high:.12g}")


def _unmet(
    spec: JobSpec,
    index: int,
    bounds: Mapping[str, Any],
    entries: Mapping[str, CatalogEntry],
    space: SearchSpace | None,
    skeletons: Sequence[Skeleton],
) -> Iterator[Fault]:
    """What no network holds, the job's own bounds included."""
    together = dict(spec.constraints)
    for key, bound in bounds.items():
        job, found = together.get(key), {}
        for side, tighter in (("min", max), ("max", min)):
            values = [value for value in (bound.get(side), getattr(job, side, None)) if value is not None]
            if values:
                found[side] = tighter(values)
        if found.get("min", -math.inf) > found.get("max", math.inf):
            detail = f"bounds: with the job's constraint '{key}' would be at least {found['min']:.12g} and less"
            yield Fault(TITLE, detail, pointer((*FIELD, index, key)), bound, "bounds that go with the constraints")
            return
        if found:
            together[key] = Bound(**found)
    counted = {key: bound for key, bound in together.items() if ranges.counted(entries[key]) is not None}
    tried = spec.model_copy(update={"constraints": counted, "reference_point": {}})
    for fault in ranges.faults(tried, entries, space, skeletons, {}):
        where = fault.path.removeprefix("/constraints")
        own = where.split("/")[1] in bounds if where else False
        yield replace(fault, path=pointer((*FIELD, index)) + (where if own or not where else ""))
