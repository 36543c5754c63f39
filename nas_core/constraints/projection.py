"""The feasible logits near to given ones: Adam on the squared distance with a hinge for each bound that is broken.

J(x) = 1/2 |x - start|^2 + sum over bounds of weight * max(0, cost / upper - 1) + weight * max(0, 1 - cost / lower).
Distances are of logits centred on each edge: a constant on all ops of an edge changes nothing. It stops as soon as all
bounds hold. What that moved too far is taken back (ours): along the straight line to the start, and edge by edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_core.additive import AdditiveTable, Logits, Selection
from nas_core.constraints.relaxed import Form, Rule, expected
from nas_core.search import Bound

HALVINGS = 12
"""Of the way back to the start."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
ROUNDING = 1e-9
"""Relative: a value as near to its bound holds it."""

Tables = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Projected:
    """What a projection came to."""

    logits: Logits
    """The very ones that were given, where they were feasible."""
    steps: int
    feasible: bool


def violation(bounds: Mapping[str, Bound], values: Mapping[str, float]) -> float:
    """Sum of relative violations; 0 where all hold, up to rounding."""
    total = sum(bound.violation(values[key]) for key, bound in bounds.items())
    return 0.0 if total <= ROUNDING else total


def distance(one: Logits, other: Logits) -> float:
    """Euclidean, of centred logits."""
    return float(np.sqrt(sum(np.square(_centred(one[name] - other[name])).sum() for name in one)))


def _centred(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(table - table.mean(axis=1, keepdims=True))


@dataclass(frozen=True)
class Projection:
    """How logits are made to hold bounds."""

    tables: Mapping[str, AdditiveTable]
    """By objective key."""
    rule: Rule
    form: Form = "straight_through"
    steps: int = 300
    lr: float = 0.05
    weight: float = 100.0

    def values(self, logits: Logits) -> dict[str, float]:
        """The relaxed costs, by key."""
        selection = None if self.form == "full" else self.rule.selection(logits)
        return {key: expected(table, self.rule, self.form, logits, selection)[0] for key, table in self.tables.items()}

    def holds(self, logits: Logits, bounds: Mapping[str, Bound]) -> bool:
        return violation(bounds, self.values(logits)) == 0

    def __call__(self, logits: Logits, bounds: Mapping[str, Bound]) -> Projected:
        """Nothing is drawn by chance, and Adam starts afresh."""
        start = {name: np.asarray(table, dtype=np.float64) for name, table in logits.items()}
        at: Tables = {name: table.copy() for name, table in start.items()}
        first: Tables = {name: np.zeros_like(table) for name, table in start.items()}
        second: Tables = {name: np.zeros_like(table) for name, table in start.items()}
        for step in range(self.steps + 1):  # the last is a look alone
            broken, slopes = self._slopes(at, bounds)
            if not broken:
                return Projected(self._back(start, at, bounds) if step else logits, step, True)
            if step == self.steps:
                break
            for name, table in at.items():
                slope = _centred(table - start[name]) + slopes[name]
                first[name] = BETAS[0] * first[name] + (1 - BETAS[0]) * slope
                second[name] = BETAS[1] * second[name] + (1 - BETAS[1]) * slope**2
                mean, square = first[name] / (1 - BETAS[0] ** (step + 1)), second[name] / (1 - BETAS[1] ** (step + 1))
                at[name] = table - self.lr * mean / (np.sqrt(square) + EPSILON)
        return Projected(_level(start, at), self.steps, False)

    def nearer(self, logits: Logits, at: Logits, bounds: Mapping[str, Bound]) -> Logits | None:
        """From ``at`` as far back as all bounds hold; None where they do not hold there."""
        if not self.holds(at, bounds):
            return None
        start = {name: np.asarray(table, dtype=np.float64) for name, table in logits.items()}
        return self._back(start, {name: table.copy() for name, table in at.items()}, bounds)

    def _slopes(self, at: Tables, bounds: Mapping[str, Bound]) -> tuple[bool, Tables]:
        """Whether any bound is broken, and the gradient of the hinges."""
        selection: Selection | None = None if self.form == "full" else self.rule.selection(at)
        total: Tables = {name: np.zeros_like(table) for name, table in at.items()}
        values = {}
        for key, bound in bounds.items():
            values[key], gradient = expected(self.tables[key], self.rule, self.form, at, selection)
            factor = 0.0
            if bound.max is not None and values[key] > bound.max:
                factor += self.weight / (abs(bound.max) or 1.0)
            if bound.min is not None and values[key] < bound.min:
                factor -= self.weight / (abs(bound.min) or 1.0)
            for name, slope in gradient.items() if factor else ():
                total[name] += factor * slope
        return violation(bounds, values) > 0, total

    def _back(self, start: Tables, at: Tables, bounds: Mapping[str, Bound]) -> Tables:
        """As near to the start as it goes while all bounds hold: first the edges that moved most."""
        found = self._along(start, _level(start, at), bounds)
        moved = [
            (float(np.square(_centred(table - start[name])[row]).sum()), name, row)
            for name, table in found.items()
            for row in range(len(table))
        ]
        for _, name, row in sorted(moved, key=lambda each: -each[0]):
            kept = found[name][row].copy()
            found[name][row] = start[name][row]
            if not self.holds(found, bounds):
                found[name][row] = kept
        return self._along(start, found, bounds)

    def _along(self, start: Tables, at: Tables, bounds: Mapping[str, Bound]) -> Tables:
        """By halving: bounds hold at the far end."""
        low, high, best = 0.0, 1.0, at
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            between = {name: start[name] + middle * (table - start[name]) for name, table in at.items()}
            if self.holds(between, bounds):
                high, best = middle, between
            else:
                low = middle
        return best


def _level(start: Tables, at: Tables) -> Tables:
    """With the mean of each edge where it was."""
    return {name: table + (start[name] - table).mean(axis=1, keepdims=True) for name, table in at.items()}


MARGIN = 1e-3
"""By how much a logit is made the largest of its edge."""


def towards(logits: Logits, selection: Selection) -> dict[str, NDArray[np.float64]]:
    """The nearest logits of which each chosen op is the strongest of its edge: it rises, and those above it fall, to
    where they meet.
    """
    found = {}
    for name, chosen in selection.items():
        table = np.array(logits[name], dtype=np.float64)
        for row in np.flatnonzero(chosen.any(axis=1)):
            here = int(chosen[row].argmax())
            above = [
                column for column in np.argsort(-table[row], kind="stable") if table[row, column] > table[row, here]
            ]
            if above:
                level = table[row, here]
                for count, column in enumerate(above, start=1):
                    if table[row, column] <= level:
                        break
                    level = (table[row, here] + table[row, above[:count]].sum()) / (count + 1)
                table[row, above] = np.minimum(table[row, above], level)
                table[row, here] = level + MARGIN
        found[name] = table
    return found
