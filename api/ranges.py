"""Bounds and reference points against what networks can cost at all: exact floors and ceilings at the targets."""

from __future__ import annotations

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

MOST_COUNTED = 100
"""Networks that are counted one by one while a request waits."""


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

    def __str__(self) -> str:
        stack = f"{len(self.skeleton.cells)} cells, {self.skeleton.channels} channels"
        return f"{self.floor} to {self.ceiling} ({stack}, {self.skeleton.stem} stem)"

    def meets(self, bound: Bound) -> bool:
        above = bound.max is None or bound.max >= self.floor
        return above and (bound.min is None or bound.min <= self.ceiling)


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
    return Range(times * low, times * high, skeleton)


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
    """Bounds that no network can meet, and reference points that none can beat.

    ``entries``: the catalog's entry by key; ``columns``: what is looked up, by key. ``space`` is None where only
    workers know it: then nothing is counted. A bound that every network meets is fine: a team's usual limits may be
    wider than one job.
    """
    for objective in spec.objectives:
        key = objective.effective_key
        entry = entries[key]
        bound, reference = spec.constraints.get(key), spec.reference_point.get(key)
        if bound is None and reference is None:
            continue
        match entry.facts.get("source"):
            case "tabular":
                yield from _listed(key, columns[key], bound, reference)
            case "data" | "measured" if "plugin" in entry.facts:
                continue  # any number may be a value of a user's own
            case "data":
                yield from _fraction(key, entry, bound, reference)
            case "exact":
                resource = counted(entry)
                if space is not None and resource is not None:
                    ranges = [exact_range(space, skeleton, *resource) for skeleton in skeletons]
                    yield from _counted(key, objective, ranges, bound, reference)
            case _:
                yield from _positive(key, bound, reference)


def unmet(spec: JobSpec, entries: Mapping[str, CatalogEntry], networks: Sequence[Architecture]) -> Iterator[Fault]:
    """Bounds that none of the networks meets, where they are all that a job will have; of very many nothing is said."""
    if not 0 < len(networks) <= MOST_COUNTED:
        return
    counts = [count(network) for network in networks]
    for objective in spec.objectives:
        key = objective.effective_key
        resource = counted(entries[key])
        bound = spec.constraints.get(key)
        if bound is None or resource is None:
            continue
        had = sorted(resource[1] * getattr(cost, resource[0]) for cost in counts)
        if any((bound.max is None or cost <= bound.max) and (bound.min is None or cost >= bound.min) for cost in had):
            continue
        listed = f"{had[0]} to {had[-1]}" if had[0] < had[-1] else str(had[0])
        detail = f"constraint '{key}': none of the networks of this job holds it; they have {listed}"
        expected = f"a bound that {listed} meets, or none"
        yield Fault("Bound out of range", detail, pointer(("constraints", key)), bound.model_dump(), expected)


def _bound(key: str, side: str, value: float, why: str, expected: str) -> Fault:
    detail = f"constraint '{key}': {side} {value:g} {why}; expected {expected}"
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
            detail = f"constraint '{key}': no network lies between {bound.min:g} and {bound.max:g}; expected {possible}"
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
    """Measured costs: time, energy, memory."""
    if bound is not None and bound.max is not None and bound.max <= 0:
        yield _bound(key, "max", bound.max, "is met by no network", "above 0")
    if reference is not None and reference <= 0:
        yield _reference(key, reference, "is better than possible", "above 0")
