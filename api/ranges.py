"""Bounds and reference points against what networks can cost at all: exact floors and ceilings at the targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from api.errors import Fault, pointer
from api.imagesets import Images
from nas_core.architecture import Architecture, Skeleton
from nas_core.costs import Resource, count
from nas_core.errors import NasCoreError
from nas_core.search import SearchSpace
from nas_core.tables import Column
from skyline.schemas import Bound, CatalogEntry, JobSpec, ObjectiveSpec
from skyline.schemas.jobs import QUALITIES

MOST_COUNTED = 100
"""Networks that are counted one by one while a request waits."""
LISTED = 5
"""Of those, how many a fault lists with what they have."""
ROUNDING = 1e-9
"""Of 1 - x, in floating point."""


def counted(entry: CatalogEntry) -> tuple[Resource, int] | None:
    """What an exact objective counts, and how often; None where its value is no multiple of that."""
    resource, scale = entry.facts.get("resource"), entry.facts.get("scale")
    return None if resource is None or scale is None else (resource, scale)


@dataclass(frozen=True, slots=True)
class Range:
    """Least and most that any network of a space costs on one skeleton."""

    floor: int
    ceiling: int
    skeleton: Skeleton
    step: int = 1
    """Everything between is a multiple of this."""

    def __str__(self) -> str:
        stack = f"{len(self.skeleton.cells)} cells, {self.skeleton.channels} channels"
        return f"{self.floor} to {self.ceiling} ({stack}, {self.skeleton.stem} stem)"

    def left(self, bound: Bound) -> tuple[int, int]:
        """Least and most that a bound leaves, whole multiples of the step; nothing where the first is the greater."""
        low = self.floor if bound.min is None else max(self.floor, self.step * math.ceil(bound.min / self.step))
        high = self.ceiling if bound.max is None else min(self.ceiling, self.step * math.floor(bound.max / self.step))
        return low, high

    def meets(self, bound: Bound) -> bool:
        low, high = self.left(bound)
        return low <= high


def exact_range(space: SearchSpace, skeleton: Skeleton, resource: Resource, times: int = 1) -> Range:
    """Raises NasCoreError when no network can be built."""
    hashable: Any = space  # its settings are frozen
    return _exact_range(hashable, skeleton, resource, times)


@lru_cache(maxsize=256)
def _exact_range(space: Any, skeleton: Skeleton, resource: Resource, times: int) -> Range:
    low, high = (
        getattr(count(Architecture(space.extreme(skeleton, resource, highest), skeleton)), resource)
        for highest in (False, True)
    )
    return Range(times * low, times * high, skeleton, times)


def targets(spec: JobSpec, space: SearchSpace, images: Images) -> tuple[list[Skeleton], list[Fault]]:
    """The skeletons of the networks wanted, and what cannot be built: as searched, or as wanted."""
    wanted = spec.target
    searched = space.skeleton(images.input, images.classes)
    widths: Sequence[int | None] = wanted.widths or [None]
    try:
        skeletons = [space.skeleton(images.input, images.classes, wanted.cells, width, wanted.stem) for width in widths]
    except NasCoreError as error:
        detail = f"the target does not fit space '{spec.space.name}': {error}"
        expected = "cells, channels and a stem that the space can have"
        return [], [Fault("Impossible network", detail, "/target", wanted.model_dump(exclude_none=True), expected)]
    found = []
    for path, skeleton in [("/space", searched), *(("/target", skeleton) for skeleton in skeletons)]:
        try:
            exact_range(space, skeleton, "params")
        except NasCoreError as error:
            detail = f"no network can be built with {len(skeleton.cells)} cells, {skeleton.channels} channels: {error}"
            got = {"cells": len(skeleton.cells), "channels": skeleton.channels, "stem": skeleton.stem}
            expected = "cells, channels and a stem that fit the images"
            found.append(Fault("Impossible network", detail, path, got, expected))
    return skeletons, found


def faults(
    spec: JobSpec,
    entries: Mapping[str, CatalogEntry],
    space: SearchSpace | None,
    skeletons: Sequence[Skeleton],
    columns: Mapping[str, Column],
) -> Iterator[Fault]:
    """Bounds that no network can meet, each by itself or all together, and reference points that none can beat.

    ``entries``: the catalog's entry by key; ``columns``: what is looked up, by key. ``space`` is None where only
    workers know it: then nothing is counted. A bound that every network meets is fine: a team's usual limits may be
    wider than one job.
    """
    single = list(_single(spec, entries, space, skeletons, columns))
    yield from single or _together(spec, entries, space, skeletons)


def _single(
    spec: JobSpec,
    entries: Mapping[str, CatalogEntry],
    space: SearchSpace | None,
    skeletons: Sequence[Skeleton],
    columns: Mapping[str, Column],
) -> Iterator[Fault]:
    """One objective after another."""
    for objective in spec.objectives:
        key = objective.effective_key
        entry = entries[key]
        bound, reference = spec.constraints.get(key), spec.reference_point.get(key)
        if bound is None and reference is None:
            continue
        match entry.facts.get("source"):
            case "tabular":
                wrong = list(_fraction(key, entry, bound, None)) if objective.name in QUALITIES else []
                yield from wrong or _listed(key, columns[key], bound, reference)
            case "data" | "measured" if "plugin" in entry.facts:
                continue  # any number may be a value of a user's own
            case "data":
                yield from _fraction(key, entry, bound, reference)
            case "exact":
                resource = counted(entry)
                if space is not None and resource is not None:
                    ranges = [exact_range(space, skeleton, *resource) for skeleton in skeletons]
                    yield from _counted(key, objective, ranges, bound, reference)
                elif resource is None and "plugin" not in entry.facts:
                    yield from _positive(key, bound, reference)
            case _:
                yield from _positive(key, bound, reference)


def _together(
    spec: JobSpec, entries: Mapping[str, CatalogEntry], space: SearchSpace | None, skeletons: Sequence[Skeleton]
) -> Iterator[Fault]:
    """Bounds of which each can hold, but not all of them: they count the same thing, or no target meets them all."""
    yield from _error_and_accuracy(spec, entries)
    bounds: dict[Resource, dict[str, tuple[Bound, int]]] = {}
    for key, bound in spec.constraints.items():
        if (resource := counted(entries[key])) is not None:
            bounds.setdefault(resource[0], {})[key] = (bound, resource[1])
    named = [key for of_resource in bounds.values() for key in of_resource]
    if space is None or len(named) < 2:
        return
    possible = []
    for skeleton in skeletons:
        ranges = {
            resource: [(exact_range(space, skeleton, resource, times), bound, times) for bound, times in given.values()]
            for resource, given in bounds.items()
        }
        left = [
            [(low / times, high / times) for item, bound, times in several for low, high in (item.left(bound),)]
            for several in ranges.values()
        ]
        if all(max(low for low, _ in each) <= min(high for _, high in each) for each in left):
            return
        listed = (
            f"{key} {exact_range(space, skeleton, resource, times)}"
            for resource, given in bounds.items()
            for key, (_, times) in given.items()
        )
        possible.append(", ".join(listed))
    detail = f"constraints {', '.join(map(repr, named))}: each can be held, but no network holds all of them"
    expected = f"bounds that one target's networks can hold together: {'; '.join(possible)}"
    got = {key: spec.constraints[key].model_dump() for key in named}
    yield Fault("Bounds contradict each other", f"{detail}; expected {expected}", "/constraints", got, expected)


def _error_and_accuracy(spec: JobSpec, entries: Mapping[str, CatalogEntry]) -> Iterator[Fault]:
    """An accuracy is 1 - error, so a bound on one is a bound on the other."""
    lowest, highest, named = 0.0, 1.0, []
    for objective in spec.objectives:
        key = objective.effective_key
        bound = spec.constraints.get(key)
        facts = entries[key].facts
        if bound is None or objective.name not in QUALITIES or "plugin" in facts or facts.get("source") != "data":
            continue
        named.append(key)
        least, most = (0.0 if bound.min is None else bound.min), (1.0 if bound.max is None else bound.max)
        if entries[key].facts.get("direction") == "maximize":
            least, most = 1 - most, 1 - least
        lowest, highest = max(lowest, least), min(highest, most)
    if lowest > highest + ROUNDING:
        detail = (
            f"constraints {', '.join(map(repr, named))}: an accuracy is 1 - error, so they ask for an error of at "
            f"least {lowest:.6g} and at most {highest:.6g}; expected bounds that one error can hold"
        )
        got = {key: spec.constraints[key].model_dump() for key in named}
        expected = "bounds that one error can hold"
        yield Fault("Bounds contradict each other", detail, "/constraints", got, expected)


def unmet(spec: JobSpec, entries: Mapping[str, CatalogEntry], networks: Sequence[Architecture]) -> Iterator[Fault]:
    """Bounds that none of the networks meets, one by one or all together, where they are all that a job will have; of
    very many nothing is said.
    """
    if not 0 < len(networks) <= MOST_COUNTED:
        return
    costs = [count(network) for network in networks]
    had: dict[str, list[int]] = {}
    for key in spec.constraints:
        if (resource := counted(entries[key])) is not None:
            had[key] = [resource[1] * getattr(cost, resource[0]) for cost in costs]
    holding = {key: [_within(number, spec.constraints[key]) for number in numbers] for key, numbers in had.items()}
    missed = [key for key, held in holding.items() if not any(held)]
    for key in missed:
        least, most = min(had[key]), max(had[key])
        listed = f"{least} to {most}" if least < most else str(least)
        detail = f"constraint '{key}': none of the networks of this job holds it; they have {listed}"
        expected = f"a bound that {listed} meets, or none"
        got = spec.constraints[key].model_dump()
        yield Fault("Bound out of range", detail, pointer(("constraints", key)), got, expected)
    if had and not missed and not any(all(held) for held in zip(*holding.values(), strict=True)):
        detail = f"constraints {', '.join(map(repr, had))}: none of the networks of this job holds all of them"
        networks_have = (
            ", ".join(f"{key} {had[key][place]}" for key in had) for place in range(min(LISTED, len(costs)))
        )
        expected = f"bounds that one of them meets; they have {'; '.join(networks_have)}"
        expected += "; ..." if len(costs) > LISTED else ""
        got = {key: spec.constraints[key].model_dump() for key in had}
        yield Fault("Bounds contradict each other", f"{detail}; expected {expected}", "/constraints", got, expected)


def _within(number: float, bound: Bound) -> bool:
    return (bound.max is None or number <= bound.max) and (bound.min is None or number >= bound.min)


def _bound(key: str, side: str, value: float, why: str, expected: str) -> Fault:
    detail = f"constraint '{key}': {side} {value:.12g} {why}; expected {expected}"
    return Fault("Bound out of range", detail, pointer(("constraints", key, side)), value, expected)


def _reference(key: str, value: float, why: str, expected: str) -> Fault:
    detail = f"reference point '{key}': {value:g} {why}, so no network could count; expected {expected}"
    return Fault("Reference point out of range", detail, pointer(("reference_point", key)), value, expected)


def _fraction(key: str, entry: CatalogEntry, bound: Bound | None, reference: float | None) -> Iterator[Fault]:
    """``error`` and ``accuracy``."""
    for side in ("min", "max"):
        value = getattr(bound, side) if bound is not None else None
        if value is not None and not 0 <= value <= 1:
            yield _bound(key, side, value, "is no fraction", "0 to 1")
    if reference is None:
        return
    if entry.facts.get("direction") == "maximize":
        if not 0 <= reference < 1:
            yield _reference(key, reference, "is the best possible or no fraction", "at least 0 and below 1")
    elif not 0 < reference <= 1:
        yield _reference(key, reference, "is the best possible or no fraction", "above 0 and at most 1")


def _counted(
    key: str, objective: ObjectiveSpec, ranges: Sequence[Range], bound: Bound | None, reference: float | None
) -> Iterator[Fault]:
    possible = ", ".join(str(item) for item in ranges)
    floor, ceiling = min(item.floor for item in ranges), max(item.ceiling for item in ranges)
    if bound is not None and not any(item.meets(bound) for item in ranges):
        if bound.max is not None and bound.max < floor:
            yield _bound(key, "max", bound.max, f"lies below {floor}, the least any network has", possible)
        elif bound.min is not None and bound.min > ceiling:
            yield _bound(key, "min", bound.min, f"lies above {ceiling}, the most any network has", possible)
        else:  # between the ranges of two widths
            between = f"{bound.min:.12g} and {bound.max:.12g}"
            detail = f"constraint '{key}': no network lies between {between}; expected {possible}"
            got = bound.model_dump()
            yield Fault("Bound out of range", detail, pointer(("constraints", key)), got, possible)
    if reference is not None and reference <= floor:
        yield _reference(key, reference, f"is not above {floor}, the least any network has", f"above {floor}")


def _listed(key: str, column: Column, bound: Bound | None, reference: float | None) -> Iterator[Fault]:
    """Of a table: what lies outside of all its values."""
    low, high = f"{column.low:.8g}", f"{column.high:.8g}"
    possible = f"{low} to {high}, as in the table"
    if bound is not None and bound.max is not None and bound.max < column.low:
        yield _bound(key, "max", bound.max, f"lies below {low}, the least of the table", possible)
    if bound is not None and bound.min is not None and bound.min > column.high:
        yield _bound(key, "min", bound.min, f"lies above {high}, the most of the table", possible)
    if reference is None:
        return
    if column.direction == "minimize" and reference <= column.low:
        yield _reference(key, reference, f"is not above {low}, the least of the table", f"above {low}")
    if column.direction == "maximize" and reference >= column.high:
        yield _reference(key, reference, f"is not below {high}, the most of the table", f"below {high}")


def _positive(key: str, bound: Bound | None, reference: float | None) -> Iterator[Fault]:
    """Costs that nothing is counted for here: time, energy, memory."""
    if bound is not None and bound.max is not None and bound.max <= 0:
        yield _bound(key, "max", bound.max, "is met by no network", "above 0")
    if reference is not None and reference <= 0:
        yield _reference(key, reference, "is better than possible", "above 0")
