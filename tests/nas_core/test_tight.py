"""The tight hypervolume that searches over NAS-Bench-201 are scored by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tight import Table, load_table, tight
from nas_core.pareto import non_dominated

FIGURES = {
    "hw_raspi4_lat_ms": (4.755259, 68.404108, 0.861046),
    "lat_gold_6226_ms": (5.0094, 16.0086, 0.863458),
    "hw_eyeriss_energy_mj": (0.378212, 1.631061, 0.856949),
}
"""By cost: c_min, c_max and the whole table's hypervolume, as known; the error is that of the test."""


def made() -> Table:
    """Four cells on the front, of which one has an error of more than 12, one behind it, and one that is no network."""
    errors = np.array([4.0, 6.0, 10.0, 30.0, 20.0, 90.0])
    costs = np.array([30.0, 20.0, 10.0, 1.0, 40.0, 0.0])
    connected = np.array([True] * 5 + [False])
    return Table(tuple("abcdef"), connected, {"acc": 100 - errors, "ms": costs})


def test_a_table_whose_figure_is_known() -> None:
    measure = tight(made(), "acc", "ms")
    assert (measure.e_min, measure.c_min, measure.c_max) == (4.0, 10.0, 30.0)
    # f1, f2 of the front: (0, 20/22), (1/4, 10/22), (3/4, 0)
    assert measure.whole == pytest.approx(1 / 4 * (1 - 20 / 22) + 1 / 2 * (1 - 10 / 22) + 1 / 4)
    table = made()
    errors, costs = 100 - table.columns["acc"], table.columns["ms"]
    assert measure.hypervolume(errors[:5], costs[:5]) == pytest.approx(1.0)
    assert measure.hypervolume(errors[2:3], costs[2:3]) == pytest.approx(0.25 / measure.whole)
    assert measure.hypervolume(errors[3:4], costs[3:4]) == 0.0, "what has too much error counts nothing"


def test_regret_under_bounds() -> None:
    measure, table = tight(made(), "acc", "ms"), made()
    errors, costs = 100 - table.columns["acc"], table.columns["ms"]
    assert measure.bounds.tolist() == pytest.approx(np.linspace(10, 30, 10).tolist())
    assert measure.best.tolist() == [10.0] * 5 + [6.0] * 4 + [4.0]
    assert measure.regret(errors[:3], costs[:3]) == 0.0
    rows = table.rows(["b"])
    assert measure.regret(errors[rows], costs[rows]) == pytest.approx((5 * (12 - 10) + 2) / 10)


def test_a_missing_value_is_no_number() -> None:
    table = made()
    table.columns["ms"][1] = np.nan
    with pytest.raises(ValueError, match="column 'ms' has 1 cells without a value"):
        tight(table, "acc", "ms")
    with pytest.raises(KeyError):
        table.rows(["z"])


def test_figures_of_the_benchmark(nasbench201: Path) -> None:
    table = load_table(nasbench201.parent)
    assert (len(table.archs), int(table.connected.sum())) == (15_625, 15_284)
    for cost, figures in FIGURES.items():
        measure = tight(table, "c10_test_acc", cost)
        assert (measure.c_min, measure.c_max, measure.whole) == pytest.approx(figures, abs=1e-6)
        assert measure.e_min == pytest.approx(5.6267, abs=1e-4)
        errors, costs = 100 - table.columns["c10_test_acc"], table.columns[cost]
        front = np.flatnonzero(table.connected)
        front = front[non_dominated(np.column_stack([errors[front], costs[front]]))]
        assert measure.hypervolume(errors[front], costs[front]) == pytest.approx(1.0)
        assert measure.regret(errors[front], costs[front]) == pytest.approx(0.0)
