"""DARTS, first order (Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055, sections 2.2 to 2.4 and A.1.1).

Every step: Adam on alpha by a validation batch, then SGD on the weights by a training batch. After every epoch the
cell is derived and scored one-hot on all of validation; what was derived is scored once more on the final supernet, so
that the search front compares one protocol; so are the job's seeds. The published method returns the last derived cell
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from torch import Tensor

from nas_core.algorithms import algorithms
from nas_core.architecture import Genotype, genotype_from_json, genotype_to_json
from nas_core.events import Checkpoint, Progress, Propose
from nas_core.scoring import data_values
from nas_core.search import Problem, Relaxable, Search
from nas_core.settings import settings
from nas_core.supernet import Supernet
from nas_core.supernet.weights import WeightLearner, forever, make_supernet, supernet_errors
from nas_core.training import seed_of
from nas_core.training.room import in_pieces, room_for
from nas_core.values import Value


@algorithms.register("darts")
@settings
class Darts:
    """DARTS: gradient descent on a softmax mixture of all ops, first order."""

    batch: Annotated[int, Ge(2)] = 64
    """Images of a training batch and of a validation batch."""
    lr: Annotated[float, Gt(0)] = 0.025
    """Initial learning rate of the weights, cosine to ``lr_min``."""
    lr_min: Annotated[float, Ge(0)] = 0.001
    weight_decay: Annotated[float, Ge(0)] = 3e-4
    alpha_lr: Annotated[float, Gt(0)] = 3e-4
    alpha_weight_decay: Annotated[float, Ge(0)] = 1e-3
    share_features: bool = False
    """One feature per (source, op) for all targets; the published method has one per edge."""
    needs: ClassVar[type] = Relaxable

    def search(self, problem: Problem[Relaxable], resume: Mapping[str, Any] | None = None) -> Search:
        run = _Run(self, problem)
        derived: dict[str, Genotype] = {}
        if resume:
            run.resume(resume["run"])
            derived = {g.key(): g for g in map(genotype_from_json, resume["derived"])}
        epochs = problem.budget.epochs
        limit = max(1, problem.budget.evaluations - len(problem.seeds))
        while run.done < epochs and len(derived) < limit and not (derived and problem.time_is_up()):
            loss = run.epoch()
            genotype = run.derive()
            error = run.error(genotype)
            yield Propose((genotype,), (run.values(error),), revise=genotype.key() in derived)
            derived[genotype.key()] = genotype
            yield Progress("search", run.done, epochs, {"loss": loss, "error": error, "entropy": run.entropy()})
            yield Checkpoint(
                {"run": run.state(), "derived": [genotype_to_json(genotype) for genotype in derived.values()]}
            )
        seeds = tuple(seed for seed in problem.seeds if seed.key() not in derived)
        if seeds:
            yield run.scored(seeds)
        if len(derived) > 1:
            yield run.scored(tuple(derived.values()), revise=True)


class _Run:
    """Supernet, alpha and both optimisers of one search."""

    def __init__(self, settings: Darts, problem: Problem[Relaxable]) -> None:
        self.settings, self.problem = settings, problem
        self.supernet: Supernet = make_supernet(
            lambda: problem.space.supernet(problem.skeleton, share_features=settings.share_features),
            seed_of(problem.seed, "supernet"),
            problem.device,
        )
        start = torch.Generator().manual_seed(seed_of(problem.seed, "alpha"))
        self.alpha: dict[str, Tensor] = {
            name: (1e-3 * torch.randn(shape, generator=start)).to(problem.device).requires_grad_()
            for name, shape in self.supernet.shapes.items()
        }
        self.architect = torch.optim.Adam(
            self.alpha.values(),
            lr=settings.alpha_lr,
            betas=(0.5, 0.999),
            weight_decay=settings.alpha_weight_decay,
        )
        self.learner = WeightLearner(
            self.supernet,
            epochs=problem.budget.epochs,
            lr=settings.lr,
            lr_min=settings.lr_min,
            weight_decay=settings.weight_decay,
            pieces=problem.pieces,
        )
        self.order = torch.Generator().manual_seed(seed_of(problem.seed, "order"))
        self.done = 0

    def gates(self) -> dict[str, Tensor]:
        """Softmax of alpha over the ops of each edge, (edges, ops) by type."""
        return {name: alpha.softmax(dim=1) for name, alpha in self.alpha.items()}

    def epoch(self) -> float:
        """Alternates alpha and weight steps over the training split; the mean training loss."""
        splits, device, batch = self.problem.splits, self.problem.device, self.settings.batch
        self.learner.start(self.done)
        validation = forever(lambda: splits.validation.batches(batch, self.order, splits.augmentation, device))
        batches = splits.train.batches(batch, self.order, splits.augmentation, device)
        per_epoch, epochs = max(1, splits.train.size // batch), self.problem.budget.epochs
        for index, (images, labels) in enumerate(batches, start=self.done * per_epoch + 1):
            self.alpha_step(*next(validation))
            self.learner.step(images, labels, ({n: g.detach() for n, g in self.gates().items()}, None))
            self.problem.between_steps()
            self.problem.glance(index, epochs * per_epoch, self.learner.loss_so_far)
        self.done += 1
        return self.learner.mean_loss()

    def alpha_step(self, images: Tensor, labels: Tensor) -> None:
        """One Adam step on the validation loss; the weights get no gradient."""
        self.supernet.train()
        alphas = list(self.alpha.values())
        with room_for(len(labels), self.problem.pieces, images.device):
            self.architect.zero_grad(set_to_none=True)
            for some, theirs, share in in_pieces(images, labels, self.problem.pieces):
                loss = F.cross_entropy(self.supernet(some, self.gates()), theirs) * share
                # a stack of one or two cells has reduction cells alone: the other alpha is not used, stays as it is
                for alpha, gradient in zip(alphas, torch.autograd.grad(loss, alphas, allow_unused=True), strict=True):
                    alpha.grad = gradient if alpha.grad is None or gradient is None else alpha.grad + gradient
            self.architect.step()

    def strengths(self) -> dict[str, NDArray[np.floating[Any]]]:
        return {name: gates.detach().cpu().numpy() for name, gates in self.gates().items()}

    def derive(self) -> Genotype:
        return self.problem.space.derive(self.strengths())

    def entropy(self) -> float:
        """Mean entropy of the edges' softmax, nats: high while undecided."""
        each = [-(p * np.log(np.maximum(p, 1e-12))).sum(axis=1) for p in self.strengths().values()]
        return float(np.concatenate(each).mean())

    def error(self, genotype: Genotype) -> float:
        """Of the derived cell one-hot, with inherited weights, on all validation images."""
        problem = self.problem
        active = problem.space.selection(genotype)
        split = problem.splits.validation
        return supernet_errors(self.supernet, split, (None, active), problem.device, problem.pieces)[0]

    def scored(self, genotypes: tuple[Genotype, ...], revise: bool = False) -> Propose:
        """The genotypes with what they have on the supernet as it is now."""
        known = []
        for genotype in genotypes:
            known.append(self.values(self.error(genotype)))
            self.problem.between_steps()
        return Propose(genotypes, tuple(known), revise=revise)

    def values(self, error: float) -> dict[str, Value]:
        images = self.problem.splits.validation.size
        detail = {"epochs": self.done, "split": "validation", "n": images}
        return data_values(self.problem, error, detail, self.settings.batch)

    def state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state(),
            "alpha": {name: alpha.detach().clone() for name, alpha in self.alpha.items()},
            "architect": self.architect.state_dict(),
            "order": self.order.get_state(),
            "done": self.done,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.learner.resume(state["learner"])
        with torch.no_grad():
            for name, alpha in self.alpha.items():
                alpha.copy_(state["alpha"][name])
        self.architect.load_state_dict(dict(state["architect"]))
        self.order.set_state(state["order"])
        self.done = int(state["done"])
