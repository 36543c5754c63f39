"""Several signals about the quality of networks become one ranking.

Lee and Ham, "AZ-NAS" (CVPR 2024), section 3.4: the sum over signals of the logarithm of a network's rank, so that one
that any signal finds bad stands low whatever the others say. The weights are ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def agreed(signals: Floats, weights: Floats) -> Floats:
    """(n, signals), more is better, and (signals,) -> (n,), 0 at most; equal values share the mean of their ranks."""
    ranks = np.column_stack([_ranks(column) for column in signals.T])
    return np.asarray(np.log(ranks / len(signals)) @ weights, dtype=np.float64)


def _ranks(values: Floats) -> Floats:
    """From 1, the least; equal ones share the mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)


class Blend:
    """What accuracy a network deserves by several signals: that which stands where its agreement does among the
    networks seen.
    """

    def __init__(self, seen: Floats, weights: Floats) -> None:
        """``seen`` (n, signals), more is better; the first is an accuracy. ``weights`` (signals,)."""
        self.weights = weights
        self._columns = np.sort(seen, axis=0)
        self._agreed = np.sort(agreed(seen, weights))

    def __call__(self, signals: Floats) -> Floats:
        """(n, signals) -> (n,): accuracies. One signal alone stays as it is."""
        if self._columns.shape[1] == 1:
            return signals[:, 0]
        count = len(self._columns)
        total = np.zeros(len(signals))
        for column, values, weight in zip(self._columns.T, signals.T, self.weights, strict=True):
            low, high = np.searchsorted(column, values, "left"), np.searchsorted(column, values, "right")
            total += weight * np.log(np.clip((low + high + 1) / 2, 1, count) / count)
        return np.asarray(np.interp(total, self._agreed, self._columns[:, 0]), dtype=np.float64)
