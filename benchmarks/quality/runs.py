"""Runs of methods as rows: what was handed over at each budget, how good it is, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.handover import K, hand_over
from benchmarks.quality.methods import SEARCHES
from benchmarks.quality.oracle import Floats, Oracle, Signal, Spent, TableSignal, macs_of
from benchmarks.quality.supernet import SUPERNETS
from benchmarks.rows import Row
from benchmarks.tight import Table, Tight, tight

TRUTH = "c10_test_acc"
COSTS = ("hw_raspi4_lat_ms", "lat_gold_6226_ms", "hw_eyeriss_energy_mj")
MARKS = (20, 50, 100, 200, 500, 1000, 2000)
"""Evaluations after which a search's hand-over is looked at, besides its last."""
COLUMNS = {"valid": ("c10_valid_acc", 200), "e12": ("e12_c10_valid_acc", 12)}
"""By signal: the table's column and the epochs of training behind it."""
RANKERS = ("flops", "synflow", *COLUMNS, *SUPERNETS)
SIGNALS = ("synflow", *COLUMNS, *SUPERNETS)


@dataclass(frozen=True)
class Bench:
    """The table with the true values, which nothing but ``measure`` reads."""

    table: Table
    tights: dict[str, Tight]
    """By cost column."""
    errors: Floats
    """(cells,): true ones, percent."""

    @classmethod
    def of(cls, table: Table, costs: Sequence[str]) -> Bench:
        """Raises KeyError or ValueError for a column that cannot be a cost."""
        return cls(table, {cost: tight(table, TRUTH, cost) for cost in costs}, 100.0 - table.columns[TRUTH])

    def measure(self, cost: str, rows: Sequence[int], evaluations: int, spent: Spent) -> Row:
        """What these rows of the table are worth."""
        chosen, costs = np.asarray(rows, dtype=np.intp), self.table.columns[cost]
        measure = self.tights[cost]
        return {
            "evaluations": evaluations,
            "multiply_adds": spent.multiply_adds,
            "seconds": round(spent.seconds, 4),
            "hypervolume": measure.hypervolume(self.errors[chosen], costs[chosen]),
            "regret": measure.regret(self.errors[chosen], costs[chosen]),
            "archs": [self.table.archs[row] for row in chosen],
        }


def table_signal(table: Table, name: str) -> TableSignal:
    """Of COLUMNS."""
    column, epochs = COLUMNS[name]
    return TableSignal(100.0 - table.columns[column], macs_of(table), epochs)


def random_cells(bench: Bench, cost: str, seed: int, count: int) -> list[Row]:
    """Cells drawn at random, all of them handed over."""
    connected = np.flatnonzero(bench.table.connected)
    rows = np.random.default_rng(seed).choice(connected, size=min(count, len(connected)), replace=False)
    return [bench.measure(cost, rows.tolist(), 0, Spent())]


def rank_all(bench: Bench, cost: str, seed: int, scores: Floats, spent: Spent) -> list[Row]:
    """Twenty of all connected cells by a signal that is known of each: ``scores`` (cells,), less is better.

    The seed orders ties: by multiply-adds and energy, thousands of cells are equal.
    """
    connected = np.flatnonzero(bench.table.connected)
    costs = bench.table.columns[cost][connected]
    chosen = hand_over(scores[connected], costs, ties=np.random.default_rng(seed))
    return [bench.measure(cost, connected[chosen].tolist(), len(connected), spent)]


def run(bench: Bench, searcher: str, signal: Signal, cost: str, seed: int, evaluations: int) -> list[Row]:
    """One search; a row for each of MARKS that it reaches, and for its end."""
    oracle = Oracle(bench.table, signal, bench.table.columns[cost], evaluations)
    SEARCHES[searcher](oracle, seed)
    reached = len(oracle.asked)
    marks = sorted({mark for mark in MARKS if K <= mark < reached} | {reached})
    return [_at(bench, oracle, cost, mark) for mark in marks]


def equal_cost(bench: Bench, signal: Signal, cost: str, seed: int, evaluations: int, multiply_adds: float) -> Row:
    """Random search for as many multiply-adds and no more; what it could not score it hands over unscored, so that
    there are always twenty.
    """
    oracle = Oracle(bench.table, signal, bench.table.columns[cost], max(evaluations, K))
    SEARCHES["random"](oracle, seed)
    paid = sum(spent.multiply_adds <= multiply_adds for spent in oracle.spent)
    if paid >= K:
        return _at(bench, oracle, cost, paid)
    spent = oracle.spent[paid - 1] if paid else Spent()
    return bench.measure(cost, oracle.asked[:K], paid, spent)


def _at(bench: Bench, oracle: Oracle, cost: str, evaluations: int) -> Row:
    rows = np.array(oracle.asked[:evaluations], dtype=np.intp)
    chosen = hand_over(np.array(oracle.scores[:evaluations]), oracle.costs[rows])
    return bench.measure(cost, rows[chosen].tolist(), evaluations, oracle.spent[evaluations - 1])
