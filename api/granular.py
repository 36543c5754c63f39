"""Whether the settings of a search that prunes one network to given sizes (``mgas``) fit their job, told before a
worker tries.

The API imports no algorithm: what one is asked for is read from its published form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from api.errors import Fault, pointer
from nas_core.architecture import Skeleton
from nas_core.errors import InvalidSettingsError, MissingPartError
from nas_core.granularity.layout import Granular, tables_of
from nas_core.granularity.measure import BY_NAME, Measure, reachable
from nas_core.parts import Widths
from nas_core.search import SearchSpace
from skyline.schemas import CatalogEntry, JobSpec

WANTED = frozenset({"measure", "targets", "rho", "stages", "filters"})
"""An algorithm with these settings is one of them."""
TITLE = "Invalid setting"


def widths(spec: JobSpec, algorithm: CatalogEntry) -> Widths:
    """Which widths the search gives to cells."""
    form = algorithm.settings.get("properties", {})
    if not set(form) >= WANTED:
        return "rule"
    return "all" if spec.algorithm.settings.get("filters", form["filters"].get("default")) else "full"


def faults(
    spec: JobSpec,
    algorithm: CatalogEntry,
    costs: Sequence[str],
    measures: Mapping[str, Measure],
    space: SearchSpace,
    searched: Skeleton,
    target: Skeleton | None,
) -> Iterator[Fault]:
    """``costs``: keys of the objectives that may be sums over ops; ``measures``: how they are counted (not those of
    plug-ins); ``target``: the networks' skeleton, if it is known.
    """
    form = algorithm.settings.get("properties", {})
    if not set(form) >= WANTED:
        return
    given: dict[str, Any] = {
        name: spec.algorithm.settings.get(name, field.get("default")) for name, field in form.items()
    }
    if not getattr(space, "filters", False):
        detail = (
            f"algorithm '{algorithm.name}' needs cells with widths of their own, several ops on an edge and a type for "
            "each position: the space darts with filters: true, fan_in: free and levels: cell"
        )
        yield Fault("Space does not fit", detail, "/space/filters", False, "true, with fan_in: free and levels: cell")
        return
    try:
        if isinstance(space, Granular):
            tables_of(space)
    except InvalidSettingsError as error:
        yield Fault(TITLE, str(error), "/space", dict(spec.space.settings), "ops that have gates")
        return
    measure, targets = given["measure"], list(given["targets"] or [])
    known = [*BY_NAME, *(key for key in costs if key not in BY_NAME)]
    if measure not in known:
        detail = f"measure: '{measure}' is no cost of this job that adds up over ops; use one of {', '.join(known)}"
        yield Fault(TITLE, detail, "/algorithm/measure", measure, f"one of {', '.join(known)}")
    if len(given["rho"]) < given["stages"]:
        detail = f"rho: wants one for each of {given['stages']} stages; got {len(given['rho'])}"
        yield Fault(TITLE, detail, "/algorithm/rho", given["rho"], f"{given['stages']} shares, or fewer stages")
    left = max(1, spec.budget.evaluations - len(spec.seed_genotypes))
    if len(set(targets)) > left:
        detail = f"targets: {len(set(targets))} networks are wanted, but budget.evaluations leaves {left}"
        yield Fault(TITLE, detail, "/algorithm/targets", len(targets), "fewer targets, or more evaluations")
    found = BY_NAME.get(measure) or measures.get(measure)
    if found is not None and target is not None and isinstance(space, Granular):
        with suppress(MissingPartError):  # told of the objective
            ends = reachable(found, space, searched, target, given["filters"])
            yield from _unreachable(targets, measure, *ends)


def _unreachable(targets: list[float], measure: str, floor: float, ceiling: float) -> Iterator[Fault]:
    """Targets that no pruning comes to, or that the full network meets."""
    for index, target in enumerate(targets):
        if not floor < target <= ceiling:
            ends = f"{floor:.12g} to {ceiling:.12g}"
            detail = f"targets: {target:.12g} in '{measure}' lies outside what networks have here, {ends}"
            place = pointer(("algorithm", "targets", index))
            yield Fault(TITLE, detail, place, target, f"more than {floor:.12g}, at most {ceiling:.12g}")
