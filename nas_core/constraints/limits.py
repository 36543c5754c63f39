"""All bounds of a search at one target: what can be held at all, the nearest logits that hold them, the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nas_core.additive import AdditiveTable, Logits
from nas_core.architecture import Genotype
from nas_core.constraints.projection import Projected, Projection, distance, towards, violation
from nas_core.constraints.relaxed import Form, Rule
from nas_core.constraints.repair import RESTARTS, Repair, extreme
from nas_core.errors import BoundsError
from nas_core.search import Bound, Relaxable

TIGHTENINGS = 10


class Constraints:
    """Bounds on additive costs, by objective key."""

    def __init__(
        self,
        space: Relaxable,
        tables: Mapping[str, AdditiveTable],
        form: Form = "straight_through",
        steps: int = 300,
        lr: float = 0.05,
        weight: float = 100.0,
    ) -> None:
        """``steps``, ``lr`` and ``weight`` are of the projection."""
        self.space, self.tables = space, tables
        some = next(iter(tables.values()))
        self.rule = Rule(space, {name: entries.shape for name, entries in some.entries.items()})
        self.projection = Projection(tables, self.rule, form, steps, lr, weight)
        self.ranges = {
            key: (self.cost(key, extreme(self.rule, table, False)), self.cost(key, extreme(self.rule, table, True)))
            for key, table in tables.items()
        }
        """Least and most that any network costs, by key."""

    def cost(self, key: str, genotype: Genotype) -> float:
        return self.tables[key].of(self.space.selection(genotype))

    def costs(self, genotype: Genotype) -> dict[str, float]:
        return {key: self.cost(key, genotype) for key in self.tables}

    def holds(self, genotype: Genotype, bounds: Mapping[str, Bound]) -> bool:
        return violation(bounds, self.costs(genotype)) == 0

    def check(self, bounds: Mapping[str, Bound], rng: np.random.Generator, restarts: int = RESTARTS) -> Genotype:
        """A network that holds them. Raises BoundsError, with floor and ceiling of each, for bounds that no network
        holds: one by one exactly, all together as far as exchanges of single ops find one, from so many random networks
        at most.
        """
        listed = ", ".join(f"{key} {low:.12g} to {high:.12g}" for key, (low, high) in self.ranges.items())
        for key, bound in bounds.items():
            low, high = self.ranges[key]
            for side, value, beyond in (("max", bound.max, low), ("min", bound.min, high)):
                if value is not None and violation({key: Bound(**{side: value})}, {key: beyond}) > 0:
                    edge = "the least" if side == "max" else "the most"
                    raise BoundsError(
                        f"bound of '{key}': {side} {value:.12g} lies beyond {beyond:.12g}, {edge} any network has; "
                        f"possible: {listed}"
                    )
        even = {name: np.zeros(entries.shape) for name, entries in self._entries().items()}
        found = Repair(self.tables, self.rule, even, bounds)(rng, restarts)
        if found is None:
            told = ", ".join(f"{key} {_shown(bound)}" for key, bound in bounds.items())
            raise BoundsError(
                f"bounds {told}: no network was found that holds them all; possible, each alone: {listed}"
            )
        return found

    def project(self, logits: Logits, bounds: Mapping[str, Bound]) -> Projected:
        """Logits that hold the bounds, near to the given ones, which come back as they are where they do already.

        Of two: what Adam comes to, and what it takes to derive the network that exchanges of single ops lead to. That
        one is ours; where costs are coarse it is the nearer. It is looked for in the straight-through form alone: the
        others bound no derived network.
        """
        found = self.projection(logits, bounds)
        if found.steps == 0 or self.projection.form != "straight_through":
            return found
        selection = Repair(self.tables, self.rule, logits, bounds).near()
        if selection is None:
            return found
        other = self.projection.nearer(logits, towards(logits, selection), bounds)
        if other is None or (found.feasible and distance(found.logits, logits) <= distance(other, logits)):
            return found
        return Projected(other, found.steps, True)

    def _entries(self) -> Logits:
        return next(iter(self.tables.values())).entries

    def repaired(self, logits: Logits, bounds: Mapping[str, Bound], rng: np.random.Generator) -> Genotype | None:
        """What is derived, or the nearest by exchanges of ops that holds all bounds; None where none was found."""
        return Repair(self.tables, self.rule, logits, bounds)(rng)

    def finish(
        self, logits: Logits, bounds: Mapping[str, Bound], rng: np.random.Generator
    ) -> tuple[Projected, Genotype | None]:
        """Projection, as often tightened as its network breaks bounds, ten times at most; then exchanges of ops."""
        aimed = dict(bounds)
        found = self.project(logits, aimed)
        for _ in range(TIGHTENINGS):
            values = self.costs(self.rule.genotype(found.logits))
            if violation(bounds, values) == 0 or (self.projection.form == "straight_through" and not found.feasible):
                break
            for key, bound in bounds.items():
                low, high = aimed[key].min, aimed[key].max
                if bound.max is not None and high is not None and values[key] > bound.max:
                    high -= (values[key] - bound.max) / 2
                if bound.min is not None and low is not None and values[key] < bound.min:
                    low += (bound.min - values[key]) / 2
                aimed[key] = replace(bound, min=low, max=high)
            again = self.project(found.logits, aimed)
            found = Projected(again.logits, found.steps + again.steps, again.feasible)
        return found, self.repaired(found.logits if found.feasible else logits, bounds, rng)


def _shown(bound: Bound) -> str:
    sides = (("at least", bound.min), ("at most", bound.max))
    return " and ".join(f"{word} {value:.12g}" for word, value in sides if value is not None) or "any"
