"""In the style of RC-DARTS (Jin, Wang, Slocum, Yang, Dai, Yan, Feng, arXiv 1912.12814), reconstructed.

DARTS, whose alpha is projected after every epoch onto what holds the bounds on resources: as nearly as possible what
training wants, among what may be built. Of the paper the abstract alone was read (constrained optimisation, iterative
projection, levels); every formula is a reconstruction, see docs/methods/rc-darts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray

from nas_core.additive import AdditiveTable, additive_table, summed
from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture, Genotype
from nas_core.constraints import Constraints, Form
from nas_core.constraints.projection import violation
from nas_core.constraints.relaxed import softmax
from nas_core.constraints.repair import RESTARTS
from nas_core.differentiable import Engine, Relaxation, Steps
from nas_core.differentiable.engine import new_supernet
from nas_core.errors import BoundsError, InvalidSettingsError
from nas_core.search import Bound, Problem, Relaxable, Search
from nas_core.settings import settings
from nas_core.stages import Stages
from nas_core.supernet import Supernet
from nas_core.training import seed_of
from nas_core.valuing import exact_value

Bounds = Mapping[str, Bound]
FEW_RESTARTS = 2
"""Random networks from which one is looked for that holds a band, too: not to find any is no error there."""


@settings
class Limits:
    """Bounds of one objective, in its unit."""

    min: float | None = None
    """At least; none: any."""
    max: float | None = None
    """At most; none: any."""

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise InvalidSettingsError(
                f"bounds: a min of at most the max, {self.max:.12g}; {self.min:.12g} lies above it"
            )


@algorithms.register("rc-darts")
@settings
class RcDarts(Steps):
    """In the style of RC-DARTS (reconstructed): DARTS whose networks hold bounds on params, macs and predictions."""

    order: Literal["first", "second"] = "first"
    """Whether alpha steps look through one step of the weights."""
    bounds: tuple[Mapping[str, Limits], ...] = ()
    """By objective key, several sets of bounds, each within the job's constraints: a network for each, on one supernet.
    Empty: the constraints alone."""
    band: Annotated[float, Gt(0), Lt(1)] | None = 0.2
    """Costs with an upper bound alone are kept at (1 - band) of it at least, where networks can: short searches prefer
    cheap ops, which hold any upper bound. Of a set that bounds something itself, only of that. None: they may be as low
    as they like."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Share of the epochs before the first projection, shared by all sets of bounds; in the first half of them, the
    weights alone learn. Where nothing is bounded: none."""
    anneal: Annotated[float, Ge(0), Le(1)] = 0.5
    """Share of a set's epochs in which bounds close in, linearly, from what alpha costs to where they belong."""
    interval: Annotated[int, Ge(1)] | None = None
    """Alpha steps between projections; none: an epoch."""
    relaxation: Form = "straight_through"
    """What stands for the cost of a mixture: of what would be derived (straight_through), or an expectation, of all
    edges (full) or of those that would be kept (gated)."""
    projection_steps: Annotated[int, Ge(1), Le(10_000)] = 300
    """Adam steps of a projection at most; it ends when all bounds hold."""
    projection_lr: Annotated[float, Gt(0)] = 0.05
    """Of that Adam, logits."""
    projection_weight: Annotated[float, Gt(0)] = 100.0
    """Of relative excess over a bound, against half the squared distance."""
    needs: ClassVar[type] = Relaxable

    def search(self, problem: Problem[Relaxable], resume: Mapping[str, Any] | None = None) -> Search:
        return self.engine(problem).search(resume)

    def engine(self, problem: Problem[Relaxable]) -> Engine:
        """Raises BoundsError for bounds that no network holds, InvalidSettingsError for those of no objective."""
        if getattr(problem.space, "weighted", False):
            raise InvalidSettingsError("rc-darts: derives one op an edge; it wants fan_in two or any, not free")
        tables = Tables(problem)
        wanted = sets_of(self.bounds, problem, tables)
        if not any(wanted):
            supernet = new_supernet(problem, self.share_features)
            return Engine(self, problem, supernet, Relaxation(problem, supernet), self.order)
        limit = problem.budget.evaluations - len(problem.seeds)
        if len(wanted) > max(1, limit):
            raise InvalidSettingsError(f"bounds: {len(wanted)} sets, but budget.evaluations leaves {limit} networks")
        own = [frozenset(given) for given in self.bounds] or [frozenset[str]()]
        goals = [Goal(self, problem, bounds, tables, keys) for bounds, keys in zip(wanted, own, strict=True)]
        supernet = new_supernet(problem, self.share_features)
        relaxation = Bounded(self, problem, supernet, goals)
        alone = max(self.warmup_epochs, relaxation.warm // 2)
        return Engine(replace(self, warmup_epochs=alone), problem, supernet, relaxation, self.order)


class Tables:
    """Costs by op at the problem's targets, each made once."""

    def __init__(self, problem: Problem[Relaxable]) -> None:
        self.problem = problem
        self.made: dict[tuple[int, str], AdditiveTable] = {}

    def of(self, target: int, key: str) -> AdditiveTable:
        """Raises InvalidSettingsError for what is no sum over ops, MissingPartError for a profile that lacks some."""
        if (target, key) not in self.made:
            problem = self.problem
            objective, skeleton = problem.axes.objectives[key], problem.targets[target]

            def value(architecture: Architecture) -> float:
                return exact_value(key, objective, architecture).value

            chance = np.random.default_rng(seed_of(problem.seed, "cost table"))
            self.made[target, key] = additive_table(problem.space, skeleton, key, objective, value, chance)
        return self.made[target, key]


def sets_of(sets: Sequence[Mapping[str, Limits]], problem: Problem[Relaxable], tables: Tables) -> list[Bounds]:
    """Each set within the job's bounds, of costs that are sums over ops. Raises InvalidSettingsError for others in
    ``sets``; those of the job are left to its fronts, with a warning.
    """
    axes = problem.axes
    costs = summed(axes.objectives)
    for key in sorted({key for given in sets for key in given} - set(costs)):
        listed = ", ".join(costs) or "none"
        raise InvalidSettingsError(
            f"bounds: '{key}' is no cost of this job that adds up over ops; of these it has: {listed}"
        )
    for key in [key for key in axes.bounds if axes.objectives[key].source != "data"]:
        try:
            if key in costs:
                tables.of(0, key)
                continue
        except InvalidSettingsError:
            if any(key in given for given in sets):
                raise
            costs.remove(key)
        problem.warn(
            f"the bound on '{key}' is not held while searching, since that is no sum over ops; fronts look at it"
        )
    found: list[Bounds] = []
    for given in sets or ({},):
        bounds = {}
        for key in costs:
            ours, job = given.get(key, Limits()), axes.bounds.get(key, Bound())
            low = max((each for each in (ours.min, job.min) if each is not None), default=None)
            high = min((each for each in (ours.max, job.max) if each is not None), default=None)
            if low is not None or high is not None:
                bounds[key] = Bound(low, high)
        found.append(bounds)
    return found


class Goal:
    """One set of bounds, at the first target whose networks can hold it."""

    def __init__(
        self,
        settings: RcDarts,
        problem: Problem[Relaxable],
        bounds: Bounds,
        tables: Tables,
        own: frozenset[str] = frozenset(),
    ) -> None:
        """``own``: what the set itself bounds, the job aside. Raises BoundsError where there is no such network."""
        self.settings, self.bounds, self.seed = settings, bounds, seed_of(problem.seed, "repair")
        self.aims = bounds
        """With the bands below upper ones, as far as some network holds them as well."""
        self.start: dict[str, float] = {}
        """What alpha costs where bounds begin to close in."""
        if not bounds:
            return
        reasons = []
        for target in range(len(problem.targets)):
            self.constraints = Constraints(
                problem.space,
                {key: tables.of(target, key) for key in bounds},
                settings.relaxation,
                settings.projection_steps,
                settings.projection_lr,
                settings.projection_weight,
            )
            try:
                self.known = self._checked(bounds)
            except BoundsError as error:
                reasons.append(str(error))
            else:
                self._take_bands(own or frozenset(bounds), problem.warn)
                return
        raise BoundsError(reasons[0])

    def _checked(self, bounds: Bounds, restarts: int = RESTARTS) -> Genotype:
        return self.constraints.check(bounds, np.random.default_rng(self.seed), restarts)

    def _take_bands(self, keys: Set[str], warn: Callable[[str], None]) -> None:
        """Below upper bounds that some network breaks, one after another, as far as they can be had together: in the
        order of the bounds, so that a process that resumes the search comes to the same.
        """
        if self.settings.band is None:
            return
        for key, bound in self.bounds.items():
            if (
                key not in keys
                or bound.min is not None
                or bound.max is None
                or not 0 < bound.max < self.constraints.ranges[key][1]
            ):
                continue
            least = (1 - self.settings.band) * bound.max
            aims = {**self.aims, key: Bound(least, bound.max)}
            try:
                self.known = self._checked(aims, FEW_RESTARTS)
            except BoundsError:
                warn(
                    f"band: beside the other bounds no network was found with '{key}' between {least:.6g} and its "
                    f"upper bound of {bound.max:.6g}; it may be lower"
                )
            else:
                self.aims = aims

    def aimed(self, share: float, band: bool = True) -> Bounds:
        """What alpha is projected to when bounds are closed in by ``share``, 0 to 1, with the bands or without."""
        aimed = {}
        for key, bound in (self.aims if band else self.bounds).items():
            low, high, start = bound.min, bound.max, self.start[key]
            if low is not None:
                low -= (1 - share) * max(0.0, low - start)
            if high is not None:
                high += (1 - share) * max(0.0, start - high)
                if self.settings.band is not None and bound != self.bounds[key]:
                    low = max(low or 0.0, min((1 - self.settings.band) * high, start))
            aimed[key] = Bound(low, high)
        return aimed

    def excess(self, logits: Mapping[str, NDArray[np.float64]], share: float) -> float:
        """By how much the cost of these logits breaks the bounds themselves, relative, as far as they are closed in."""
        return violation(self.aimed(share, band=False), self.constraints.projection.values(logits))

    def network(self, logits: Mapping[str, NDArray[np.float64]]) -> Genotype:
        """Of these logits, as near as bounds and bands allow; they hold."""
        _, found = self.constraints.finish(logits, self.aims, np.random.default_rng(self.seed))
        return self.known if found is None else found


class Bounded(Relaxation):
    """DARTS' mixture, whose alpha is taken back to where the bounds of the goal hold."""

    def __init__(
        self, settings: RcDarts, problem: Problem[Relaxable], supernet: Supernet, sets: Sequence[Goal]
    ) -> None:
        super().__init__(problem, supernet)
        self.settings, self.sets, self.goals = settings, sets, len(sets)
        epochs = problem.budget.epochs
        self.warm = max(min(round(settings.warmup * epochs), epochs - 1), settings.warmup_epochs)
        """Epochs before any projection."""
        self.shared: dict[str, torch.Tensor] | None = None
        """Alpha at the end of these, where every set starts from."""
        self.goal, self.epoch, self.began, self.steps = 0, 0, 0, 0
        """The set it is at, the epoch (of all), that in which the set's projections began, alpha steps so far."""
        self.served = 0
        """How many sets have a network."""
        self.seen: dict[str, float] = {}

    def lengths(self, epochs: int) -> tuple[int, ...]:
        """The warm-up belongs to the first."""
        shares = Stages(self.goals, epochs - self.warm, 0.0)
        return tuple(shares.length(goal) + (self.warm if goal == 0 else 0) for goal in range(self.goals))

    def begin(self, goal: int, epoch: int) -> None:
        self.epoch = epoch
        if self.shared is None and (epoch >= self.warm or goal > 0):
            self.shared = {name: alpha.detach().clone() for name, alpha in self.alpha.items()}
            self._enter(goal)
        elif goal != self.goal:
            assert self.shared is not None  # taken above
            with torch.no_grad():
                for name, alpha in self.alpha.items():
                    alpha.copy_(self.shared[name])
            self._enter(goal)

    def _enter(self, goal: int) -> None:
        self.goal, self.began = goal, self.epoch
        at = self.sets[goal]
        if at.bounds:
            at.start = at.constraints.projection.values(self.logits())

    def logits(self) -> dict[str, NDArray[np.float64]]:
        """Alpha on the host."""
        return {name: alpha.detach().cpu().numpy().astype(np.float64) for name, alpha in self.alpha.items()}

    # --- projection -------------------------------------------------------------------------------------------

    def share(self) -> float:
        """How far bounds are closed in, 0 to 1: wholly from the last epoch of their share on."""
        length = self.lengths(self.problem.budget.epochs)[self.goal] - (self.warm if self.goal == 0 else 0)
        closing = self.settings.anneal * length
        return min(1.0, (self.epoch - self.began + 1) / closing) if closing > 0 else 1.0

    def project(self) -> None:
        """Alpha and nothing else; it stays as it is, to the bit, where bounds hold already, and where projection brings
        it no nearer to them. Bands that alpha does not come to are given up.
        """
        at = self.sets[self.goal]
        if self.shared is None or not at.bounds:
            return
        before, share = self.logits(), self.share()
        found = at.constraints.project(before, at.aimed(share))
        if not found.feasible:
            found = at.constraints.project(before, at.aimed(share, band=False))
        self.seen = {"projection_steps": float(found.steps), "held": float(found.feasible)}
        if found.steps and (found.feasible or at.excess(found.logits, share) < at.excess(before, share)):
            with torch.no_grad():
                for name, alpha in self.alpha.items():
                    alpha.copy_(torch.from_numpy(found.logits[name]))

    def after_step(self) -> None:
        self.steps += 1
        if self.settings.interval is not None and self.steps % self.settings.interval == 0:
            self.project()

    def after_epoch(self) -> None:
        if self.settings.interval is None:
            self.project()

    # --- networks ---------------------------------------------------------------------------------------------

    def derive(self) -> tuple[Genotype, ...]:
        """The network of the set it is at, which holds its bounds as they belong."""
        self.served = self.goal + 1
        return (self._network(self.sets[self.goal], self.logits()),)

    def last(self) -> tuple[Genotype, ...]:
        """Of sets whose epochs did not come: what the shared alpha comes to."""
        shared = self.logits()
        if self.shared is not None:
            shared = {name: alpha.cpu().numpy().astype(np.float64) for name, alpha in self.shared.items()}
        return tuple(self._network(at, shared) for at in self.sets[self.served :])

    def _network(self, at: Goal, logits: Mapping[str, NDArray[np.float64]]) -> Genotype:
        if at.bounds:
            return at.network(logits)
        return self.problem.space.derive({name: softmax(table) for name, table in logits.items()})

    def metrics(self) -> dict[str, float]:
        """``bounds``: which set, from 1; ``projection_steps`` and ``held`` of the last projection."""
        return {**super().metrics(), "bounds": self.goal + 1.0, **self.seen}

    # --- safe points ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        shared = self.shared
        return {
            **super().state(),
            "shared": None if shared is None else {name: alpha.clone() for name, alpha in shared.items()},
            "goal": self.goal,
            "began": self.began,
            "steps": self.steps,
            "served": self.served,
            "start": self.sets[self.goal].start,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        super().resume(state)
        shared = state["shared"]
        if shared is not None:
            shared = {name: alpha.to(self.problem.device) for name, alpha in shared.items()}
        self.shared = shared
        self.goal, self.began, self.steps, self.served = (
            int(state[key]) for key in ("goal", "began", "steps", "served")
        )
        self.sets[self.goal].start = dict(state["start"])
