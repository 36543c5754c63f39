"""The supernet of a search in stages: how it learns, and what it says of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from nas_core.architecture import Genotype
from nas_core.data import Augmentation, first_drawn, shrunk
from nas_core.recipe import TRAINING_PASSES, shrunk_input
from nas_core.search import Problem, Relaxable
from nas_core.supernet import Supernet
from nas_core.supernet.fused import fuse_where_faster
from nas_core.supernet.network import Gates, Selection
from nas_core.supernet.weights import (
    AveragedWeights,
    WeightLearner,
    batch_errors,
    choice_of,
    forever,
    make_supernet,
    supernet_errors,
)
from nas_core.training import seed_of
from nas_core.training.room import room_for

GLANCE_IMAGES = 500
"""Validation images on which networks are scored on the way, for the events alone."""


class SharedWeights:
    """A supernet with its optimiser, on images made ``shrink`` times smaller; ``build`` comes first.

    ``average``: decay, a step, of the moving average that networks are scored with, 0: none. ``score``: what stands for
    a network's error. ``score_images``: validation images that judge networks in the end, all of them by default.
    """

    supernet: Supernet
    learner: WeightLearner
    averaged: AveragedWeights | None

    def __init__(
        self,
        problem: Problem[Relaxable],
        *,
        shrink: int,
        augment: bool,
        average: float,
        score: Literal["error", "expected_error"],
        score_images: int | None,
    ) -> None:
        self.problem, self.shrink, self.average, self.kind = problem, shrink, average, score
        splits = problem.splits
        self.train, self.validation = shrunk(splits.train, shrink), shrunk(splits.validation, shrink)
        self.augmentation = (splits.augmentation if augment else Augmentation()).shrunk(shrink)
        self.judges = shrunk(first_drawn(splits.validation, score_images, seed_of(problem.seed, "judges")), shrink)
        self.onlookers = first_drawn(self.judges, GLANCE_IMAGES, seed_of(problem.seed, "onlookers"))
        self.spent = 0.0
        """Multiply-adds: three times the forward ones for each image trained on, once for each that is only run on."""

    def build(self, cells: int | None, seed: int, *, epochs: int, lr: float, weight_decay: float) -> None:
        """Fresh weights, of so many cells (default: as the problem has) and for so many epochs."""
        problem, skeleton = self.problem, self.problem.skeleton
        if cells is not None:
            skeleton = problem.space.skeleton(
                skeleton.input, skeleton.classes, cells=cells, channels=skeleton.channels, stem=skeleton.stem
            )
        skeleton = replace(skeleton, input=shrunk_input(skeleton.input, self.shrink, "shrink"))
        made = make_supernet(lambda: problem.space.supernet(skeleton), seed, problem.device)
        self.supernet = fuse_where_faster(made)
        self.learner = WeightLearner(
            self.supernet, epochs=epochs, lr=lr, weight_decay=weight_decay, pieces=problem.pieces
        )
        self.averaged = AveragedWeights(self.supernet, self.average) if self.average else None
        self.macs = problem.space.cost_table(skeleton, "macs")

    @property
    def scoring(self) -> Supernet:
        """With the weights that networks are scored with."""
        return self.supernet if self.averaged is None else self.averaged.supernet

    def training_batches(self, batch: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch's."""
        return self.train.batches(batch, order, self.augmentation, self.problem.device)

    def validation_batches(self, batch: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Without end."""
        return forever(lambda: self.validation.batches(batch, order, self.augmentation, self.problem.device))

    def step(self, images: Tensor, labels: Tensor, gates: Gates | None, active: Selection) -> None:
        """One step of the optimiser on what is active."""
        self.learner.step(images, labels, (gates, active))
        self.spent += TRAINING_PASSES * len(labels) * self.macs.of(active)
        if self.averaged is not None:
            self.averaged.follow()

    def error(self, genotype: Genotype, images: Tensor, labels: Tensor) -> float:
        """What stands for a network's error, 0 to 1, on one batch with its statistics."""
        active = self.problem.space.selection(genotype)
        self.spent += len(labels) * self.macs.of(active)
        with room_for(len(labels), self.problem.pieces, images.device):
            wrong, expected = batch_errors(self.scoring, images, labels, (None, active))
        return float(wrong if self.kind == "error" else expected) / len(labels)

    def score(self, genotype: Genotype, onlookers: bool = False) -> float:
        """What stands for its error, 0 to 1, on the images that judge all alike; ``onlookers``: on some of them."""
        problem = self.problem
        choice = choice_of(problem.space, genotype, problem.device)
        split = self.onlookers if onlookers else self.judges
        self.spent += split.size * self.macs.of(problem.space.selection(genotype))
        error, expected = supernet_errors(self.scoring, split, choice, problem.device, problem.pieces)
        problem.between_steps()
        return error if self.kind == "error" else expected
