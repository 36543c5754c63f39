"""Which ops come back at the end of a stage: MGAS' rule (arXiv 2310.15074, by its code) after Sparse Momentum
(Dettmers, Zettlemoyer, arXiv 1907.04840). Cells and kinds of ops whose survivors have large momentum and scores are
drawn more often. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Survivors:
    """Of one cell; all are (edges, ops)."""

    alive: NDArray[np.bool_]
    momentum: Array
    """Of alpha, as its optimiser has it."""
    scores: Array
    """Sigmoid of alpha."""
    there: NDArray[np.bool_] | None = None
    """Slots that the cell has; None: all."""

    @property
    def slots(self) -> NDArray[np.bool_]:
        return np.ones_like(self.alive) if self.there is None else self.there


def importances(cells: Sequence[Survivors]) -> Array:
    """(cells, ops): the chance of each kind of op of each cell; the sum is 1.

    Half of it is momentum and half is score, of kinds within their cell times of cells among all.
    """
    kinds = [
        [_by_kind(cell.alive, of) * cell.slots.any(axis=0) for of in (np.abs(cell.momentum), cell.scores)]
        for cell in cells
    ]
    within = np.array([[_shares(means) for means in both] for both in kinds]).mean(axis=1)
    counts = np.array([max(1, cell.alive.sum()) for cell in cells])
    among = np.array([[means.sum() for means in both] for both in kinds]) / counts[:, None]
    cell_shares = np.array([_shares(column) for column in among.T]).mean(axis=0)
    return _shares(within * cell_shares[:, None])


def _by_kind(alive: NDArray[np.bool_], values: Array) -> Array:
    """(ops,): the mean of the survivors of a kind; half of the smallest such mean for one without."""
    count = alive.sum(axis=0)
    means = np.where(alive, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, means, means[count > 0].min() / 2 if count.any() else 0.0)


def _shares(values: Array) -> Array:
    total = values.sum()
    return values / total if total > 0 else np.full(values.shape, 1 / values.size)


def regrown(cells: Sequence[Survivors], draws: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Slots (cell, edge, op) of that many draws; one that falls on a kind whose slots are all taken is lost."""
    if not cells or draws < 1:
        return []
    shape = (len(cells), cells[0].alive.shape[1])
    chance = np.cumsum(importances(cells).ravel())
    taken = [cell.alive | ~cell.slots for cell in cells]
    found = []
    for place in np.searchsorted(chance, rng.random(draws) * chance[-1], side="right"):
        cell, kind = (int(index) for index in np.unravel_index(min(int(place), chance.size - 1), shape))
        free = np.flatnonzero(~taken[cell][:, kind])
        if len(free):
            edge = int(free[rng.integers(len(free))])
            taken[cell][edge, kind] = True
            found.append((cell, edge, kind))
    return found
