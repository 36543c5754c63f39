"""TND-NAS: any number of objectives, none of which needs a gradient, on one supernet that shrinks by stages.

B. Lyu, S. Wen et al., "TND-NAS: Towards Non-differentiable Objectives in Progressive Differentiable NAS Framework",
arXiv 2111.03892; details from the first author's code. Weights learn on the relaxed supernet; alpha learns by policy
gradient on architectures drawn from it, each scored on one validation batch and priced as a black box; after each
stage every edge drops its least likely ops, and the supernet grows deeper. With ``preferences: 1`` and ``ranked_by:
{supernet: 1}`` it is the published method. More of them share the supernet, so that one job gives a front (ours): each
has its own alpha, and an op leaves the supernet when none keeps it. What stands on the front is scored once more, on
the same images for all.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray
from torch import Tensor

from nas_core import checkpoint
from nas_core.algorithms import algorithms
from nas_core.architecture import Genotype
from nas_core.costs import PRE
from nas_core.devices import peak_memory_mb
from nas_core.errors import InvalidSettingsError, ObjectiveError
from nas_core.events import Checkpoint, Evaluation, Price, Progress, Propose
from nas_core.merit import Merit, Signal, genotype_of
from nas_core.pareto import foremost, hypervolume, non_dominated
from nas_core.policy import Policy
from nas_core.preferences import Preference, Sample, between, draw, refined, union, with_few_skips
from nas_core.prices import Asking, Prices
from nas_core.reward import Reward, directions, exponents_of
from nas_core.scoring import data_values
from nas_core.search import Problem, Relaxable, Search, derivable
from nas_core.settings import settings
from nas_core.shared_weights import SharedWeights
from nas_core.stages import Stages
from nas_core.training import seed_of
from nas_core.values import Value

CALIBRATING = 32
"""Random samples that show, at a stage's first policy step, how much accuracy and costs vary."""
LEAST_WEIGHT = 0.3
"""Mean weight of another preference's samples below which they say too little: Adam would make a whole step of it."""

Told = list[tuple[float, float | None]]
"""Of samples: the accuracy on their batch, percent, and their reward; None without a price."""


