"""A shared supernet of nas_core as a signal: trained on real images, it scores a cell with the weights it inherits."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.methods import Column
from benchmarks.quality.oracle import TRAINING, Answer, Spent
from benchmarks.tight import Table
from nas_core import checkpoint, settings
from nas_core.data import Splits
from nas_core.objectives.error import Error
from nas_core.recipe import SupernetTraining
from nas_core.scoring import OnSupernet
from nas_core.search import Axes, Budget, Problem
from nas_core.spaces.nasbench201 import NasBench201, from_arch

PREFIX = "supernet-"
SUPERNETS = {f"{PREFIX}{epochs}": seeds for epochs, seeds in ((240, 2), (480, 1), (960, 1))}
"""Signals by epochs of training: how many there are, each with a seed of its own. On the machine that this was written
on they took 700, 1,430 and 2,810 seconds of one core."""
RECIPE = SupernetTraining(
    supernet_epochs=1,
    batch=128,
    lr=0.05,
    average=0.999,
    draws=8,
    shrink=4,
    score="expected_error",
    score_images=500,
)
KEEP_SECONDS = 60
"""Of the processor between checkpoints."""


@dataclass(frozen=True)
class Plan:
    """How a supernet is trained and asked; everything that its scores depend on."""

    training: SupernetTraining
    channels: int = 16
    cells: int = 5
    """Of the whole stack, two reduction blocks among them."""
    seed: int = 0

    @property
    def name(self) -> str:
        """Tells plans apart in a cache."""
        text = json.dumps([settings.dump(self.training), self.channels, self.cells, self.seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def plan(name: str, seed: int) -> Plan:
    """Of one of SUPERNETS."""
    return Plan(replace(RECIPE, supernet_epochs=int(name.removeprefix(PREFIX))), seed=seed)


def of_a_supernet(name: str) -> bool:
    return name in SUPERNETS


class SupernetSignal:
    """Scores rows of the table; what was trained and scored is kept in a folder, and a run that was cut goes on."""

    def __init__(self, table: Table, plan: Plan, images: Callable[[int], Splits], folder: Path) -> None:
        """``images`` gives the splits of a seed; they are not read where everything is known already."""
        self.table, self.plan, self.images = table, plan, images
        self.weights = folder / f"supernet-{plan.name}.pt"
        self.scores = folder / f"supernet-{plan.name}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[int, tuple[float, float]] = {}
        if self.scores.exists():
            for line in self.scores.read_text().splitlines():
                row, score, seconds = json.loads(line)
                self._known[row] = score, seconds

    @cached_property
    def preparation(self) -> Spent:
        """Of the training. A step costs what the costliest of its drawn paths does on average: they are uniform over
        connected cells.
        """
        macs = np.sort(self._macs[self.table.connected])
        chances = np.diff((np.arange(len(macs) + 1) / len(macs)) ** self.plan.training.draws)
        images = self._trained["images"]
        return Spent(TRAINING * images * float((macs * chances).sum()), self._trained["seconds"])

    def __call__(self, row: int) -> Answer:
        if row not in self._known:
            scorer, start = self._scorer, time.process_time()
            score = scorer.score(from_arch(self.table.archs[row]))
            self._known[row] = score, time.process_time() - start
            with self.scores.open("a") as file:
                file.write(json.dumps([row, *self._known[row]]) + "\n")
        score, seconds = self._known[row]
        judges = self.plan.training.score_images
        assert judges is not None
        return Answer(score, Spent(judges * float(self._macs[row]), seconds))

    @cached_property
    def _trained(self) -> dict[str, Any]:
        if not self.weights.exists() or not checkpoint.load(self.weights)["whole"]:
            self._train()
        return checkpoint.load(self.weights)

    @cached_property
    def _scorer(self) -> OnSupernet:
        trained = self._trained
        scorer = self._new()
        scorer.resume(trained["state"])
        return scorer

    @cached_property
    def _macs(self) -> Any:
        """(cells,): forward multiply-adds of one image in the supernet."""
        table = SPACE.cost_table(self._skeleton(), "macs")
        return np.array([table.of(SPACE.selection(from_arch(arch))) for arch in self.table.archs], dtype=np.float64)

    def _skeleton(self) -> Any:
        side = 32 // self.plan.training.shrink
        space = NasBench201(cells=self.plan.cells, channels=self.plan.channels)
        return space.skeleton((3, side, side), 10)

    def _new(self) -> OnSupernet:
        plan = self.plan
        space = NasBench201(cells=plan.cells, channels=plan.channels)
        skeleton = space.skeleton((3, 32, 32), 10)
        problem: Problem[Any] = Problem(
            space=space,
            axes=Axes({"error": Error(), "cost": Column()}),
            skeleton=skeleton,
            targets=(skeleton,),
            budget=Budget(evaluations=1, epochs=plan.training.supernet_epochs),
            seed=plan.seed,
            rng=np.random.default_rng(plan.seed),
            device=torch.device("cpu"),
            splits=self.images(plan.seed),
        )
        return OnSupernet(plan.training, problem)

    def _train(self) -> None:
        scorer, spent, kept = self._new(), 0.0, 0.0
        if self.weights.exists():
            before = checkpoint.load(self.weights)
            scorer.resume(before["state"])
            spent = kept = before["seconds"]
        start = time.process_time() - spent
        for progress in scorer.prepare():
            spent = time.process_time() - start
            whole = progress.step == progress.total
            if whole or spent - kept > KEEP_SECONDS:
                kept = spent
                images = progress.step * (scorer.train.size // self.plan.training.batch) * self.plan.training.batch
                state = {"state": scorer.state(), "seconds": spent, "images": images, "whole": whole}
                checkpoint.save(state, self.weights)
                start = time.process_time() - spent  # keeping it is not training


SPACE = NasBench201()
