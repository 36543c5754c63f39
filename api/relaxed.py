"""Whether the settings of a differentiable search (``darts``, ``entrannas``) fit their job, told before a worker tries.

The API imports no algorithm: what one is asked for is read from its published form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from api.errors import Fault
from nas_core.architecture import Skeleton
from nas_core.engines import positions
from nas_core.errors import InvalidSettingsError
from nas_core.search import SearchSpace
from skyline.schemas import CatalogEntry, JobSpec

WANTED = frozenset({"warmup_epochs", "collapse"})
"""An algorithm with these settings is one of them."""
TITLE = "Invalid setting"


def faults(
    spec: JobSpec, algorithm: CatalogEntry, costs: Sequence[str], space: SearchSpace, skeleton: Skeleton
) -> Iterator[Fault]:
    """``costs``: keys of the objectives that may be sums over ops; ``skeleton``: the searched one."""
    form = algorithm.settings.get("properties", {})
    if not set(form) >= WANTED:
        return
    given: dict[str, Any] = {
        name: spec.algorithm.settings.get(name, field.get("default")) for name, field in form.items()
    }
    epochs, warm = spec.budget.epochs, given["warmup_epochs"]
    if warm >= epochs:
        detail = f"warmup_epochs: {warm} leave none of {epochs} epochs (budget.epochs) for alpha"
        yield Fault(TITLE, detail, "/algorithm/warmup_epochs", warm, f"fewer than {epochs}, or more epochs")
    yield from _resource(given, costs, spec)
    if given.get("dst"):
        if not getattr(space, "weighted", False):
            detail = "dst: needs a space whose nodes take any number of ops: darts with fan_in: free"
            yield Fault(TITLE, detail, "/algorithm/dst", True, "false, or the space darts with fan_in: free")
        if given.get("none"):
            detail = "none: with dst thresholds leave ops out; take it away, or dst"
            yield Fault(TITLE, detail, "/algorithm/none", True, "null or false with dst")
    if "engines" in given and getattr(space, "connection", False):
        detail = "connection: Engine and Transit cells do not choose what prepares their inputs"
        yield Fault(TITLE, detail, "/space/connection", True, "false, or another algorithm")
    if isinstance(given.get("engines"), list):
        searched = [name for name in set(skeleton.cells) if getattr(space, "ops", lambda _: ())(name)]
        try:
            positions(tuple(given["engines"]), skeleton.cells, sorted(searched))
        except InvalidSettingsError as error:
            yield Fault(TITLE, str(error), "/algorithm/engines", given["engines"], "positions of searched cells")


def _resource(given: dict[str, Any], costs: Sequence[str], spec: JobSpec) -> Iterator[Fault]:
    weights, key = given.get("resource_weights") or [], given.get("resource")
    epochs, left = spec.budget.epochs, max(1, spec.budget.evaluations - len(spec.seed_genotypes))
    listed = ", ".join(costs) or "none"
    if len(weights) > epochs:
        detail = f"budget.epochs: {epochs} are too few for {len(weights)} networks, one epoch for each"
        yield Fault(TITLE, detail, "/budget/epochs", epochs, f"{len(weights)} or more, or fewer weights")
    elif len(weights) > 1 and given["warmup_epochs"] >= -(-epochs // len(weights)):
        warm, first = given["warmup_epochs"], -(-epochs // len(weights))
        detail = f"warmup_epochs: {warm} leave alpha none of the {first} epochs of the first of {len(weights)} weights"
        yield Fault(TITLE, detail, "/algorithm/warmup_epochs", warm, f"fewer than {first}, or more epochs")
    if len(weights) > left:
        detail = f"budget.evaluations: leaves {left} networks, too few for {len(weights)} weights"
        yield Fault(TITLE, detail, "/budget/evaluations", spec.budget.evaluations, "more, or fewer weights")
    if key is not None and not weights:
        detail = f"resource: '{key}' says nothing without resource_weights"
        yield Fault(TITLE, detail, "/algorithm/resource", key, "null, or weights")
    elif key is not None and key not in costs:
        detail = f"resource: '{key}' is no cost of this job that adds up over ops; of these it has: {listed}"
        yield Fault(TITLE, detail, "/algorithm/resource", key, f"one of {listed}, or {key} as an objective")
    elif weights and not costs:
        detail = "resource_weights: none of the objectives is a cost that adds up over ops"
        yield Fault(TITLE, detail, "/algorithm/resource_weights", weights, "a cost such as params among the objectives")
