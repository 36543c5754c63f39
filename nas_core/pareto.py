"""Pareto functions on arrays of costs: every column is minimised, ties are kept.

Exact, by moocore (Fonseca et al.; López-Ibáñez et al.); the crowding distance follows Deb et al., "NSGA-II" (2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]


def _array(costs: Sequence[Sequence[float]] | Costs) -> Costs:
    array = np.asarray(costs, dtype=np.float64)
    return array if array.ndim == 2 else array.reshape(len(array), -1) if len(array) else array.reshape(0, 1)


def non_dominated(costs: Sequence[Sequence[float]] | Costs) -> NDArray[np.bool_]:
    """(n, m) -> (n,): which points no other dominates. Equal points stay together; infinite ones never count."""
    array = _array(costs)
    finite = np.isfinite(array).all(axis=1)
    keep = np.zeros(len(array), dtype=bool)
    if finite.any():
        keep[finite] = moocore.is_nondominated(array[finite], keep_weakly=True)
    return keep


def ranks(costs: Sequence[Sequence[float]] | Costs) -> NDArray[np.int64]:
    """(n, m) -> (n,): 0 for the front, 1 for the front of the rest, ...; infinite points come last."""
    array = _array(costs)
    finite = np.isfinite(array).all(axis=1)
    result = np.zeros(len(array), dtype=np.int64)
    if finite.any():
        result[finite] = moocore.pareto_rank(array[finite])
        result[~finite] = result[finite].max() + 1
    return result


def constrained_ranks(
    costs: Sequence[Sequence[float]] | Costs, violations: Sequence[float] | Costs
) -> NDArray[np.int64]:
    """Constrained domination (Deb et al. 2002, section VI): feasible points by rank, then the rest by violation."""
    array, violation = _array(costs), np.asarray(violations, dtype=np.float64)
    feasible = violation <= 0
    result = np.zeros(len(array), dtype=np.int64)
    if feasible.any():
        result[feasible] = ranks(array[feasible])
    if not feasible.all():
        start = result[feasible].max() + 1 if feasible.any() else 0
        _, order = np.unique(violation[~feasible], return_inverse=True)
        result[~feasible] = start + order.ravel()
    return result


def crowding_distance(costs: Sequence[Sequence[float]] | Costs) -> Costs:
    """(n, m) -> (n,): perimeter of the cuboid to the neighbours, by objective range; ends are infinite."""
    array = _array(costs)
    distance = np.zeros(len(array))
    for column in array.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if span > 0 and np.isfinite(span):
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def crowding_by_rank(costs: Sequence[Sequence[float]] | Costs, rank: NDArray[np.int64]) -> Costs:
    """(n, m), (n,) -> (n,): the crowding distance of each point among those of its rank; 0 where a cost is infinite."""
    array = _array(costs)
    distance = np.zeros(len(array))
    finite = np.isfinite(array).all(axis=1)
    for level in np.unique(rank[finite]):
        members = np.flatnonzero(finite & (rank == level))
        distance[members] = crowding_distance(array[members])
    return distance


def foremost(costs: Sequence[Sequence[float]] | Costs, violations: Sequence[float] | Costs, count: int) -> list[int]:
    """Indices of up to ``count`` points, best first: by constrained rank, by crowding distance, as given."""
    rank = constrained_ranks(costs, violations)
    crowding = crowding_by_rank(costs, rank)
    return sorted(range(len(rank)), key=lambda i: (rank[i], -crowding[i], i))[:count]


def hypervolume(costs: Sequence[Sequence[float]] | Costs, reference: Sequence[float]) -> float:
    """Volume dominated up to the reference point; points that do not dominate it add nothing."""
    array = _array(costs)
    inside = array[(array < np.asarray(reference)).all(axis=1)] if array.size else array
    return float(moocore.hypervolume(inside, ref=list(reference))) if len(inside) else 0.0


def knee(costs: Sequence[Sequence[float]] | Costs) -> int | None:
    """Index of the front's point nearest to the ideal one, each cost scaled to the front's range (first on ties)."""
    array = _array(costs)
    front = np.flatnonzero(non_dominated(array))
    if not len(front):
        return None
    points = array[front]
    low = points.min(axis=0)
    span = points.max(axis=0) - low
    scaled = np.divide(points - low, span, out=np.zeros_like(points), where=span > 0)
    return int(front[int(np.argmin(np.linalg.norm(scaled, axis=1)))])


def select(
    costs: Sequence[Sequence[float]] | Costs,
    reference: Sequence[float],
    count: int,
    ties: Sequence[str],
    violations: Sequence[float] | Costs | None = None,
) -> list[int]:
    """Indices of up to ``count`` points: by rank, within a rank by greedy hypervolume contribution, ties by name.

    Points with an infinite cost are never chosen. Costs are scaled to [0, 1] between the best value and the reference
    point, so that units do not matter; what lies beyond the reference point still has a rank, but contributes 0.
    """
    array = _array(costs)
    rank = constrained_ranks(array, np.zeros(len(array)) if violations is None else violations)
    usable = np.isfinite(array).all(axis=1)
    if not usable.any():
        return []
    low = array[usable].min(axis=0)
    span = np.maximum(np.asarray(reference, dtype=np.float64) - low, 1e-12)
    scaled = (array - low) / span
    one = [1.0] * array.shape[1]
    chosen: list[int] = []
    for level in np.unique(rank[usable]):
        left = sorted(np.flatnonzero(usable & (rank == level)).tolist(), key=lambda i: ties[i])
        while left and len(chosen) < count:
            base = hypervolume(scaled[chosen], one) if chosen else 0.0
            gains = [hypervolume(scaled[[*chosen, i]], one) - base for i in left]
            chosen.append(int(left.pop(int(np.argmax(np.round(gains, 12))))))
        if len(chosen) == count:
            break
    return chosen