@algorithms.register("tnd-nas")
@settings
class TndNas:
    """TND-NAS: policy gradient on one shrinking supernet; any cost joins as a black box."""

    preferences: Annotated[int, Ge(1), Le(64)] = 8
    """Trade-offs searched side by side on the one supernet; 1 is the published method."""
    stages: Annotated[int, Ge(1), Le(8)] = 3
    """Each has an equal share of ``budget.epochs``."""
    depths: tuple[Annotated[int, Ge(1), Le(100)], ...] = ()
    """Cells of the supernet in each stage (published: 5, 11, 17); empty: as the space says, in all of them."""
    normal_left: tuple[Annotated[int, Ge(1)], ...] = ()
    """Ops that an edge of the normal cell has left after each stage, 1 after the last; empty: equal steps (5: 3, 2, 1;
    8: 5, 3, 1)."""
    reduce_left: tuple[Annotated[int, Ge(1)], ...] = ()
    """The same of the reduction cell."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.6
    """Share of a stage's epochs in which the weights alone learn."""
    batch: Annotated[int, Ge(2), Le(65_536)] = 64
    """Images of a training batch, and of a validation batch on which one policy step's samples are scored."""
    lr: Annotated[float, Gt(0), Le(10)] = 0.04
    """Initial learning rate of the weights, cosine to 0."""
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 3e-4
    augment: bool = True
    """Whether the data set's own augmentation (crops, flips) is used."""
    shrink: Annotated[int, Ge(1), Le(64)] = 1
    """Images are made this many times smaller on either side, by averaging."""
    weights: Literal["relaxed", "paths"] = "relaxed"
    """What a weight step trains: the softmax mixture of all ops that are left (published), or one network drawn from
    the policy, which costs a fraction of it."""
    draws: Annotated[int, Ge(1), Le(100)] = 1
    """Networks drawn for a weight step on paths, of which the one with the most multiply-adds is trained."""
    path_explore: Annotated[float, Ge(0), Le(1)] = 0.0
    """As ``explore``, of the networks that weight steps on paths draw: 1 trains all that is left alike, whatever the
    policy thinks of it, so that the supernet goes on to rank what the policy has turned from."""
    carry: bool = False
    """Whether weights go on into the next stage, of the same depth; published: each starts anew."""
    average: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Decay, a step, of the moving average of the weights that networks are scored with; 0: the last weights."""
    alpha_lr: Annotated[float, Gt(0), Le(10)] = 6e-3
    """Learning rate of alpha (Adam, betas 0.5 and 0.999)."""
    alpha_weight_decay: Annotated[float, Ge(0), Lt(1)] = 1e-3
    samples: Annotated[int, Ge(2), Le(1000)] = 10
    """Networks drawn for a policy step."""
    redraws: Annotated[int, Ge(0), Le(1000)] = 10
    """How often a sample is drawn anew where the search has drawn that network before; published: 0. Repeats teach
    alpha nothing new about cells, and take the place of cells that nobody has seen."""
    interval: Annotated[int, Ge(1), Le(10_000)] = 1
    """Weight steps for each policy step; preferences take policy steps in turn."""
    share_samples: bool = True
    """Whether every preference learns from each step's samples, whichever drew them: a sample that its own policy would
    draw less often counts as much less (importance weights, at most 1)."""
    explore: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that an edge's op is drawn uniformly instead of from the policy."""
    skip_dropout: tuple[Annotated[float, Ge(0), Lt(1)], ...] = (0.3, 0.6, 0.8)
    """Initial dropout behind skip connections in each stage; stages beyond the last have the last. Empty: none."""
    reward: Literal["sum", "product"] = "sum"
    """How several costs enter: the mean of their power ratios, or the product."""
    exponents: Mapping[str, tuple[Annotated[float, Ge(-20), Le(0)], ...]] = field(default_factory=dict)
    """By objective key, the exponent of its power ratio in each stage (published for params: -0.45, -0.2, -0.25).
    Several preferences take it 0 to 2 times. Empty: spread by how much accuracy and costs vary."""
    references: Mapping[str, tuple[Annotated[float, Gt(0)], ...]] = field(default_factory=dict)
    """By objective key and in its unit, where the ratio is 1, in each stage; left out: the median of random samples."""
    bound_exponent: Annotated[float, Le(0)] = -4.0
    """Of the ratio to a bound that is broken."""
    score: Literal["error", "expected_error"] = "error"
    """What stands for a network's error: the share of images it gets wrong (published), or the mean probability that it
    gives to wrong classes."""
    score_images: Annotated[int, Ge(2)] | None = None
    """Validation images that candidates are scored on in the end, the same ones for all; default: all of them."""
    rescored: Annotated[int, Ge(0), Le(100_000)] = 100
    """Best samples that are scored so, besides what the preferences derive; ``budget.evaluations`` limits both."""
    ranked_by: Mapping[Signal, Annotated[float, Gt(0)]] = field(
        default_factory=lambda: {"supernet": 0.5, "progressivity": 1.0, "synflow": 1.0}
    )
    """What decides how good a network is, with weights: its accuracy on the supernet (published: that alone), and
    scores of the untrained network; several agree by the weighted sum of the logarithms of their ranks."""
    untrained_shrink: Annotated[int, Ge(1), Le(64)] = 1
    """As ``shrink``, of the noise images that untrained networks are shown."""
    untrained_draws: Annotated[int, Ge(1), Le(100)] = 1
    """Initial weights of an untrained network over which its scores are means: of one draw alone they are noisy."""
    final_draws: Annotated[int, Ge(0), Le(100)] = 0
    """Of networks that are scored in the end, untrained scores are taken anew over as many draws; 0: the scores of the
    search stand, by which they were chosen, lucky ones before others."""
    policy_steps: Annotated[int, Ge(1), Le(100_000)] = 40
    """Of each preference, when a job goes on from another's supernet: the weights stay, alpha starts anew."""
    max_skips: Annotated[int, Ge(0)] | None = None
    """Most skip connections of a derived normal cell (P-DARTS, arXiv 1904.12760: 2): the weakest give way; default: any
    number (TND-NAS)."""
    needs: ClassVar[type] = Relaxable
    hands_on: ClassVar[bool] = True
    redone: ClassVar[frozenset[str]] = frozenset(
        {
            "preferences",
            "alpha_lr",
            "alpha_weight_decay",
            "samples",
            "redraws",
            "explore",
            "share_samples",
            "reward",
            "exponents",
            "references",
            "bound_exponent",
            "score_images",
            "rescored",
            "ranked_by",
            "untrained_shrink",
            "untrained_draws",
            "final_draws",
            "policy_steps",
            "max_skips",
        }
    )

    def __post_init__(self) -> None:
        for name in ("depths", "normal_left", "reduce_left"):
            given = getattr(self, name)
            if given and len(given) != self.stages:
                raise InvalidSettingsError(f"{name}: wants one number for each of {self.stages} stages; got {given}")
        for name in ("normal_left", "reduce_left"):
            given = getattr(self, name)
            if given and (given[-1] != 1 or list(given) != sorted(given, reverse=True)):
                raise InvalidSettingsError(f"{name}: never grows, and is 1 after the last stage; got {list(given)}")
        if "supernet" not in self.ranked_by:
            raise InvalidSettingsError(f"ranked_by: 'supernet' must be among them; got {', '.join(self.ranked_by)}")
        if self.carry and len(set(self.depths)) > 1:
            raise InvalidSettingsError(
                f"carry: weights of one depth do not fit another; give equal depths, or none; got {self.depths}"
            )
        if self.weights == "relaxed" and (self.draws > 1 or self.path_explore):
            raise InvalidSettingsError(
                f"draws, path_explore: of networks that weight steps draw, and 'weights: relaxed' draws none; give "
                f"'weights: paths', or 1 and 0; got {self.draws} and {self.path_explore:g}"
            )
        for name in ("exponents", "references"):
            for key, given in getattr(self, name).items():
                if len(given) not in (1, self.stages):
                    raise InvalidSettingsError(
                        f"{name}.{key}: wants one number, or one for each of {self.stages} stages; got {list(given)}"
                    )

    def search(self, problem: Problem[Relaxable], resume: Mapping[str, Any] | None = None) -> Search:
        run = Run(self, problem)
        if problem.inherited is not None:
            run.inherit(problem.inherited)
        if resume:
            run.resume(resume)
        if problem.inherited is not None:
            yield from run.retarget()
        while run.stage < self.stages:
            while run.epochs_done < run.stages.length(run.stage) and not run.time_is_up():
                yield from run.epoch()
                yield Checkpoint(run.state())
            yield from run.close_stage()
            yield Checkpoint(run.state())
        run.step_back()
        if not run.finished:
            yield from run.finish()
            yield Checkpoint(run.state())


