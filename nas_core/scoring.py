"""How population methods learn a candidate's error: by a short training each, on one shared supernet, or not at all
where a table has it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from nas_core.architecture import Genotype
from nas_core.data import Augmentation, first_drawn, shrunk
from nas_core.errors import IncompatibleSpaceError
from nas_core.events import Progress, Propose
from nas_core.recipe import Estimation, ShortTraining, SupernetTraining, shrunk_input
from nas_core.search import Problem, Relaxable
from nas_core.supernet.fused import fuse_where_faster
from nas_core.supernet.network import Selection
from nas_core.supernet.weights import AveragedWeights, WeightLearner, choice_of, make_supernet, supernet_errors
from nas_core.training import seed_of
from nas_core.values import Value
from nas_core.valuing import data_value


class Scorer(Protocol):
    """Turns genotypes into proposals. Its state goes into the algorithm's checkpoints."""

    def prepare(self) -> Generator[Progress, None, None]:
        """Whatever must happen before the first proposal; every yield is a safe point."""
        ...

    def propose(self, genotypes: Sequence[Genotype]) -> Propose: ...
    def state(self) -> dict[str, Any]: ...
    def resume(self, state: Mapping[str, Any]) -> None: ...


def scorer(estimation: Estimation | None, problem: Problem[Any]) -> Scorer:
    """For None, one that leaves errors to the verification; where no objective has to be learnt, ``estimation`` says
    nothing.

    Raises IncompatibleSpaceError when a supernet is wanted of a space that has none.
    """
    if not problem.axes.learnt:
        return LookedUp()
    if estimation is None:
        return Unscored()
    if isinstance(estimation, ShortTraining):
        return ByTraining(estimation)
    if not isinstance(problem.space, Relaxable):
        raise IncompatibleSpaceError(f"{type(problem.space).__name__} has no supernet; give 'evaluate' as a training")
    return OnSupernet(estimation, problem)


class Unscored:
    """Asks for exact costs alone."""

    def prepare(self) -> Generator[Progress, None, None]:
        yield from ()

    def propose(self, genotypes: Sequence[Genotype]) -> Propose:
        return Propose(tuple(genotypes), unscored=True)

    def state(self) -> dict[str, Any]:
        return {}

    def resume(self, state: Mapping[str, Any]) -> None:
        pass


class LookedUp(Unscored):
    """Asks for values that need no training: of tables, exact, measured."""

    def propose(self, genotypes: Sequence[Genotype]) -> Propose:
        return Propose(tuple(genotypes))


class ByTraining:
    """Leaves the error to the evaluator, which trains every candidate briefly."""

    def __init__(self, short: ShortTraining) -> None:
        self.short = short

    def prepare(self) -> Generator[Progress, None, None]:
        yield from ()

    def propose(self, genotypes: Sequence[Genotype]) -> Propose:
        return Propose(tuple(genotypes), train=self.short)

    def state(self) -> dict[str, Any]:
        return {}

    def resume(self, state: Mapping[str, Any]) -> None:
        pass


