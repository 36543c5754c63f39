"""Rewards of several objectives, none of which needs a gradient: what TND-NAS's policy is trained on.

Lyu et al., "TND-NAS", arXiv 2111.03892. The form is that of the first author's code: accuracy in percent times one
power ratio per cost, ``acc * (cost / reference) ** exponent`` with an exponent of 0 or less; several costs enter by the
mean of such terms or by their product (which of the two was published is not confirmed; Tan et al., "MnasNet", CVPR
2019, multiply). Only values are used; nothing is differentiated through them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas_core.search import Axes

Floats = NDArray[np.float64]
Form = Literal["sum", "product"]
WIDEST = math.radians(75)
"""Between the direction that looks at accuracy alone and the one that looks most at costs."""
LARGEST_POWER = 20.0
"""Natural logarithm of the largest factor in a reward, and of the smallest: beyond, one sample would be all."""
STEEPEST = -10.0
"""Exponent of a preference: a cost that hardly varies would get any."""
LEAST_RATIO = 1e-9
ITERATIONS = 60
"""After which that root stands to the last digit."""


@dataclass(frozen=True, slots=True)
class Reward:
    """Of one preference in one stage."""

    axes: Axes
    exponents: Mapping[str, float]
    """By objective key, 0 or less: how much a cost counts. What is maximised counts the other way round by itself."""
    references: Mapping[str, float]
    """By objective key, in its unit: where a term is 1."""
    form: Form = "sum"
    bound_exponent: float = -4.0
    """Of a broken bound's term: (value / bound) ** this, (bound / value) of a lower one; always multiplied."""

    def __call__(self, accuracy: float, costs: Mapping[str, float]) -> float:
        """``accuracy`` in percent; ``costs``: values by key of every objective that does not follow from the error."""
        powers = [exponent * self._log_ratio(key, costs[key]) for key, exponent in self.exponents.items()]
        if self.form == "sum" and powers:
            value = sum(map(_exp, powers)) / len(powers)
        else:
            value = _exp(sum(powers))
        return accuracy * value * _exp(self._log_bounds(costs))

    def _log_ratio(self, key: str, value: float) -> float:
        """Of how many times as dear as the reference; a cost of 0 or less is as cheap as can be told."""
        ratio = math.log(max(value / self.references[key], LEAST_RATIO))
        return -ratio if self.axes.objectives[key].direction == "maximize" else ratio

    def _log_bounds(self, costs: Mapping[str, float]) -> float:
        term = 0.0
        for key, value in costs.items():
            bound = self.axes.bounds.get(key)
            if bound is None:
                continue
            if bound.max is not None and value > bound.max:
                term += self.bound_exponent * _log_beyond(value, bound.max)
            if bound.min is not None and value < bound.min:
                term += self.bound_exponent * _log_beyond(value, bound.min)
        return term


def _log_beyond(value: float, bound: float) -> float:
    """Of how many times a broken bound is exceeded or fallen short of: 0 at the bound, more the farther from it."""
    return abs(math.log(max(value / bound, LEAST_RATIO))) if bound else math.log1p(abs(value))


def _exp(power: float) -> float:
    """Never too large for a sum of rewards."""
    return math.exp(min(max(power, -LARGEST_POWER), LARGEST_POWER))


def directions(count: int, costs: int) -> Floats:
    """(count, 1 + costs): unit vectors of accuracy and costs, from accuracy alone to mostly costs.

    The angle to the accuracy grows evenly; with several costs its share among them follows a low-discrepancy sequence
    (Kronecker's, by powers of 1 / x where x ** (costs + 1) = x + 1, the golden ratio and what follows it), so that
    neighbours differ and all shares occur; one direction alone looks at all alike.
    """
    found = np.zeros((count, 1 + costs))
    root = 2.0
    for _ in range(ITERATIONS):
        root = (1.0 + root) ** (1.0 / (costs + 1.0))
    for place in range(count):
        angle = WIDEST * (place / (count - 1) if count > 1 else 0.5)
        draws = np.array([(0.5 + (place + 1) * root ** -(axis + 1)) % 1.0 for axis in range(costs)])
        shares = -np.log(np.clip(draws, 1e-3, 1 - 1e-3)) if costs > 1 and count > 1 else np.ones(costs)
        if costs:
            found[place, 1:] = math.sin(angle) * shares / np.linalg.norm(shares)
        found[place, 0] = math.cos(angle)
    return found


def exponents_of(direction: Floats, accuracies: Floats, costs: Floats, form: Form = "product") -> Floats:
    """(costs,): exponents, 0 or less, of a preference that looks along ``direction`` (1 + costs,) where accuracy and
    costs vary as they do in a sample: ``accuracies`` (n,) in percent, ``costs`` (n, costs), positive.

    In logarithms the product form is linear; each axis is measured by its standard deviation in the sample. In the mean
    of several ratios each counts only by its share: there exponents are as many times as steep.
    """
    spread = np.log(np.maximum(accuracies, 1.0)).std()
    spreads = np.log(np.maximum(costs, 1e-12)).std(axis=0)
    scale = np.divide(spread, spreads, out=np.zeros_like(spreads), where=spreads > 1e-9)
    scale *= len(spreads) if form == "sum" else 1
    return np.asarray(np.maximum(-direction[1:] / max(direction[0], 1e-6) * scale, STEEPEST), dtype=np.float64)


def widest_gap(costs: Floats) -> tuple[int, int] | None:
    """The two neighbours of a front (n, m) that are farthest apart, each axis scaled to the front's range; neighbours
    stand next to each other along some axis. None for fewer than two points.
    """
    if len(costs) < 2:
        return None
    span = costs.max(axis=0) - costs.min(axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(span > 0, span, 1.0)
    pairs: set[tuple[int, int]] = set()
    for axis in range(costs.shape[1]):
        order = np.argsort(scaled[:, axis], kind="stable").tolist()
        pairs.update((min(a, b), max(a, b)) for a, b in itertools.pairwise(order))
    return max(sorted(pairs), key=lambda pair: float(np.linalg.norm(scaled[pair[0]] - scaled[pair[1]])))
