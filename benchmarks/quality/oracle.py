"""What a method may ask about a cell of NAS-Bench-201, and what the asking costs.

True values stand apart: no signal has seen a test image. Cost is counted in multiply-adds: three times the forward ones
for each image that a network is trained on, once for each that it is only run on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.tight import Table
from nas_core.architecture import Genotype
from nas_core.spaces.nasbench201 import to_arch

Floats = NDArray[np.float64]
TRAINING_IMAGES = 25_000
"""The half of CIFAR-10 that the benchmark trains on before it looks at the other half."""
TRAINING = 3
"""Multiply-adds of a training step, in forward passes."""
CLASSIFIER_BIAS = 10
"""Counted by the benchmark as multiply-adds; not by us."""


@dataclass(frozen=True)
class Spent:
    """What was paid for."""

    multiply_adds: float = 0.0
    seconds: float = 0.0
    """Of the processor, on the machine at hand."""


@dataclass(frozen=True)
class Answer:
    """A signal's number for a cell, less is better, and its price."""

    score: float
    price: Spent


class Signal(Protocol):
    """Says something about any connected cell without a test image."""

    @property
    def preparation(self) -> Spent:
        """What was paid before the first answer."""
        ...

    def __call__(self, row: int) -> Answer:
        """Of a row of the table."""
        ...


def macs_of(table: Table) -> Floats:
    """(cells,): forward multiply-adds of one image of 32 x 32 pixels in the benchmark's network."""
    return table.columns["flops_m"] * 1e6 - CLASSIFIER_BIAS


@dataclass(frozen=True)
class TableSignal:
    """A validation accuracy of the table, charged with the training behind it; looking it up takes no time."""

    errors: Floats
    """(cells,), percent."""
    macs: Floats
    """(cells,), of one image."""
    epochs: int
    preparation: Spent = Spent()

    def __call__(self, row: int) -> Answer:
        price = self.epochs * TRAINING_IMAGES * TRAINING * self.macs[row]
        return Answer(float(self.errors[row]), Spent(float(price)))


class OutOfBudgetError(Exception):
    """A cell was asked for beyond the budget."""


class Oracle:
    """Answers a method with (score, cost) of cells until the budget is used up, and keeps what was asked.

    A cell asked for again is answered again, free of charge.
    """

    def __init__(self, table: Table, signal: Signal, costs: Floats, budget: int) -> None:
        """``costs`` (cells,) is the column to be minimised beside the signal; ``budget`` counts distinct cells."""
        self.table, self.signal, self.costs, self.budget = table, signal, costs, budget
        self.asked: list[int] = []
        """Rows of the table, in the order of asking."""
        self.scores: list[float] = []
        self.spent: list[Spent] = []
        """From the start up to each answer, the preparation included."""
        self._places = {arch: row for row, arch in enumerate(table.archs)}
        self._answers: dict[int, float] = {}
        self._paid = signal.preparation
        self._since = time.process_time()

    @property
    def used_up(self) -> bool:
        return len(self.asked) >= self.budget

    def __call__(self, genotype: Genotype) -> tuple[float, float]:
        """Raises OutOfBudgetError for one more cell than the budget has, ValueError for one that does not connect."""
        row = self._places[to_arch(genotype)]
        if row not in self._answers:
            self._answers[row] = self._ask(row)
        return self._answers[row], float(self.costs[row])

    def _ask(self, row: int) -> float:
        if self.used_up:
            raise OutOfBudgetError(f"the budget of {self.budget} cells is used up")
        if not self.table.connected[row]:
            raise ValueError(f"the cell {self.table.archs[row]} does not connect; no method may ask for it")
        own = time.process_time() - self._since
        answer = self.signal(row)
        paid = self._paid
        self._paid = Spent(paid.multiply_adds + answer.price.multiply_adds, paid.seconds + own + answer.price.seconds)
        self.asked.append(row)
        self.scores.append(answer.score)
        self.spent.append(self._paid)
        self._since = time.process_time()
        return answer.score
