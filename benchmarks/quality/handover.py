"""What a method hands over: twenty cells, chosen by its own signal and the cost alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_core.pareto import ranks

K = 20
Floats = NDArray[np.float64]


def hand_over(errors: Floats, costs: Floats, count: int = K, ties: np.random.Generator | None = None) -> list[int]:
    """Places of ``count`` points; of fewer points, all.

    Non-dominated layers of (error, cost) are peeled until there are as many. What the last layer has too many of is
    thinned: points are taken evenly along it, by cost, both ends among them. Equal points, of which there may be
    thousands in one layer, stand in the order drawn from ``ties``, else as NumPy's sort leaves them.

    ``errors`` (n,) is any signal of which less is better, ``costs`` (n,).
    """
    order = np.arange(len(costs)) if ties is None else ties.permutation(len(costs))
    layer = ranks(np.column_stack([errors, costs]))[order]
    last = np.sort(layer)[min(count, len(layer)) - 1] if len(layer) else 0
    whole, rest = order[layer < last], order[layer == last]
    rest = rest[np.argsort(costs[rest])]
    return [int(place) for place in (*whole, *rest[_evenly(len(rest), count - len(whole))])]


def _evenly(size: int, count: int) -> NDArray[np.intp]:
    """``count`` of ``size`` places, equally apart; all where there are no more."""
    return np.linspace(0, size - 1, min(count, size)).round().astype(np.intp)
