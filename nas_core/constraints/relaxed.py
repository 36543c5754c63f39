"""What a relaxed choice of ops costs, and how that changes with its logits: three forms of one sum over a table.

All in float64. With p the softmax of an edge's logits, q the same without ``none`` where nothing derived holds it, and
g 1 on the edges that derivation keeps: ``full`` is F + sum p R over all edges, ``gated`` F + sum g q R, and
``straight_through`` has the gradient of the second and the value of the derived network. Where an edge may end as
``none``, q is p and its entry of the table counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas_core.additive import AdditiveTable, Logits, Selection
from nas_core.architecture import Genotype
from nas_core.search import Relaxable

Form = Literal["full", "gated", "straight_through"]
Mask = NDArray[np.bool_]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis; minus infinity gives 0."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


class Rule:
    """How a space makes a network of logits, and which ops can come of that."""

    def __init__(self, space: Relaxable, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """``shapes``: of the logits by cell type."""
        self.space = space
        self.usable: dict[str, NDArray[np.bool_]] = {}
        """(ops,) by cell type: all but ``none``, unless it may win."""
        for name in shapes:
            self.usable[name] = np.array([op != "none" for op in space.ops(name)])
        if self._keeps_none(shapes):
            self.usable = {name: np.ones_like(mask) for name, mask in self.usable.items()}

    def _keeps_none(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether it makes a difference to what is derived that ``none`` is the strongest."""
        weak, strong = {}, {}
        for name, shape in shapes.items():
            is_none = ~self.usable[name]
            weak[name] = np.broadcast_to(np.where(is_none, 0.1, 0.5), shape).copy()
            strong[name] = np.broadcast_to(np.where(is_none, 0.9, 0.5), shape).copy()
        return self.space.derive(weak) != self.space.derive(strong)

    def genotype(self, logits: Logits) -> Genotype:
        """What is derived."""
        return self.space.derive({name: softmax(table) for name, table in logits.items()})

    def selection(self, logits: Logits) -> Selection:
        """The ops of what is derived."""
        return self.space.selection(self.genotype(logits))

    def chances(self, logits: Logits) -> dict[str, NDArray[np.float64]]:
        """Softmax over the ops that can win, q above."""
        return {
            name: softmax(np.where(self.usable[name], table, -np.inf) if not self.usable[name].all() else table)
            for name, table in logits.items()
        }


def expected(
    table: AdditiveTable, rule: Rule, form: Form, logits: Logits, selection: Selection | None = None
) -> tuple[float, dict[str, NDArray[np.float64]]]:
    """The relaxed cost in the table's unit, and its gradient by the logits. ``selection``: that of the logits, where it
    is known.
    """
    if form == "full":
        chances = {name: softmax(given) for name, given in logits.items()}
        kept = {name: np.ones(len(given), dtype=bool) for name, given in logits.items()}
    else:
        selection = rule.selection(logits) if selection is None else selection
        chances = rule.chances(logits)
        kept = {name: np.asarray(chosen.any(axis=1)) for name, chosen in selection.items()}
    value, gradient = table.constant, {}
    for name, p in chances.items():
        entries = table.entries[name]
        means = (p * entries).sum(axis=1)
        value += float(means[kept[name]].sum())
        gradient[name] = kept[name][:, None] * p * (entries - means[:, None])
    if form == "straight_through":
        assert selection is not None
        value = table.of(selection)
    return value, gradient
