"""MGAS / MG-DARTS (Liu, Saxena, Cao, Zhao, Ruan, arXiv 2310.15074; IEEE TNNLS): ops, filters and weights of one network
pruned together, by thresholds that are learned, in stages that each train a part of it.

The paper's text was not to be had; this follows the authors' code (github.com/lxy12357/MG_DARTS). What was inferred or
is ours stands in docs/methods/mgas.md. What happens stands in nas_core/granularity; here are the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from nas_core.additive import additive_table, summed
from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture, Genotype
from nas_core.errors import InvalidSettingsError
from nas_core.granularity.layout import Granular, as_derived, base_widths, full_types, tables_of
from nas_core.granularity.learner import Rates
from nas_core.granularity.measure import BY_NAME, Measure, Tabled, measure_of, reachable, smallest
from nas_core.granularity.slots import Levels
from nas_core.granularity.trajectory import Plan, Trajectory
from nas_core.recipe import ShortTraining
from nas_core.search import Problem, Search
from nas_core.settings import settings
from nas_core.training import seed_of
from nas_core.valuing import exact_value

Share = Annotated[float, Gt(0), Lt(1)]
TENTH = 0.1
"""Of the full network, the default target where a network can cost nothing."""


@settings
class FixedRatios:
    """What a commit keeps at each level, by score, whatever is learned. A foil for experiments."""

    ops: Annotated[float, Gt(0), Le(1)] = 0.9
    """Share of the ops that are alive."""
    filters: Annotated[float, Gt(0), Le(1)] = 0.95
    """Share of the filters of each convolution."""
    weights: Annotated[float, Gt(0), Le(1)] = 0.95
    """Share of the weights of each kernel."""


@algorithms.register("mgas")
@settings
class Mgas:
    """MGAS: ops, filters and weights of one network pruned together by learned thresholds, down to given sizes."""

    measure: str = "params"
    """What targets are in: params or macs of the exported network, published (weights of its separable and dilated
    convolutions, the paper's measure), or the key of an exact objective of the job that is a sum over ops, such as a
    predicted latency."""
    targets: tuple[Annotated[float, Gt(0)], ...] = ()
    """Costs below which a network is wanted, in the measure's unit, served in one descending run. Empty: the job's
    bound on the measure; without one that the full network breaks, the geometric mean of the smallest and the full
    network's cost, or a tenth of the latter where the smallest costs nothing."""
    stages: Literal[1, 3] = 3
    """In how many parts the network is searched before it is taken whole."""
    rho: tuple[Share, ...] = (0.3, 0.3, 0.3)
    """Of its cost at its start, where each stage ends; one stage takes the first."""
    initial_epochs: Annotated[int, Ge(0)] = 5
    """At the start of a phase, in which the weights alone learn; a third of the phase at most."""
    commit_every: Annotated[int, Ge(1)] = 2
    """Epochs between commits."""
    lambda_start: Annotated[float, Gt(0)] = 1e-5
    """First step of the weight of the regulariser, which begins at 0 in each phase."""
    lambda_factor: Annotated[float, Gt(1)] = 2.0
    """By which lambda falls when many ops go; its steps grow by the square of it when few do."""
    few_ops: Annotated[int, Ge(1)] = 12
    """Lambda grows after commits that remove fewer than twice as many ops, and falls from four times as many on."""
    cost_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of an op's cost (mean of all ops: 1) in the regulariser."""
    batch: Annotated[int, Ge(2)] = 96
    """Images of a batch."""
    lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate of the weights, constant."""
    weight_decay: Annotated[float, Ge(0)] = 3e-4
    """Of the weights."""
    alpha_lr: Annotated[float, Gt(0)] = 1.0
    """Learning rate of the scores of ops and filters (SGD, momentum 0.9)."""
    threshold_lr: Annotated[float, Gt(0)] = 0.1
    """Of the thresholds of ops and filters."""
    weight_threshold_lr: Annotated[float, Gt(0)] = 1e-3
    """Of the thresholds of weights."""
    train_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the training part that is learned from, the same images in all epochs, of each class its part."""
    validation_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """The same of the validation part, on which networks are scored."""
    cutout: Annotated[int, Ge(0)] = 0
    """Side of the square that is cut out of training images, pixels; 0: none."""
    regrow: Annotated[float, Ge(0), Le(1)] = 0.2
    """Share of the ops pruned in the second and third stage that come back at its end; 0: none."""
    reprune: bool = True
    """Whether cells of earlier stages are pruned on in later ones."""
    filters: bool = True
    """Whether filters are pruned."""
    weights: bool = True
    """Whether single weights are pruned."""
    exact: bool = True
    """Whether a commit of the last phase takes no more ops than bring the network below its target, the weakest first;
    else all at once, however far below that leads."""
    finish: bool = True
    """Whether, when epochs run out above a target, the weakest ops go at once until it is met; else the network stays
    as it is, with a warning."""
    fixed_ratios: FixedRatios | None = None
    """A foil for experiments: each commit keeps these shares, and thresholds do not learn."""
    seed_training: ShortTraining = ShortTraining()
    """How the error of the job's seeds is learnt, for which no part of the network stands: a short training each."""
    needs: ClassVar[type] = Granular
    brings_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.rho) < self.stages:
            raise InvalidSettingsError(f"rho: wants one for each of {self.stages} stages; got {len(self.rho)}")

    def search(self, problem: Problem[Granular], resume: Mapping[str, Any] | None = None) -> Search:
        return self.trajectory(problem).search(resume)

    def trajectory(self, problem: Problem[Granular]) -> Trajectory:
        """Raises IncompatibleSpaceError for a space without widths, InvalidSettingsError for targets out of reach or a
        measure that is no sum over ops, MissingPartError for a profile that lacks parts."""
        measure = self._measure(problem)
        given = self.targets or self._default(problem, measure)
        plan = Plan(
            targets=tuple(sorted(set(given), reverse=True)),
            shares=self.rho[: self.stages],
            initial=self.initial_epochs,
            every=self.commit_every,
            control=(self.lambda_start, self.lambda_factor, self.few_ops),
            by_cost=self.cost_weight,
            regrow=self.regrow,
            reprune=self.reprune,
            levels=Levels(self.filters, self.weights),
            rates=Rates(self.lr, self.weight_decay, self.alpha_lr, self.threshold_lr, self.weight_threshold_lr),
            batch=self.batch,
            cutout=self.cutout,
            parts=(self.train_share, self.validation_share),
            ratios=self.fixed_ratios,
            exact=self.exact,
            finish=self.finish,
            seed_training=self.seed_training,
        )
        return Trajectory(plan, problem, measure)

    def _measure(self, problem: Problem[Granular]) -> Measure:
        space, skeleton = problem.space, replace(problem.targets[0], channels=problem.skeleton.channels)
        tables = tables_of(space)
        known = self._known(problem)
        if known is not None:
            return known
        costs = summed(problem.axes.objectives)
        if self.measure not in costs:
            listed = ", ".join(sorted({*BY_NAME, *costs}))
            raise InvalidSettingsError(
                f"measure: '{self.measure}' is no cost of this job that adds up over ops; use one of {listed}"
            )
        objective = problem.axes.objectives[self.measure]
        full = as_derived(full_types(space, problem.skeleton), problem.skeleton)

        def value(architecture: Architecture) -> float:
            return exact_value(self.measure, objective, architecture).value

        chance = np.random.default_rng(seed_of(problem.seed, "cost table"))
        table = additive_table(space, skeleton, self.measure, objective, value, chance)
        columns = {name: space.ops(name) for name in space.types}
        measure = Tabled(table, tables, columns, base_widths(full, problem.skeleton))
        least = smallest(measure, full, skeleton, self.filters)
        value(Architecture(Genotype("darts", least), skeleton))  # told now, not after the search
        return measure

    def _known(self, problem: Problem[Granular]) -> Measure | None:
        """None of a key whose costs have to be asked for."""
        objective = problem.axes.objectives.get(self.measure)
        return BY_NAME.get(self.measure) or (None if objective is None else measure_of(objective))

    def _default(self, problem: Problem[Granular], measure: Measure) -> tuple[float, ...]:
        floor, ceiling = reachable(measure, problem.space, problem.skeleton, problem.targets[0], self.filters)
        objectives, bounds = problem.axes.objectives, problem.axes.bounds
        same = [key for key in bounds if key == self.measure or measure_of(objectives[key]) == measure]
        most = [bounds[key].max for key in same]
        found = [each for each in most if each is not None and each <= ceiling]
        if found:
            return (min(found),)
        return ((floor * ceiling) ** 0.5 if floor > 0 else TENTH * ceiling,)
