"""Networks that hold bounds, by exchanging single ops of one that does not: each time the op that takes away violation
at the least loss of log-probability for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from nas_core.additive import AdditiveTable, Logits, Selection
from nas_core.architecture import Genotype
from nas_core.constraints.projection import ROUNDING, violation
from nas_core.constraints.relaxed import Rule
from nas_core.search import Bound

MOST_STEPS = 1000
RESTARTS = 30
"""From random networks, where nothing near to the derived one holds the bounds."""
SMALL = 1e-9
Floats = NDArray[np.float64]


class Repair:
    """Of the networks of one space; the log-probabilities of ops are those of the logits."""

    def __init__(
        self, tables: Mapping[str, AdditiveTable], rule: Rule, logits: Logits, bounds: Mapping[str, Bound]
    ) -> None:
        self.rule, self.bounds, self.logits = rule, bounds, logits
        self.tables = {key: tables[key] for key in bounds}
        chances = rule.chances(logits)
        self.log = {name: np.log(np.maximum(p, 1e-300)) for name, p in chances.items()}

    def __call__(self, rng: np.random.Generator, restarts: int = RESTARTS) -> Genotype | None:
        """The derived network where it holds all bounds, else what is nearest by greedy exchange; None where no such
        exchange leads to one, nor from the cheapest and dearest networks, nor from so many random ones.
        """
        derived = self.rule.selection(self.logits)
        for selection in (derived, *self._others(rng, restarts)):
            found = self._descend(selection)
            if found is not None:
                if selection is not derived:
                    found = self._ascend(found)
                return self._genotype(found)
        return None

    def near(self) -> Selection | None:
        """The ops of the network that exchanges lead to from the derived one; None where they lead to none."""
        return self._descend(self.rule.selection(self.logits))

    def _others(self, rng: np.random.Generator, restarts: int) -> Iterator[Selection]:
        space = self.rule.space
        for table in self.tables.values():
            for sign in (1.0, -1.0):
                yield space.selection(extreme(self.rule, table, sign < 0))
        for _ in range(restarts):
            yield space.selection(space.sample(rng))

    # --- what a network is ------------------------------------------------------------------------------------

    def _genotype(self, selection: Selection) -> Genotype:
        """The network of these ops, or where there is none, the nearest that the space makes of them."""
        return self.rule.space.derive(self._strengths(selection))

    def _strengths(self, selection: Selection) -> dict[str, Floats]:
        """From which the space derives the selection."""
        strengths = {}
        for name, chosen in selection.items():
            is_none = np.array([op == "none" for op in self.rule.space.ops(name)])
            absent = ~chosen.any(axis=1, keepdims=True) & is_none & self.rule.usable[name]
            strengths[name] = np.where(chosen | absent, 1.0, 1e-9)
        return strengths

    def _broken(self, selection: Selection) -> float:
        return violation(self.bounds, {key: table.of(selection) for key, table in self.tables.items()})

    # --- the way ----------------------------------------------------------------------------------------------

    def _descend(self, selection: Selection) -> Selection | None:
        for _ in range(MOST_STEPS):
            broken = self._broken(selection)
            if broken == 0:
                return selection
            better = next(self._better(selection, broken), None)
            if better is None:
                return None
            selection = better
        return None

    def _better(self, selection: Selection, broken: float) -> Iterator[Selection]:
        """Networks of less violation, the best bargain first: one op exchanged; then two; then another edge."""
        moves = _Moves(self, selection)
        yield from self._real(moves.single(broken), broken)
        yield from self._real(moves.pairs(broken), broken)
        yield from self._rewired(selection, broken)

    def _real(self, found: Iterator[Selection], broken: float) -> Iterator[Selection]:
        """Those that are networks of the space as they stand; of others what it makes of them, if that is better."""
        for selection in found:
            real = self.rule.space.selection(self._genotype(selection))
            if self._broken(real) < broken - SMALL:
                yield real

    def _rewired(self, selection: Selection, broken: float) -> Iterator[Selection]:
        """One edge more, and out for it what the space leaves out."""
        found: list[tuple[float, int, Selection]] = []
        strengths, chances = self._strengths(selection), self.rule.chances(self.logits)
        strengths = {name: there + 0.5 * chances[name] for name, there in strengths.items()}
        for name, chosen in selection.items():
            for row in np.flatnonzero(~chosen.any(axis=1)):
                for column in np.flatnonzero(self.rule.usable[name]):
                    tried = {**strengths, name: strengths[name].copy()}
                    tried[name][row, column] = 3.0
                    real = self.rule.space.selection(self.rule.space.derive(tried))
                    left = self._broken(real)
                    if left < broken - SMALL:
                        found.append((left, len(found), real))
        yield from (real for _, _, real in sorted(found, key=lambda each: each[:2]))

    def _ascend(self, selection: Selection) -> Selection:
        """From a network far from the derived one: likelier ops as long as all bounds hold."""
        for _ in range(MOST_STEPS):
            for better in _Moves(self, selection).likelier():
                real = self.rule.space.selection(self._genotype(better))
                if self._broken(real) == 0 and self._log(real) > self._log(selection) + SMALL:
                    selection = real
                    break
            else:
                return selection
        return selection

    def _log(self, selection: Selection) -> float:
        return sum(float(self.log[name][chosen].sum()) for name, chosen in selection.items())


class _Moves:
    """Single exchanges of an op on an edge that is there, as columns of numbers."""

    def __init__(self, repair: Repair, selection: Selection) -> None:
        self.repair, self.selection = repair, selection
        self.places: list[tuple[str, int, int]] = []
        rows: list[int] = []
        gains: list[float] = []
        costs: list[list[float]] = []
        tables, number = repair.tables.values(), 0
        for name, chosen in selection.items():
            for row in np.flatnonzero(chosen.any(axis=1)):
                number, here = number + 1, int(chosen[row].argmax())
                for column in np.flatnonzero(repair.rule.usable[name]):
                    if column != here:
                        self.places.append((name, int(row), int(column)))
                        rows.append(number)
                        gains.append(float(repair.log[name][row, column] - repair.log[name][row, here]))
                        costs.append([float(t.entries[name][row, column] - t.entries[name][row, here]) for t in tables])
        self.rows = np.array(rows)
        """Which edge a move is of."""
        self.gains = np.array(gains, dtype=np.float64)
        """Of log-probability."""
        self.costs = np.array(costs, dtype=np.float64).reshape(len(gains), len(repair.tables))
        self.total = np.array([table.of(selection) for table in tables], dtype=np.float64)

    def _left(self, costs: Floats) -> Floats:
        """Violation behind changes of costs (..., resources)."""
        total = np.zeros(costs.shape[:-1])
        for place, bound in enumerate(self.repair.bounds.values()):
            value = self.total[place] + costs[..., place]
            if bound.max is not None:
                total += np.maximum(0.0, value - bound.max) / (abs(bound.max) or 1.0)
            if bound.min is not None:
                total += np.maximum(0.0, bound.min - value) / (abs(bound.min) or 1.0)
        return np.where(total <= ROUNDING, 0.0, total)

    def _with(self, *moves: int) -> Selection:
        changed = {name: chosen.copy() for name, chosen in self.selection.items()}
        for move in moves:
            name, row, column = self.places[move]
            changed[name][row] = False
            changed[name][row, column] = True
        return changed

    def single(self, broken: float) -> Iterator[Selection]:
        removed = broken - self._left(self.costs)
        useful = np.flatnonzero(removed > SMALL)
        prices = -self.gains[useful] / removed[useful]
        yield from (self._with(int(useful[place])) for place in np.argsort(prices, kind="stable"))

    def pairs(self, broken: float) -> Iterator[Selection]:
        one, other = np.triu_indices(len(self.places), 1)
        apart = self.rows[one] != self.rows[other]
        one, other = one[apart], other[apart]
        removed = broken - self._left(self.costs[one] + self.costs[other])
        useful = np.flatnonzero(removed > SMALL)
        prices = -(self.gains[one] + self.gains[other])[useful] / removed[useful]
        for place in np.argsort(prices, kind="stable"):
            yield self._with(int(one[useful[place]]), int(other[useful[place]]))

    def likelier(self) -> Iterator[Selection]:
        fits = np.flatnonzero((self._left(self.costs) == 0) & (self.gains > SMALL))
        yield from (self._with(int(fits[place])) for place in np.argsort(-self.gains[fits], kind="stable"))


def extreme(rule: Rule, table: AdditiveTable, highest: bool) -> Genotype:
    """The network of the smallest or largest cost: what the space derives where the cheapest, or dearest, is strongest.

    Exact where a space derives the network of the largest product of strengths, or the strongest edges of each node.
    """
    widest = max((float(np.abs(entries).max(initial=0.0)) for entries in table.entries.values()), default=0.0) or 1.0
    sign = 1.0 if highest else -1.0
    strengths = {}
    for name, entries in table.entries.items():
        strengths[name] = np.exp(sign * entries / widest)
        if not rule.usable[name].all():
            strengths[name][:, ~rule.usable[name]] = 0.0
    return rule.space.derive(strengths)
