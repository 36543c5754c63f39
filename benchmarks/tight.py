"""How good a set of NAS-Bench-201 cells is: tight hypervolume, and regret under cost bounds.

The hypervolume on the full range says little: cells chosen by counting multiply-adds, without any training, reach
0.987 of it. Tight means that only what is near the true front counts. With the error e = 100 - accuracy in percent and
a cost c, over connected cells: e_min is the least error of the table, c_min and c_max are the smallest and the largest
cost on the true front among cells with e of at most 12. f1 = (e - e_min) / (12 - e_min) and
f2 = (c - c_min) / (1.1 (c_max - c_min)), no less than 0; points with f1 or f2 of 1 or more do not count. The
hypervolume up to (1, 1) is divided by that of the whole table.

NAS-Bench-201: Dong and Yang, ICLR 2020. The table is one file of the data folder, ``nasbench201.csv.gz``.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas_core.pareto import hypervolume, non_dominated

FILE = "nasbench201.csv.gz"
MOST_ERROR = 12.0
"""Percent; what has more is no network that anybody wants."""
STRETCH = 1.1
"""So that the dearest point of the front counts, too."""
BOUNDS = 10
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Columns over the cells of the benchmark, in the file's order."""

    archs: tuple[str, ...]
    """Arch strings."""
    connected: NDArray[np.bool_]
    """(cells,)"""
    columns: Mapping[str, Floats]
    """(cells,) each; NaN where nothing was measured. Accuracies in percent."""

    def rows(self, archs: Sequence[str]) -> NDArray[np.intp]:
        """Where these cells stand. Raises KeyError for one that the table does not have."""
        places = {arch: row for row, arch in enumerate(self.archs)}
        return np.array([places[arch] for arch in archs], dtype=np.intp)


def load_table(folder: Path) -> Table:
    """``nasbench201.csv.gz`` of a folder. Raises OSError where it is not there."""
    with gzip.open(folder / FILE, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        names = next(rows)
        cells = list(rows)
    texts = dict(zip(names, zip(*cells, strict=True), strict=True))
    numbers = {
        name: np.array([float(text) if text else np.nan for text in column])
        for name, column in texts.items()
        if name not in ("arch", "connected")
    }
    return Table(tuple(texts["arch"]), np.array([text == "1" for text in texts["connected"]]), numbers)


@dataclass(frozen=True)
class Tight:
    """The measure for one accuracy column and one cost column of a table."""

    e_min: float
    """Percent."""
    c_min: float
    c_max: float
    whole: float
    """Hypervolume of the whole table."""
    bounds: Floats
    """(10,): cost bounds from c_min to c_max, equally apart."""
    best: Floats
    """(10,): the least error of the table under each, percent."""

    def hypervolume(self, errors: Floats, costs: Floats) -> float:
        """Share of the whole table's that these points have; ``errors`` (n,) in percent, ``costs`` (n,)."""
        return self._volume(errors, costs) / self.whole

    def regret(self, errors: Floats, costs: Floats) -> float:
        """Percent points that the best of these under a bound is worse than the best of the table, mean of the bounds.

        Where no point holds a bound, or the best has more, an error of 12 counts.
        """
        own = [np.min(errors[costs <= bound], initial=MOST_ERROR) for bound in self.bounds]
        return float(np.mean(np.array(own) - self.best))

    def _volume(self, errors: Floats, costs: Floats) -> float:
        return _volume(errors, costs, self.e_min, self.c_min, self.c_max)


def _volume(errors: Floats, costs: Floats, e_min: float, c_min: float, c_max: float) -> float:
    f1 = np.maximum((errors - e_min) / (MOST_ERROR - e_min), 0.0)
    f2 = np.maximum((costs - c_min) / (STRETCH * (c_max - c_min)), 0.0)
    return hypervolume(np.column_stack([f1, f2]), (1.0, 1.0))


def tight(table: Table, accuracy: str, cost: str) -> Tight:
    """The measure taken from the connected cells of ``table``.

    Raises KeyError for an unknown column, ValueError for one with a missing value.
    """
    errors = 100.0 - table.columns[accuracy][table.connected]
    costs = table.columns[cost][table.connected]
    for name, values in ((accuracy, errors), (cost, costs)):
        if not np.isfinite(values).all():
            raise ValueError(f"column '{name}' has {np.count_nonzero(~np.isfinite(values))} cells without a value")
    front = non_dominated(np.column_stack([errors, costs])) & (errors <= MOST_ERROR)
    e_min, c_min, c_max = (float(value) for value in (errors.min(), costs[front].min(), costs[front].max()))
    bounds = np.linspace(c_min, c_max, BOUNDS)
    best = np.array([errors[costs <= bound].min(initial=MOST_ERROR) for bound in bounds])
    return Tight(e_min, c_min, c_max, _volume(errors, costs, e_min, c_min, c_max), bounds, best)
