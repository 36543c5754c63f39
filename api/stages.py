"""Whether the settings of a search by stages (``tnd-nas``) fit each other and their job, told before a worker tries.

The API imports no algorithm: what one is asked for is read from its published form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api import forms
from api.errors import Fault
from nas_core.errors import InvalidSettingsError
from nas_core.search import Relaxable, SearchSpace
from skyline.schemas import CatalogEntry, JobSpec
from skyline.schemas.jobs import QUALITIES, Objectives, ObjectiveSpec

BY_OBJECTIVE = ("exponents", "references")
"""Settings by objective key."""
WANTED = frozenset({"stages", "depths", "normal_left", "reduce_left", *BY_OBJECTIVE})
"""An algorithm with these settings goes by stages."""
UNTRAINED: Mapping[str, int] = {"untrained_shrink": 1, "untrained_draws": 1, "final_draws": 0}
"""Settings of the scores of untrained networks, with the values by which they do nothing."""
ALSO = ("ranked_by", "carry", "weights", "draws", "path_explore", "skip_dropout", *UNTRAINED)
"""Looked at where such an algorithm has them."""
TITLE = "Invalid setting"
_OBJECTIVES: TypeAdapter[list[ObjectiveSpec]] = TypeAdapter(Objectives)


def faults(
    spec: JobSpec, algorithm: CatalogEntry, costs: list[str], space: SearchSpace, input: tuple[int, int, int]
) -> Iterator[Fault]:
    """``costs``: keys of the objectives that do not follow from the error; ``input`` (C, H, W) of an image."""
    form = algorithm.settings.get("properties", {})
    if not set(form) >= WANTED:
        return
    given: dict[str, Any] = {
        name: spec.algorithm.settings.get(name, form[name].get("default")) for name in (*WANTED, *ALSO) if name in form
    }
    stages = given["stages"]
    if spec.origin is None and spec.budget.epochs < stages:
        detail = f"budget.epochs: {spec.budget.epochs} are too few for {stages} stages, one for each"
        yield Fault(TITLE, detail, "/budget/epochs", spec.budget.epochs, f"{stages} or more, or fewer stages")
    yield from _lists(given, stages)
    yield from _of_no_use(given, space)
    if spec.origin is None:
        yield from _idle(given, form)
    yield from _depths(given["depths"] or [], space, input)
    for name in BY_OBJECTIVE:
        for key, values in (given[name] or {}).items():
            if key not in costs:
                listed = ", ".join(costs) or "none"
                detail = f"{name}: '{key}' is no cost of this job; its costs are {listed}"
                others = [*costs, *([] if key in spec.keys else [f"{key} as an objective"]), f"'{name}: {{}}' for none"]
                yield Fault(TITLE, detail, f"/algorithm/{name}/{key}", key, ", or ".join(others))
            elif name == "references" and given["exponents"] and key not in given["exponents"]:
                detail = f"references: '{key}' does not enter the reward, since 'exponents' leaves it out"
                yield Fault(
                    TITLE, detail, f"/algorithm/references/{key}", key, f"an exponent for {key}, or no reference"
                )
            elif len(values) not in (1, stages):
                detail = f"{name}.{key}: wants one number, or one for each of {stages} stages; got {values}"
                yield Fault(TITLE, detail, f"/algorithm/{name}/{key}", values, f"1 or {stages} numbers")


def taken_over(
    settings: dict[str, Any], before: Any, objectives: Any, known: Mapping[str, CatalogEntry]
) -> dict[str, Any]:
    """The algorithm's settings of a job that is gone on from, without what they say of objectives that the posted job
    has not, or has by another definition. Where it has a cost that the other job had not, no exponents are taken over:
    what they leave out does not enter. As they are where it gives no objectives, or none that are any.

    ``before``, ``objectives``: as stored, and as posted; ``known``: entries of objectives by name.
    """
    try:
        old = {objective.effective_key: objective for objective in _OBJECTIVES.validate_python(before)}
        new = {objective.effective_key: objective for objective in _OBJECTIVES.validate_python(objectives)}
    except ValidationError:
        return settings
    same = {key for key, objective in new.items() if key in old and _alike(objective, old[key], known)}
    kept = {
        name: {key: values for key, values in settings[name].items() if key in same}
        for name in BY_OBJECTIVE
        if isinstance(settings.get(name), dict)
    }
    if "exponents" in kept and any(key not in same and new[key].name not in QUALITIES for key in new):
        kept["exponents"] = {}
    return settings | kept


def _alike(posted: ObjectiveSpec, stored: ObjectiveSpec, known: Mapping[str, CatalogEntry]) -> bool:
    """Whether it is the same metric. Defaults of None are for the service to settle: they go with whatever it did."""
    if posted.name != stored.name:
        return False
    entry = known.get(posted.name)
    complete = posted.settings if entry is None else forms.filled(posted.settings, entry.settings)
    return all(value is None or value == stored.settings.get(name) for name, value in complete.items())


def most_evaluations(spec: JobSpec, algorithm: CatalogEntry, costs: list[str]) -> int:
    """How many genotypes a search proposes at most: of one by stages, its seeds, what each preference derives, and the
    best samples. ``costs`` as in ``faults``.
    """
    form = algorithm.settings.get("properties", {})
    if not set(form) >= {*WANTED, "preferences", "rescored"}:
        return spec.budget.evaluations
    preferences, rescored = (
        int(spec.algorithm.settings.get(name, form[name]["default"])) for name in ("preferences", "rescored")
    )
    return min(spec.budget.evaluations, len(spec.seed_genotypes) + (preferences if costs else 1) + rescored)


def _lists(given: dict[str, Any], stages: int) -> Iterator[Fault]:
    for name in ("depths", "normal_left", "reduce_left"):
        values = given[name] or []
        if values and len(values) != stages:
            detail = f"{name}: wants one number for each of {stages} stages; got {values}"
            yield Fault(TITLE, detail, f"/algorithm/{name}", values, f"{stages} numbers")
        elif name != "depths" and values and (values[-1] != 1 or values != sorted(values, reverse=True)):
            detail = f"{name}: never grows, and is 1 after the last stage; got {values}"
            yield Fault(TITLE, detail, f"/algorithm/{name}", values, "numbers that fall to 1")


def _of_no_use(given: dict[str, Any], space: SearchSpace) -> Iterator[Fault]:
    """Settings that leave each other, or the space, nothing to do."""
    ranked_by = given.get("ranked_by")
    if ranked_by is not None and "supernet" not in ranked_by:
        named = ", ".join(ranked_by) or "nothing"
        detail = f"ranked_by: 'supernet' must be among them; got {named}"
        yield Fault(TITLE, detail, "/algorithm/ranked_by", ranked_by, "a weight for 'supernet' among others")
    depths = given["depths"] or []
    if given.get("carry") and len(set(depths)) > 1:
        detail = f"carry: weights of one depth do not fit another; give equal depths, or none; got {depths}"
        yield Fault(TITLE, detail, "/algorithm/carry", True, "false, or equal depths")
    if given.get("weights") == "relaxed":
        for name, idle in (("draws", 1), ("path_explore", 0)):
            if given.get(name) not in (None, idle):
                detail = (
                    f"{name}: {given[name]} is of networks that weight steps draw, and 'weights: relaxed' draws none"
                )
                yield Fault(TITLE, detail, f"/algorithm/{name}", given[name], f"{idle}, or weights: paths")
    if not isinstance(space, Relaxable):
        return
    for name, prefix in (("normal_left", "normal"), ("reduce_left", "reduce")):
        types = [type_ for type_ in getattr(space, "types", ("normal",)) if type_.startswith(prefix)]
        values = given[name] or []
        if values and not types:
            detail = f"{name}: the space has no cells of that type to search"
            yield Fault(TITLE, detail, f"/algorithm/{name}", values, "nothing")
        elif values and values[0] > (most := max(len(space.ops(type_)) for type_ in types)):
            detail = f"{name}: an edge has {most} ops; got {values}"
            yield Fault(TITLE, detail, f"/algorithm/{name}", values, f"numbers from {most} down to 1")


def _idle(given: dict[str, Any], form: Mapping[str, Any]) -> Iterator[Fault]:
    """Settings that others leave nothing to do, unless they came with the job that is gone on from."""
    ranked_by = given.get("ranked_by")
    if ranked_by is not None and not {"progressivity", "synflow"} & set(ranked_by):
        for name, idle in UNTRAINED.items():
            if given.get(name, idle) != idle:
                detail = f"{name}: {given[name]} is of scores of untrained networks, and ranked_by has none"
                expected = f"{idle}, or ranked_by with progressivity or synflow"
                yield Fault(TITLE, detail, f"/algorithm/{name}", given[name], expected)
    rates, stages = given.get("skip_dropout") or [], given["stages"]
    if len(rates) > stages and list(rates) != list(form["skip_dropout"].get("default") or []):
        detail = f"skip_dropout: {len(rates)} rates, but there are {stages} stages; got {rates}"
        yield Fault(TITLE, detail, "/algorithm/skip_dropout", rates, f"{stages} rates at most")


def _depths(depths: list[int], space: SearchSpace, input: tuple[int, int, int]) -> Iterator[Fault]:
    for index, depth in enumerate(depths):
        try:
            space.skeleton(input, 2, cells=depth)
        except InvalidSettingsError as error:
            yield Fault(TITLE, f"depths: {error}", f"/algorithm/depths/{index}", depth, "a depth that the space has")
