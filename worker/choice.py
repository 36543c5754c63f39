"""Which candidates of a search are verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nas_core.errors import NasCoreError
from nas_core.pareto import select
from nas_core.search import Axes
from nas_core.values import GOALS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scored(Generic[T]):
    """A candidate that verification may choose."""

    hash: str
    target: int
    values: Mapping[str, float]
    """By objective key, as far as the search saw them."""
    what: T
    goals: tuple[int, ...] = ()
    """Which of the networks that its job asks for one by one it may be, if it asks so."""


def goals_of(values: Mapping[str, Mapping[str, Any]]) -> tuple[int, ...]:
    """As the values say that the search found on its supernet."""
    return next((tuple(v[GOALS]) for v in values.values() if v["kind"] == "supernet" and GOALS in v), ())


def choose(scored: Sequence[Scored[T]], axes: Axes, reference: Mapping[str, float], top: int) -> list[Scored[T]]:
    """Up to ``top``, evenly over the target skeletons (search values compare only within one), by constrained
    domination: those that hold all bounds by rank and hypervolume contribution, then the others by how much they break
    them. Of each network that a job asks for one by one the best comes before all these, whatever the search thinks of
    it beside the others, those that hold all bounds first. What verification cannot make good is never chosen.

    Those that lack a value come first, in order, since nothing says which of them is better: whoever left them unscored
    meant to have them all verified. Raises NasCoreError where they are more than ``top``.
    """
    usable = [item for item in scored if axes.lasting_violation(item.values) <= 0]
    chosen = [item for item in usable if not set(axes.keys) <= set(item.values)]
    if len(chosen) > top:
        raise NasCoreError(
            f"{len(chosen)} candidates have no search value to choose by, and verify.top is {top}; "
            f"set verify.top to {len(chosen)}, or 'evaluate' to a training"
        )
    usable = [item for item in usable if set(axes.keys) <= set(item.values)]
    targets = sorted({item.target for item in usable})
    limits = axes.costs_of(reference)
    for place, target in enumerate(targets):
        share = -(-(top - len(chosen)) // (len(targets) - place))
        group = [item for item in usable if item.target == target]
        ordered = served(group, axes, missing=goals(group) - goals(chosen))
        costs = [axes.costs_of(item.values) for item in group]
        violations = [axes.violation(item.values) for item in group]
        front = [group[index] for index in select(costs, limits, share, [item.hash for item in group], violations)]
        chosen += [*ordered, *(item for item in front if item not in ordered)][:share]
    return chosen


def goals(scored: Sequence[Scored[T]]) -> set[int]:
    return {goal for item in scored for goal in item.goals}


def served(scored: Sequence[Scored[T]], axes: Axes, missing: Set[int]) -> list[Scored[T]]:
    """The best of each goal once: those that hold all bounds first, of these the goals that are ``missing`` so far."""
    learnt = [key for key, objective in axes.objectives.items() if objective.source == "data"]

    def merit(item: Scored[T]) -> tuple[float | str, ...]:
        return axes.violation(item.values), *(axes.cost(key, item.values[key]) for key in learnt), item.hash

    found: dict[str, tuple[tuple[bool, bool, int], Scored[T]]] = {}
    for goal in sorted(goals(scored)):
        item = min((item for item in scored if goal in item.goals), key=merit)
        found.setdefault(item.hash, ((axes.violation(item.values) > 0, goal not in missing, goal), item))
    return [item for _, item in sorted(found.values(), key=lambda each: each[0])]


def unserved(found: Sequence[Scored[T]], chosen: Sequence[Scored[T]], top: int) -> str | None:
    """What to tell where of some of the networks that a job asks for one by one none is verified."""
    asked, left = goals(found), sorted(goals(found) - goals(chosen))
    if not left:
        return None
    named = f"{', '.join(map(str, left))} of {len(asked)}"
    return f"none of the networks found for bounds, weights or targets {named} is verified; verify.top is {top}"


def doubts(chosen: Sequence[Scored[T]], axes: Axes) -> str | None:
    """What to tell of a choice that bounds were in the way of."""
    if not chosen:
        return "no candidate can hold all bounds, so none is verified and the final front stays empty"
    over = [item for item in chosen if axes.violation(item.values) > 0]
    if not over:
        return None
    broken = [
        key
        for key, bound in axes.bounds.items()
        if any(bound.violation(item.values[key]) > 0 for item in over if key in item.values)
    ]
    return (
        f"{len(over)} of the {len(chosen)} networks to be verified break the bound on {' and '.join(broken)} by the "
        "search's estimate; they are the nearest to it, and the bound is held against their errors after verification"
    )