def data_values(problem: Problem[Any], error: float, detail: Mapping[str, Any], batch: int) -> dict[str, Value]:
    """Values of all objectives that follow from an error seen on a supernet, which learnt in batches of this size."""
    if problem.pieces > 1:
        detail = {**detail, "micro_batch": -(-batch // problem.pieces)}
    return {
        key: data_value(key, objective, error, "supernet", detail)
        for key, objective in problem.axes.objectives.items()
        if objective.source == "data"
    }


class OnSupernet:
    """Trains one supernet on sampled paths, then scores candidates with the weights they inherit.

    Guo et al., "Single Path One-Shot NAS with Uniform Sampling", arXiv 1904.00420. A path is a random genotype of the
    space, its ops unweighted; of several drawn the costliest. Scores use batch statistics.
    """

    def __init__(self, estimation: SupernetTraining, problem: Problem[Relaxable]) -> None:
        """Raises InvalidSettingsError for images that cannot be shrunk so far."""
        self.problem, self.estimation = problem, estimation
        self.epochs = min(estimation.supernet_epochs, problem.budget.epochs)
        skeleton = replace(problem.skeleton, input=shrunk_input(problem.skeleton.input, estimation.shrink))
        made = make_supernet(
            lambda: problem.space.supernet(skeleton, share_features=estimation.share_features),
            seed_of(problem.seed, "supernet"),
            problem.device,
        )
        self.supernet = fuse_where_faster(made)
        self.learner = WeightLearner(
            self.supernet,
            epochs=self.epochs,
            lr=estimation.lr,
            lr_min=estimation.lr_end,
            weight_decay=estimation.weight_decay,
            pieces=problem.pieces,
        )
        self.averaged = AveragedWeights(self.supernet, estimation.average) if estimation.average else None
        self.order = torch.Generator().manual_seed(seed_of(problem.seed, "supernet order"))
        self.paths = np.random.default_rng(seed_of(problem.seed, "paths"))
        self.macs = problem.space.cost_table(skeleton, "macs")
        judges = first_drawn(problem.splits.validation, estimation.score_images, seed_of(problem.seed, "judges"))
        self.train, self.judges = (shrunk(split, estimation.shrink) for split in (problem.splits.train, judges))
        self.augmentation = (problem.splits.augmentation if estimation.augment else Augmentation()).shrunk(
            estimation.shrink
        )
        self.done = 0

    def prepare(self) -> Generator[Progress, None, None]:
        problem = self.problem
        while self.done < self.epochs and not (self.done and problem.time_is_up()):
            self.learner.start(self.done)
            batches = self.train.batches(self.estimation.batch, self.order, self.augmentation, problem.device)
            per_epoch = max(1, self.train.size // self.estimation.batch)
            for index, (images, labels) in enumerate(batches, start=self.done * per_epoch + 1):
                self.learner.step(images, labels, (None, self._path()))
                if self.averaged is not None:
                    self.averaged.follow()
                problem.between_steps()
                problem.glance(index, self.epochs * per_epoch, self.learner.loss_so_far)
            self.done += 1
            yield Progress("supernet", self.done, self.epochs, {"loss": self.learner.mean_loss()})

    def _path(self) -> Selection:
        space = self.problem.space
        drawn = [space.selection(space.sample(self.paths)) for _ in range(self.estimation.draws)]
        return max(drawn, key=self.macs.of) if len(drawn) > 1 else drawn[0]

    def propose(self, genotypes: Sequence[Genotype]) -> Propose:
        return Propose(tuple(genotypes), tuple(self._values(genotype) for genotype in genotypes))

    def score(self, genotype: Genotype) -> float:
        """What stands for the error of a genotype, 0 to 1."""
        problem = self.problem
        supernet = self.supernet if self.averaged is None else self.averaged.supernet
        choice = choice_of(problem.space, genotype, problem.device)
        error, expected = supernet_errors(supernet, self.judges, choice, problem.device, problem.pieces)
        problem.between_steps()
        return error if self.estimation.score == "error" else expected

    def _values(self, genotype: Genotype) -> dict[str, Value]:
        detail = {"epochs": self.done, "split": "validation", "n": self.judges.size}
        if self.estimation.score != "error":
            detail["score"] = self.estimation.score
        return data_values(self.problem, self.score(genotype), detail, self.estimation.batch)

    def state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state(),
            "averaged": None if self.averaged is None else self.averaged.supernet.state_dict(),
            "order": self.order.get_state(),
            "paths": self.paths.bit_generator.state,
            "done": self.done,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.learner.resume(state["learner"])
        if self.averaged is not None:
            self.averaged.supernet.load_state_dict(state["averaged"])
        self.order.set_state(state["order"])
        self.paths.bit_generator.state = state["paths"]
        self.done = int(state["done"])
