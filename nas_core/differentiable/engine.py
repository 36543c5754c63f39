"""The loop of all differentiable searches (DARTS, arXiv 1806.09055, algorithm 1): epochs of alternating steps of the
architecture by a validation batch and of the weights by a training batch.

After every epoch a relaxation's cells are derived and scored, their ops alone, on all of validation; what was derived
is scored once more on the final supernet, so that the search front compares one protocol; so are the job's seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_core.architecture import Edge, Genotype, genotype_from_json, genotype_to_json
from nas_core.costs import count_layers, op_layers
from nas_core.data import share_of
from nas_core.differentiable.bilevel import Loss, VirtualStep, gradients, second_order
from nas_core.differentiable.relaxation import Relaxation
from nas_core.differentiable.steps import Steps
from nas_core.errors import InvalidSettingsError
from nas_core.events import Checkpoint, Progress, Propose
from nas_core.groups import ALONE
from nas_core.scoring import data_values
from nas_core.search import Problem, Relaxable, Search
from nas_core.supernet import Supernet
from nas_core.supernet.fused import fuse, fuse_where_faster
from nas_core.supernet.weights import (
    Choice,
    WeightLearner,
    at_rest,
    choice_of,
    forever,
    make_supernet,
    supernet_errors,
)
from nas_core.training import seed_of
from nas_core.training.room import in_pieces, room_for
from nas_core.values import GOALS, Value

Batch = tuple[Tensor, Tensor]
"""Images (N, C, H, W) and labels (N,)."""


def new_supernet(problem: Problem[Relaxable], share_features: bool) -> Supernet:
    """The problem's, its first weights from the job's seed."""
    return make_supernet(
        lambda: problem.space.supernet(problem.skeleton, share_features=share_features),
        seed_of(problem.seed, "supernet"),
        problem.device,
    )


def is_parameter_free(op: str) -> bool:
    """Whether an op has nothing to learn at stride 1: skips, pools, ``none``."""
    return count_layers(op_layers(Edge(1, 0, op), 2, 1), (1, 1)).params == 0


def parameter_free_share(genotype: Genotype) -> float:
    """Of the ops of all cells that are no reduction cells, which often pool in good networks, too."""
    ops = [edge.op for cell in genotype.types.values() if not cell.reduction for edge in cell.edges]
    return float(np.mean([is_parameter_free(op) for op in ops])) if ops else 0.0


class Engine:
    """Supernet, relaxation and both optimisers of one search."""

    def __init__(
        self,
        settings: Steps,
        problem: Problem[Relaxable],
        supernet: Supernet,
        relaxation: Relaxation,
        order: Literal["first", "second"] = "first",
    ) -> None:
        """Raises InvalidSettingsError for a budget of too few epochs."""
        epochs = problem.budget.epochs
        if settings.warmup_epochs >= epochs:
            raise InvalidSettingsError(
                f"warmup_epochs: {settings.warmup_epochs} leave none of {epochs} epochs (budget.epochs) for alpha"
            )
        if relaxation.goals > epochs:
            raise InvalidSettingsError(
                f"budget.epochs: {epochs} are too few for {relaxation.goals} networks, one epoch for each"
            )
        first, limit = relaxation.lengths(epochs)[0], max(1, problem.budget.evaluations - len(problem.seeds))
        if relaxation.goals > 1 and settings.warmup_epochs >= first:
            raise InvalidSettingsError(
                f"warmup_epochs: {settings.warmup_epochs} leave alpha none of the {first} epochs of the first of "
                f"{relaxation.goals} networks"
            )
        if relaxation.goals > limit:
            raise InvalidSettingsError(
                f"budget.evaluations: leaves {limit} networks, too few for {relaxation.goals} that are asked for"
            )
        self.settings, self.problem, self.supernet, self.relaxation = settings, problem, supernet, relaxation
        self.order, self.group = order, problem.group
        self.group.join(supernet)
        if settings.fused and self.group is not ALONE:
            raise InvalidSettingsError("fused: takes the batch statistics of one process; several want it off")
        if settings.fused:
            fuse(supernet)
        elif settings.fused is None and self.group is ALONE:
            fuse_where_faster(supernet)
        seed, splits = problem.seed, problem.splits
        self.train = share_of(splits.train, settings.train_share, seed_of(seed, "train share"))
        self.validation = share_of(splits.validation, settings.validation_share, seed_of(seed, "validation share"))
        self.architect = torch.optim.Adam(
            relaxation.groups(), lr=settings.alpha_lr, betas=(0.5, 0.999), weight_decay=settings.alpha_weight_decay
        )
        self.learner = WeightLearner(
            supernet,
            epochs=epochs,
            lr=settings.lr,
            lr_min=settings.lr_min,
            weight_decay=settings.weight_decay,
            pieces=problem.pieces,
            group=problem.group,
        )
        self.chance = torch.Generator().manual_seed(seed_of(problem.seed, "order"))
        self.lengths = relaxation.lengths(epochs)
        self.limit = limit
        """Most different networks that are derived."""
        self.done = 0
        """Epochs."""
        self.goal, self.goal_done = 0, 0
        """Which of the relaxation's goals it is at, and epochs of that."""
        self.collapsed = 0
        """Epochs in a row in which the guard was reached."""
        self.derived: dict[str, Genotype] = {}
        """By key, in the order in which they came."""
        self.goals_of: dict[str, list[int]] = {}
        """By key, the goals in whose epochs it was derived, from 1."""

    # --- the search -------------------------------------------------------------------------------------------

    def search(self, resume: Mapping[str, Any] | None = None) -> Search:
        if resume:
            self.resume(resume)
        while self._goes_on():
            metrics = self.epoch()
            genotypes = list({genotype.key(): genotype for genotype in self.relaxation.derive()}.values())
            new = [genotype for genotype in genotypes if genotype.key() not in self.derived]
            self._serve(self.goal, genotypes)
            errors = []
            for some, revise in (
                (new[: self.limit - len(self.derived)], False),
                ([genotype for genotype in genotypes if genotype.key() in self.derived], True),
            ):
                if some:
                    found = [self.error(genotype) for genotype in some]
                    yield Propose(tuple(some), tuple(map(self.values, some, found)), revise=revise)
                    self.derived |= {genotype.key(): genotype for genotype in some}
                    errors += found
            metrics = {"loss": metrics["loss"], "error": min(errors), **self.relaxation.metrics(), **metrics}
            metrics["parameter_free"] = float(np.mean([parameter_free_share(genotype) for genotype in genotypes]))
            self._guard(metrics)
            yield Progress("search", self.done, self.problem.budget.epochs, metrics)
            yield Checkpoint(self.state())
        last = self.relaxation.last()
        for goal, genotype in enumerate(last, start=self.relaxation.goals - len(last)):
            self._serve(goal, [genotype])
        late = {genotype.key(): genotype for genotype in last if genotype.key() not in self.derived}
        late = dict(list(late.items())[: max(0, self.limit - len(self.derived))])
        if late:
            yield self.scored(tuple(late.values()))
            self.derived |= late
        seeds = tuple(seed for seed in self.problem.seeds if seed.key() not in self.derived)
        if seeds:
            yield self.scored(seeds)
        if len(self.derived) > 1:
            yield self.scored(tuple(self.derived.values()), revise=True)

    def _serve(self, goal: int, genotypes: Sequence[Genotype]) -> None:
        """They were derived for this goal (from 0), perhaps besides others."""
        for genotype in genotypes:
            served = self.goals_of.setdefault(genotype.key(), [])
            if goal + 1 not in served:
                served.append(goal + 1)

    def _goes_on(self) -> bool:
        """Whether another epoch is due; moves on to the next goal where one is done with."""
        if self.derived and self.group.any(self.problem.time_is_up()):
            return False
        goals = self.relaxation.goals
        while self.goal < goals and (
            self.goal_done >= self.lengths[self.goal]
            or len(self.derived) >= max(1, self.limit * (self.goal + 1) // goals)
            or self.collapsed >= self.settings.collapse.epochs
        ):
            self.goal, self.goal_done, self.collapsed = self.goal + 1, 0, 0
        return self.goal < goals

    def _guard(self, metrics: Mapping[str, float]) -> None:
        """Counts epochs in a row that look like a collapse; the last of them that is allowed ends the goal. None does
        before alpha has learnt anything.
        """
        if self.done <= self.settings.warmup_epochs:
            return
        guard = self.settings.collapse
        reached = [
            f"{name} is {metrics[name]:.3g}"
            for name, limit in (("parameter_free", guard.parameter_free), ("gap", guard.gap))
            if limit is not None and metrics.get(name, -math.inf) >= limit
        ]
        self.collapsed = self.collapsed + 1 if reached else 0
        if self.collapsed >= guard.epochs and self.goal_done < self.lengths[self.goal]:
            self.problem.warn(f"the search collapses ({', '.join(reached)}) and ends after epoch {self.done}")

    # --- learning ---------------------------------------------------------------------------------------------

    def epoch(self) -> dict[str, float]:
        """Alternates steps of the architecture and of the weights over the training split; mean losses in nats."""
        augmentation, device = self.problem.splits.augmentation, self.problem.device
        batch = self.settings.batch
        self.learner.start(self.done)
        self.relaxation.begin(self.goal, self.done)
        validation = forever(lambda: self.validation.batches(batch, self.chance, augmentation, device))
        batches = self.train.batches(batch, self.chance, augmentation, device)
        per_epoch, epochs = max(1, self.train.size // batch), self.problem.budget.epochs
        losses: list[Tensor] = []
        for index, (images, labels) in enumerate(batches, start=self.done * per_epoch + 1):
            if self.done >= self.settings.warmup_epochs:
                losses.append(self.alpha_step(next(validation), (images, labels)))
            self.weight_step(images, labels)
            self.problem.between_steps()
            self.problem.glance(index, epochs * per_epoch, self.learner.loss_so_far)
        self.relaxation.after_epoch()
        self.done, self.goal_done = self.done + 1, self.goal_done + 1
        metrics = {"loss": self.learner.mean_loss()}
        if losses:
            metrics["validation_loss"] = float(torch.stack(losses).mean())
            metrics["gap"] = metrics["validation_loss"] - metrics["loss"]
        return metrics

    def alpha_step(self, validation: Batch, training: Batch) -> Tensor:
        """One Adam step on the validation loss, which is returned; the weights stay as they are."""
        self.supernet.train()
        learnt = [parameter for group in self.architect.param_groups for parameter in group["params"]]
        with room_for(len(validation[1]), self.problem.pieces, validation[0].device):
            self.architect.zero_grad(set_to_none=True)
            if self.order == "first":
                with at_rest(self.supernet):
                    found, loss = gradients(self._loss(*validation), learnt, self.group)
            else:
                weights = list(self.supernet.parameters())
                train, step = self._loss(*training), self._virtual_step(weights)
                found, loss = second_order(train, self._loss(*validation), weights, learnt, step, self.group)
            penalty = self.relaxation.penalty()
            if penalty is not None:
                extra, _ = gradients(lambda: [penalty], learnt)
                found = [a if b is None else b if a is None else a + b for a, b in zip(found, extra, strict=True)]
            # what no cell of the stack uses has no gradient, and stays as it is
            for parameter, gradient in zip(learnt, found, strict=True):
                parameter.grad = gradient
            self.architect.step()
        self.relaxation.after_step()
        return loss

    def weight_step(self, images: Tensor, labels: Tensor) -> None:
        """One SGD step on the training loss; the architecture stays as it is."""
        with torch.no_grad():
            choice = self.relaxation.choice()
        self.learner.step(images, labels, choice)

    def _loss(self, images: Tensor, labels: Tensor) -> Loss:
        def terms() -> Iterator[Tensor]:
            for some, theirs, share in in_pieces(images, labels, self.problem.pieces, self.group):
                yield F.cross_entropy(self.supernet(some, *self.relaxation.choice()), theirs) * share

        return terms

    def _virtual_step(self, weights: Sequence[Tensor]) -> VirtualStep:
        """What the optimiser of the weights would do next."""
        optimizer = self.learner.optimizer
        group = optimizer.param_groups[0]
        buffers = [
            optimizer.state[weight].get("momentum_buffer") if weight in optimizer.state else None for weight in weights
        ]
        return VirtualStep(group["lr"], group["momentum"], group["weight_decay"], buffers)

    # --- scores -----------------------------------------------------------------------------------------------

    def error(self, genotype: Genotype) -> float:
        """Of a network with inherited weights, its ops alone, on all validation images."""
        return self.error_of(choice_of(self.problem.space, genotype, self.problem.device))

    def error_of(self, choice: Choice) -> float:
        """The same of any choice: that of the relaxation is the network that is searched."""
        problem = self.problem
        return supernet_errors(self.supernet, self.validation, choice, problem.device, problem.pieces, self.group)[0]

    def scored(self, genotypes: tuple[Genotype, ...], revise: bool = False) -> Propose:
        """The genotypes with what they have on the supernet as it is now."""
        known = []
        for genotype in genotypes:
            known.append(self.values(genotype, self.error(genotype)))
            self.problem.between_steps()
        return Propose(genotypes, tuple(known), revise=revise)

    def values(self, genotype: Genotype, error: float) -> dict[str, Value]:
        """With the goals that it may serve, where there are several."""
        detail: dict[str, Any] = {"epochs": self.done, "split": "validation", "n": self.validation.size}
        if self.relaxation.goals > 1 and genotype.key() in self.goals_of:
            detail[GOALS] = list(self.goals_of[genotype.key()])
        return data_values(self.problem, error, detail, self.settings.batch)

    # --- safe points ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state(),
            "relaxation": self.relaxation.state(),
            "architect": self.architect.state_dict(),
            "chance": self.chance.get_state(),
            "done": self.done,
            "goal": self.goal,
            "goal_done": self.goal_done,
            "collapsed": self.collapsed,
            "derived": [genotype_to_json(genotype) for genotype in self.derived.values()],
            "goals_of": {key: list(goals) for key, goals in self.goals_of.items()},
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.learner.resume(state["learner"])
        self.relaxation.resume(state["relaxation"])
        self.architect.load_state_dict(dict(state["architect"]))
        self.chance.set_state(state["chance"])
        self.done, self.goal, self.goal_done, self.collapsed = (
            int(state[key]) for key in ("done", "goal", "goal_done", "collapsed")
        )
        self.derived = {genotype.key(): genotype for genotype in map(genotype_from_json, state["derived"])}
        self.goals_of = {key: list(goals) for key, goals in state.get("goals_of", {}).items()}
