"""Medians over seeds with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 10_000
COVERAGE = 0.95
DECILES = 10


@dataclass(frozen=True)
class Estimate:
    """A median over seeds and the ends of its percentile bootstrap interval; of one seed both are the median."""

    median: float
    low: float
    high: float
    seeds: int

    def to_json(self) -> dict[str, float | int]:
        return {"median": self.median, "low": self.low, "high": self.high, "seeds": self.seeds}


def estimate(values: Sequence[float]) -> Estimate:
    """Of one value a seed (Efron 1979; seeds are drawn anew, always in the same way)."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise ValueError("a median needs at least one value")
    draws = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    rest = (1.0 - COVERAGE) / 2.0
    low, high = np.quantile(np.median(array[draws], axis=1), [rest, 1.0 - rest])
    return Estimate(float(np.median(array)), float(low), float(high), len(array))


def paired(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Of the differences to a baseline, seed by seed."""
    return estimate([mine - theirs for mine, theirs in zip(values, baseline, strict=True)])


def spearman(one: Sequence[float] | Floats, other: Sequence[float] | Floats) -> float:
    """Rank correlation; ties get their mean rank. NaN where one of both has no two different values."""
    ranked = [_mean_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other)]
    centred = [values - values.mean() for values in ranked]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else float("nan")


def by_decile(one: Floats, other: Floats, costs: Floats) -> list[float]:
    """Rank correlation among the cells of each tenth by cost, from the cheapest; all arrays (n,)."""
    return [spearman(one[part], other[part]) for part in np.array_split(np.argsort(costs, kind="stable"), DECILES)]


def _mean_ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[places]
