"""The reference figures that this harness has to reproduce, computed by others on the same table.

Of the random ones, all cells drawn are handed over; the others rank all connected cells and hand over twenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.quality.handover import hand_over
from benchmarks.quality.oracle import Floats, macs_of
from benchmarks.quality.runs import COLUMNS, COSTS, Bench
from benchmarks.tight import Table

TOLERANCE = 0.02
DRAWS, ORDERS = 200, 40
"""Of random cells; of ties."""
SEEDS = 10
"""Whose median a reference figure of random cells is taken to be."""
COVERAGE = 0.95
RANDOM = (20, 50, 100, 500, 2000)
FIGURES = {
    "hw_raspi4_lat_ms": {"whole": 0.861046, "flops": 0.751, "e12": 0.960, "valid": 0.948},
    "lat_gold_6226_ms": {"whole": 0.863458, "flops": 0.767, "e12": 0.960, "valid": 0.930},
    "hw_eyeriss_energy_mj": {"whole": 0.856949, "flops": 0.878, "e12": 0.967, "valid": 0.967},
}
BY_CHANCE = {
    "hw_raspi4_lat_ms": (0.73, 0.81, 0.87, 0.93, 0.96),
    "lat_gold_6226_ms": (0.67, 0.78, 0.83, 0.93, 0.96),
    "hw_eyeriss_energy_mj": (0.69, 0.80, 0.85, 0.93, 0.96),
}
"""Of RANDOM cells."""


def compare(table: Table) -> list[dict[str, Any]]:
    """A line for each figure: ours, the reference, what chance makes of it, and whether it is met.

    It is met where both differ by TOLERANCE at most. Where chance has its share, a reference within the interval that
    COVERAGE of all draws hit is met, too: of medians of SEEDS draws for random cells; for signals that do not tell
    cells apart, of orders of ties.
    """
    bench = Bench.of(table, COSTS)
    connected = np.flatnonzero(table.connected)
    lines = []
    for cost in COSTS:
        measure, costs = bench.tights[cost], table.columns[cost][connected]
        errors = bench.errors[connected]

        def volume(places: Any, errors: Floats = errors, costs: Floats = costs, cost: str = cost) -> float:
            return bench.tights[cost].hypervolume(errors[places], costs[places])

        lines.append(_line(cost, "whole", measure.whole, FIGURES[cost]["whole"], []))
        for ranker in ("flops", *reversed(COLUMNS)):
            scores = -macs_of(table) if ranker == "flops" else -table.columns[COLUMNS[ranker][0]]
            orders = [
                volume(hand_over(scores[connected], costs, ties=np.random.default_rng(seed))) for seed in range(ORDERS)
            ]
            lines.append(
                _line(cost, ranker, volume(hand_over(scores[connected], costs)), FIGURES[cost][ranker], orders)
            )
        for count, reference in zip(RANDOM, BY_CHANCE[cost], strict=True):
            rng = np.random.default_rng(0)
            draws = [volume(rng.choice(len(costs), count, replace=False)) for _ in range(DRAWS)]
            medians = np.median(rng.choice(draws, (10 * DRAWS, SEEDS)), axis=1)
            lines.append(_line(cost, f"random-{count}", float(np.median(draws)), reference, medians))
    return lines


def _line(cost: str, figure: str, found: float, reference: float, draws: Sequence[float] | Floats) -> dict[str, Any]:
    rest = (1.0 - COVERAGE) / 2.0
    low, high = np.quantile(draws, [rest, 1.0 - rest]) if len(draws) else (found, found)
    within = abs(found - reference) <= TOLERANCE
    return {
        "cost": cost,
        "figure": figure,
        "found": round(found, 4),
        "reference": reference,
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "within_tolerance": within,
        "met": within or bool(low <= reference <= high),
    }