class Run:
    """The supernet, the preferences and all that was seen of samples, through the stages of one search."""

    def __init__(self, settings: TndNas, problem: Problem[Relaxable]) -> None:
        self.settings, self.problem = settings, problem
        self.prices = Prices(problem)
        self.measures = any(objective.source == "measured" for objective in problem.axes.objectives.values())
        """Whether asking for a price takes time of a device: then inherited samples are not asked for all at once."""
        self._check()
        self.stages = Stages(settings.stages, problem.budget.epochs, settings.warmup, settings.skip_dropout)
        self.merit = Merit(problem, settings.ranked_by, settings.untrained_shrink, settings.untrained_draws)
        self.rng = np.random.default_rng(seed_of(problem.seed, "samples"))
        self.order = torch.Generator().manual_seed(seed_of(problem.seed, "order"))
        self.chance = torch.Generator().manual_seed(seed_of(problem.seed, "skip dropout"))
        self.weights = SharedWeights(
            problem,
            shrink=settings.shrink,
            augment=settings.augment,
            average=settings.average,
            score=settings.score,
            score_images=settings.score_images,
        )
        self.stage, self.epochs_done, self.finished = 0, 0, False
        self.built, self.trained = 0, 0
        """The stage of the supernet that is there, and the epochs that it has had."""
        self.calibrated = False
        """Whether the rewards are this stage's."""
        self.steps, self.turns = 0, 0
        """Weight steps and policy steps so far: preferences take both in turn."""
        self.most: dict[str, float] = {}
        """The largest costs of the first random samples: where the hypervolume of the events ends."""
        self.seconds = 0.0
        """Spent in this stage."""
        self.previous: dict[str, Any] | None = None
        """What the stage before came to, until the policies of this one have learnt for an epoch."""
        choices = problem.space.cost_table(problem.skeleton, "macs").entries
        everything = {name: np.ones(entries.shape, dtype=bool) for name, entries in choices.items()}
        count = settings.preferences if self.prices.keys else 1
        self.preferences = [
            Preference(
                direction, {name: mask.copy() for name, mask in everything.items()}, self._policy(place, everything)
            )
            for place, direction in enumerate(directions(count, len(self.prices.keys)))
        ]
        self._build()

    def _check(self) -> None:
        settings, problem = self.settings, self.problem
        if problem.inherited is None and problem.budget.epochs < settings.stages:
            raise InvalidSettingsError(
                f"budget.epochs: {problem.budget.epochs} are too few for {settings.stages} stages, one for each"
            )
        for name in ("exponents", "references"):
            for key in getattr(settings, name):
                if key not in self.prices.keys:
                    known = ", ".join(self.prices.keys) or "none"
                    raise InvalidSettingsError(f"{name}: '{key}' is no cost of this job; its costs are {known}")

    # --- a stage ----------------------------------------------------------------------------------------------

    @property
    def left(self) -> dict[str, NDArray[np.bool_]]:
        """What the supernet still has: ops that some preference keeps."""
        return union(preference.left for preference in self.preferences)

    def _policy(self, place: int, left: Mapping[str, NDArray[np.bool_]]) -> Policy:
        shapes: dict[str, tuple[int, int]] = {name: mask.shape for name, mask in left.items()}
        seed = seed_of(self.problem.seed, "alpha", self.stage, place)
        return Policy(shapes, left, self.settings.alpha_lr, self.settings.alpha_weight_decay, seed)

    def _build(self) -> None:
        """The stage's supernet with its optimiser; a fresh one, unless weights are carried over."""
        settings, problem = self.settings, self.problem
        if self.stage and settings.carry:
            return
        self.built, self.trained = self.stage, 0
        self.weights.build(
            settings.depths[self.stage] if settings.depths else None,
            seed_of(problem.seed, "supernet", self.stage),
            epochs=problem.budget.epochs if settings.carry else self.stages.length(self.stage),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )

    @property
    def spent(self) -> float:
        """Multiply-adds: three times the forward ones for each image trained on, once for each that is only run on."""
        return self.weights.spent + self.merit.spent

    def time_is_up(self) -> bool:
        """Never before the first epoch of a search."""
        return bool(self.stage or self.epochs_done) and self.problem.time_is_up()

    def epoch(self) -> Search:
        settings, problem = self.settings, self.problem
        began, number = time.monotonic(), self.stages.before(self.stage) + self.epochs_done
        self.weights.learner.start(number if settings.carry else self.epochs_done)
        learning = self.epochs_done >= self.stages.warm(self.stage)
        if learning and self.merit.seen:
            self.merit.learn()
        told: Told = []
        validation = self.weights.validation_batches(settings.batch, self.order)
        batches = self.weights.training_batches(settings.batch, self.order)
        per_epoch = max(1, self.weights.train.size // settings.batch)
        self.weights.supernet.drop_skips(0.0)
        for index, (images, labels) in enumerate(batches):
            if learning and index % settings.interval == 0:
                yield from self.policy_step(*next(validation), told)
            self.weight_step(images, labels)
            problem.between_steps()
            problem.glance(
                number * per_epoch + index + 1, problem.budget.epochs * per_epoch, self.weights.learner.loss_so_far
            )
        self.epochs_done, self.trained = self.epochs_done + 1, self.trained + 1
        metrics = {"loss": self.weights.learner.mean_loss(), "stage": self.stage + 1.0}
        metrics |= {"entropy": self._entropy(), "multiply_adds": self.spent}
        if any(reward is not None for _, reward in told):
            self.previous = None
        if told:
            metrics |= yield from self._seen_so_far(told)
        self.seconds += time.monotonic() - began
        yield Progress("search", number + 1, problem.budget.epochs, metrics)

    # --- weights ----------------------------------------------------------------------------------------------

    def weight_step(self, images: Tensor, labels: Tensor) -> None:
        """One step on the weights, of one preference's relaxation or of a network that it draws; alpha stays."""
        preference = self.preferences[self.steps % len(self.preferences)]
        self.steps += 1
        self.weights.supernet.drop_skips(self.stages.skip_rate(self.stage, self.epochs_done), self.chance)
        if self.settings.weights == "relaxed":
            gates = {
                name: gate.to(images.device) for name, gate in preference.policy.probabilities(preference.left).items()
            }
            self.weights.step(images, labels, gates, preference.left)
        else:
            drawn = [self._draw(preference, self.settings.path_explore) for _ in range(self.settings.draws)]
            paths = (self.problem.space.selection(sample.genotype) for sample in drawn)
            self.weights.step(images, labels, None, max(paths, key=self.weights.macs.of))
        self.weights.supernet.drop_skips(0.0)

    # --- alpha ------------------------------------------------------------------------------------------------

    def _draw(self, preference: Preference, explore: float) -> Sample:
        return draw(self.problem.space, preference.policy, self.rng, explore)

    def _samples(self, preference: Preference) -> list[Sample]:
        """Of a policy step; what this search has drawn before is drawn anew, as often as settings say."""
        before = self.merit.seen if self.problem.inherited is None else self.prices
        found: dict[str, Sample] = {}
        repeated: list[Sample] = []
        for _ in range(self.settings.samples):
            for _ in range(1 + self.settings.redraws):
                sample = self._draw(preference, self.settings.explore)
                key = sample.genotype.key()
                if key not in before and key not in found:
                    found[key] = sample
                    break
            else:
                repeated.append(sample)
        return [*found.values(), *repeated]

    def policy_step(self, images: Tensor, labels: Tensor, told: Told) -> Asking:
        """Samples of one preference, scored on one batch and priced, and a step on its alpha; weights stay. What they
        are worth is added to ``told``.
        """
        if not self.calibrated:
            yield from self._calibrate(images, labels)
        preference = self.preferences[self.turns % len(self.preferences)]
        self.turns += 1
        samples = self._samples(preference)
        genotypes = [sample.genotype for sample in samples]
        yield from self.prices.ask(genotypes)
        accuracies = [self.accuracy(genotype, images, labels) for genotype in genotypes]
        seen = [
            (self.merit.deserved(genotype, accuracy), self.prices.of(genotype.key()))
            for genotype, accuracy in zip(genotypes, accuracies, strict=True)
        ]
        rewards = self._rewards(preference, seen)
        told += [
            (accuracy, None if costs is None else reward)
            for accuracy, (_, costs), reward in zip(accuracies, seen, rewards, strict=True)
        ]
        columns = [sample.columns for sample in samples]
        likely = [preference.policy.likelihood(ops) for ops in columns]
        preference.policy.step(columns, rewards)
        for other in self.preferences:
            if other is preference or not self.settings.share_samples:
                continue
            with np.errstate(invalid="ignore"):  # an op that a rule of the space brought back has left both
                ratios = np.array([other.policy.likelihood(ops) for ops in columns]) - likely
            weights = np.exp(np.minimum(np.nan_to_num(ratios, nan=-np.inf, posinf=0.0, neginf=-np.inf), 0.0))
            if weights.mean() >= LEAST_WEIGHT:
                other.policy.step(columns, self._rewards(other, seen), weights)

    def _rewards(self, preference: Preference, seen: Sequence[tuple[float, Mapping[str, float] | None]]) -> list[float]:
        """Of samples with these accuracies and costs; none without a price."""
        assert preference.reward is not None
        return [0.0 if costs is None else preference.reward(accuracy, costs) for accuracy, costs in seen]

    def accuracy(self, genotype: Genotype, images: Tensor, labels: Tensor) -> float:
        """Percent, of a network on one batch with inherited weights and batch statistics; kept with the samples."""
        error = self.weights.error(genotype, images, labels)
        self.merit.record(genotype.key(), 100.0 * (1.0 - error))
        return 100.0 * (1.0 - error)

    def _calibrate(self, images: Tensor, labels: Tensor) -> Asking:
        """Rewards of the stage, by random samples of what is left, whose accuracies are the first that it sees; where
        none of them can be priced, the rewards of the stage before stay.
        """
        settings, left = self.settings, self.left
        uniform = Policy({n: m.shape for n, m in left.items()}, left, 1.0, 0.0, 0)
        samples = [draw(self.problem.space, uniform, self.rng, 1.0) for _ in range(CALIBRATING)]
        keys = self.prices.keys
        yield from self.prices.ask(sample.genotype for sample in samples)
        self.calibrated = True
        taken = [self.accuracy(sample.genotype, images, labels) for sample in samples]
        self.merit.learn()
        priced = [
            (self.merit.deserved(sample.genotype, accuracy), costs)
            for sample, accuracy in zip(samples, taken, strict=True)
            if (costs := self.prices.of(sample.genotype.key())) is not None
        ]
        if not priced:
            why = f"none of {len(samples)} random networks could be priced"
            first = f"the first: {self.prices.reason(samples[0].genotype.key())}"
            if any(preference.reward is None for preference in self.preferences):
                raise ObjectiveError(f"{why}; {first}")
            self.problem.warn(
                f"{why} in stage {self.stage + 1}, which goes on by the rewards of the one before; {first}"
            )
            return
        accuracies = np.array([accuracy for accuracy, _ in priced])
        table = np.array([[abs(costs[key]) for key in keys] for _, costs in priced]).reshape(len(priced), len(keys))
        middle = dict(zip(keys, np.median(table, axis=0).tolist(), strict=True)) if keys else {}
        if not self.most:
            self.most = dict(zip(keys, table.max(axis=0).tolist(), strict=True)) if keys else {}
        for place, preference in enumerate(self.preferences):
            exponents = dict(zip(keys, exponents_of(preference.direction, accuracies, table).tolist(), strict=True))
            if settings.exponents:
                factor = 2.0 * place / (len(self.preferences) - 1) if len(self.preferences) > 1 else 1.0
                exponents = {key: factor * self._of_stage(given) for key, given in settings.exponents.items()}
            references = {
                key: self._of_stage(settings.references[key]) if key in settings.references else middle[key] or 1.0
                for key in exponents
            }
            preference.reward = self._reward(exponents, references)

    def _of_stage(self, given: Sequence[float]) -> float:
        return given[min(self.stage, len(given) - 1)]

    # --- what comes of it -------------------------------------------------------------------------------------

    def derive(self, preference: Preference) -> Genotype:
        """The likeliest op of each edge, by the space's rule; a normal cell has at most ``max_skips`` of skips."""
        space, strengths = self.problem.space, preference.policy.strengths()
        genotype = space.derive(strengths)
        if self.settings.max_skips is None:
            return genotype
        for name in (name for name in strengths if name.startswith("normal") and not name.endswith(PRE)):
            genotype = with_few_skips(space, name, genotype, strengths, self.settings.max_skips)
        return genotype

    def _given(self, name: str) -> Sequence[int]:
        """Ops left on an edge of a type after each stage, where the settings say so."""
        if name.endswith(PRE):
            return ()
        return self.settings.normal_left if name.startswith("normal") else self.settings.reduce_left

    def _entropy(self) -> float:
        return float(np.mean([preference.policy.entropy() for preference in self.preferences]))

    def _seen_so_far(self, told: Told) -> Generator[Price, list[Evaluation], dict[str, float]]:
        """Means of what samples were worth; of what the preferences derive now, how many are not dominated, and their
        hypervolume with costs in units of the largest of the first random samples.
        """
        genotypes = {genotype.key(): genotype for genotype in map(self.derive, self.preferences)}
        yield from self.prices.ask(genotypes.values())
        points = self._points(genotypes)
        front = points[non_dominated(points)]
        return {
            "accuracy": float(np.mean([accuracy for accuracy, _ in told])),
            "reward": float(np.mean([reward or 0.0 for _, reward in told])),
            "failed": float(len(self.prices.failures)),
            "front": float(len(np.unique(front, axis=0))),
            "hypervolume": hypervolume(points, [1.0] * points.shape[1]),
        }

    def _points(self, genotypes: Mapping[str, Genotype]) -> NDArray[np.float64]:
        rows = []
        for key, genotype in genotypes.items():
            costs = self.prices.of(key)
            if costs is None:
                continue
            scaled = [self.problem.axes.cost(name, costs[name]) / (self.most[name] or 1.0) for name in self.prices.keys]
            rows.append([self.weights.score(genotype, onlookers=True), *scaled])
        return np.array(rows, dtype=np.float64).reshape(len(rows), 1 + len(self.prices.keys))

    def close_stage(self) -> Search:
        """Every edge drops its least likely ops; the next stage is made ready."""
        settings = self.settings
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        used = {"seconds": self.seconds, "peak_memory_mb": resident}
        if (on_gpu := peak_memory_mb(self.problem.device)) is not None:
            used["peak_gpu_memory_mb"] = on_gpu
        yield Progress("stage", self.stage + 1, settings.stages, used)
        self.seconds = 0.0
        time_is_up = self.problem.time_is_up()
        if self.previous is not None and not time_is_up:
            self.problem.warn(
                f"no network of stage {self.stage + 1} could be priced; the search ends with what it came to before"
            )
        if self.stage + 1 == settings.stages or time_is_up or self.previous is not None:
            self.stage = settings.stages
            return
        self.previous = checkpoint.copied(
            {
                "stage": self.stage,
                "supernet": None if settings.carry else self.weights.scoring.state_dict(),
                "trained": self.trained,
                "preferences": [preference.state() for preference in self.preferences],
                "seen": self.merit.state()["seen"],
            }
        )
        derived = [self.derive(preference) for preference in self.preferences]
        if len(derived) > 2:
            yield from self.prices.ask(derived)
        left_after = {
            name: self.stages.left_after(self.stage, mask.shape[1], self._given(name))
            for name, mask in self.preferences[0].left.items()
        }
        of_use = {name: derivable(self.problem.space, name) for name in left_after}
        for preference in self.preferences:
            preference.policy.shrink(left_after, of_use)
            preference.left = {name: mask.copy() for name, mask in preference.policy.left.items()}
        self._refine(derived, left_after)
        self.stage, self.epochs_done, self.calibrated = self.stage + 1, 0, False
        if not settings.carry:
            self.merit.seen = {}
        left = self.left
        for place, preference in enumerate(self.preferences):
            preference.policy = self._policy(place, left)
        self._build()

    def step_back(self) -> None:
        """To the end of the stage before, where the policies of this one had learnt nothing: time was up, or no network
        of it had a price.
        """
        if self.previous is None or self.finished:
            return
        kept, self.previous = self.previous, None
        if kept["supernet"] is not None:
            self.stage = int(kept["stage"])
            self._build()
            self.stage, self.weights.averaged = self.settings.stages, None
            self.weights.supernet.load_state_dict(kept["supernet"])
            self.trained = int(kept["trained"])
            self.merit.seen = {key: list(record) for key, record in kept["seen"].items()}
        for preference, state in zip(self.preferences, kept["preferences"], strict=True):
            preference.resume(state, self._reward)

    def _reward(self, exponents: Mapping[str, float], references: Mapping[str, float]) -> Reward:
        settings = self.settings
        return Reward(self.problem.axes, exponents, references, settings.reward, settings.bound_exponent)

    def _refine(self, derived: Sequence[Genotype], left_after: Mapping[str, int]) -> None:
        """Moves the preference that is of least use to where the front is widest apart; not where exponents are given,
        which say where each looks.
        """
        if self.settings.exponents or len(derived) < 3:
            return
        if any(self.prices.of(genotype.key()) is None for genotype in derived):
            return
        costs = np.array([self._points({genotype.key(): genotype})[0] for genotype in derived])
        moved = refined(self.preferences, costs)
        if moved is not None:
            idle, one, other = (self.preferences[place] for place in moved)
            idle.direction, idle.left = between(one, other, left_after, self.problem.space)

    def finish(self) -> Search:
        """The job's seeds, what the preferences derive, and the best samples, all scored on the same images."""
        problem = self.problem
        if not self.merit.seen:
            problem.warn(
                "time was up before the first policy step: what is proposed are random networks, ranked as samples "
                "are; give more time, or fewer epochs"
            )
            yield from self._calibrate(*next(self.weights.validation_batches(self.settings.batch, self.order)))
        wanted = {genotype.key(): genotype for genotype in problem.seeds}
        in_order = sorted(self.preferences, key=lambda preference: -preference.direction[0])
        derived = {genotype.key(): genotype for genotype in map(self.derive, in_order)}
        own = [genotype for key, genotype in derived.items() if key not in wanted and self.prices.reason(key) is None]
        room = min(len(own), max(0, problem.budget.evaluations - len(wanted)))
        for place in np.linspace(0, len(own) - 1, room).round().astype(int):  # both ends of the trade-off among them
            wanted[own[place].key()] = own[place]
        most = min(self.settings.rescored, problem.budget.evaluations - len(wanted))
        if problem.inherited is None or not self.measures:
            yield from self.prices.ask(map(genotype_of, self.merit.seen))
        for genotype in self._best(most, set(wanted)):
            wanted[genotype.key()] = genotype
        wanted = wanted or dict(list(derived.items())[: problem.budget.evaluations])
        genotypes = tuple(wanted.values())
        errors = self.scored_in_the_end(genotypes)
        yield Propose(genotypes, tuple(map(self.values, errors)))
        self.finished = True

    def scored_in_the_end(self, genotypes: Sequence[Genotype]) -> list[float]:
        """What stands for their errors, 0 to 1; by untrained scores that chose none of them, if settings say so."""
        if self.settings.final_draws:
            for genotype in genotypes:
                self.merit.take_anew(genotype, self.settings.final_draws)
                self.problem.between_steps()
        return self.merit.in_order(genotypes, [self.weights.score(genotype) for genotype in genotypes])

    def _best(self, most: int, taken: set[str]) -> Iterator[Genotype]:
        """Of the samples, by constrained rank and crowding distance; accuracies are means over the batches seen."""
        axes = self.problem.axes
        known = {k: costs for k in self.merit.seen if k not in taken and (costs := self.prices.known(k)) is not None}
        if most <= 0 or not known:
            return
        keys = list(known)
        rows = [[axes.cost(name, known[key][name]) for name in self.prices.keys] for key in keys]
        violations = [axes.lasting_violation(known[key]) for key in keys]
        table = np.column_stack([-self.merit.agreed(self.merit.table(keys)), np.array(rows).reshape(len(keys), -1)])
        for place in foremost(table, violations, most):
            yield genotype_of(keys[place])

    def values(self, error: float) -> dict[str, Value]:
        detail: dict[str, Any] = {
            "epochs": self.trained,
            "split": "validation",
            "n": self.weights.judges.size,
        }
        if self.settings.score != "error":
            detail["score"] = self.settings.score
        if len(self.settings.ranked_by) > 1:
            detail["ranked_by"] = dict(self.settings.ranked_by)
        return data_values(self.problem, error, detail, self.settings.batch)

    # --- on another search's supernet -------------------------------------------------------------------------

    def inherit(self, state: Mapping[str, Any]) -> None:
        """Takes over what a search has handed on: its supernet, the ops that were left, and how its samples did."""
        handed = state["handed_on"]
        self.stage = int(handed["built"])
        self._build()
        self.stage, self.weights.averaged = self.settings.stages, None
        self.weights.supernet.load_state_dict(handed["supernet"])
        self.trained = int(handed.get("trained", self.problem.budget.epochs))
        self.merit.inherit(handed)
        left = {name: mask.numpy().copy() for name, mask in handed["left"].items()}
        for place, preference in enumerate(self.preferences):
            preference.left = {name: mask.copy() for name, mask in left.items()}
            preference.policy = self._policy(place, left)

    def retarget(self) -> Search:
        """Policy steps alone, on weights that stay as they are."""
        settings, problem = self.settings, self.problem
        total = settings.policy_steps * len(self.preferences)
        while self.turns < total and not (self.turns and problem.time_is_up()):
            validation = self.weights.validation_batches(settings.batch, self.order)
            told: Told = []
            if self.merit.seen:
                self.merit.learn()
            for _ in range(min(total - self.turns, max(1, total // 10))):
                yield from self.policy_step(*next(validation), told)
                problem.between_steps()
            metrics = {"entropy": self._entropy(), "multiply_adds": self.spent}
            metrics |= yield from self._seen_so_far(told)
            yield Progress("search", self.turns, total, metrics)
            yield Checkpoint(self.state())

    # --- safe points ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """In the end what another job can go on from; before, all that this one needs to go on."""
        state: dict[str, Any] = {"stage": self.stage, "finished": self.finished}
        if self.finished:
            left = {name: torch.from_numpy(mask) for name, mask in self.left.items()}
            state["spent"] = self.spent
            handed = {
                "built": self.built,
                "trained": self.trained,
                "supernet": self.weights.scoring.state_dict(),
                "left": left,
                **self.merit.state(),
            }
            return state | {"handed_on": handed}
        if self.problem.inherited is None:
            state["learner"] = self.weights.learner.state()
            state["averaged"] = None if self.weights.averaged is None else self.weights.averaged.supernet.state_dict()
        return state | {
            "preferences": [preference.state() for preference in self.preferences],
            "rng": self.rng.bit_generator.state,
            "order": self.order.get_state(),
            "chance": self.chance.get_state(),
            "epochs_done": self.epochs_done,
            "built": self.built,
            "trained": self.trained,
            "calibrated": self.calibrated,
            "steps": self.steps,
            "spent": self.weights.spent,
            "turns": self.turns,
            "prices": self.prices.state(),
            "merit": self.merit.state(),
            "most": dict(self.most),
            "seconds": self.seconds,
            "previous": checkpoint.copied(self.previous),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        settings = self.settings
        self.stage, self.finished = int(state["stage"]), bool(state["finished"])
        if self.finished:
            self.turns = settings.policy_steps * len(self.preferences)
            return
        self.epochs_done, self.steps, self.turns = (int(state[key]) for key in ("epochs_done", "steps", "turns"))
        self.prices.resume(state["prices"])
        self.merit.resume(state["merit"])
        self.most, self.seconds = dict(state["most"]), float(state["seconds"])
        self.weights.spent = float(state["spent"])
        self.previous = checkpoint.copied(state["previous"])
        if "learner" in state:
            if state["built"]:
                self.stage = int(state["built"])
                self._build()
                self.stage = int(state["stage"])
            self.weights.learner.resume(state["learner"])
            if self.weights.averaged is not None:
                self.weights.averaged.supernet.load_state_dict(state["averaged"])
        self.trained, self.calibrated = int(state["trained"]), bool(state["calibrated"])
        for preference, kept in zip(self.preferences, state["preferences"], strict=True):
            preference.resume(kept, self._reward)
        self.rng.bit_generator.state = state["rng"]
        self.order.set_state(state["order"])
        self.chance.set_state(state["chance"])
