"""How the preferences of a search learn: by policy gradient, from networks that they draw, each scored on one batch
with shared weights and priced as a black box.

One preference is the published method (``nas_core.algorithms.tnd_nas``); that several share the weights, learn from
each other's samples and move to where the front has gaps, is ours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas_core.architecture import Genotype
from nas_core.costs import PRE
from nas_core.errors import InvalidSettingsError, ObjectiveError
from nas_core.events import Evaluation, Price
from nas_core.merit import Merit, genotype_of
from nas_core.pareto import foremost, hypervolume, non_dominated
from nas_core.policy import Policy
from nas_core.preferences import Left, Preference, Sample, between, draw, refined, union, with_few_skips
from nas_core.prices import Asking, Prices
from nas_core.reward import Reward, directions, exponents_of
from nas_core.search import Problem, Relaxable, derivable
from nas_core.shared_weights import SharedWeights
from nas_core.stages import Stages
from nas_core.training import seed_of

if TYPE_CHECKING:
    from nas_core.algorithms.tnd_nas import TndNas

CALIBRATING = 32
"""Random samples that show, at a stage's first policy step, how much accuracy and costs vary."""
FEWEST_ELITES = 3
"""That a preference imitates: those it thinks most of, where fewer are its own."""
LEAST_REWARD = 1e-12
LEAST_WEIGHT = 0.3
"""Mean weight of another preference's samples below which they say too little: Adam would make a whole step of it."""

Told = list[tuple[float, float | None]]
"""Of samples: the accuracy on their batch, percent, and their reward; None without a price."""


class PolicySearch:
    """The preferences, what their samples cost and how good they were; the weights stay as they are."""

    def __init__(self, settings: TndNas, problem: Problem[Relaxable], weights: SharedWeights, merit: Merit) -> None:
        """Raises InvalidSettingsError for exponents and references of what is no cost of the job."""
        self.settings, self.problem, self.weights, self.merit = settings, problem, weights, merit
        self.prices = Prices(problem)
        self._check()
        self.rng = np.random.default_rng(seed_of(problem.seed, "samples"))
        self.stage, self.turns = 0, 0
        """The stage that the policies are of; the policy steps so far, which preferences take in turn."""
        self.calibrated = False
        """Whether the rewards are this stage's."""
        self._foremost: list[str] | None = None
        """Of the networks seen, since the last ``learn``; None: to be found among all."""
        self.most: dict[str, float] = {}
        """The largest costs of the first random samples: where the hypervolume of the events ends."""
        choices = problem.space.cost_table(problem.skeleton, "macs").entries
        everything = {name: np.ones(entries.shape, dtype=bool) for name, entries in choices.items()}
        count = settings.preferences if self.prices.keys else 1
        self.preferences = [
            Preference(direction, _copy(everything), self._policy(place, everything))
            for place, direction in enumerate(directions(count, len(self.prices.keys)))
        ]

    def _check(self) -> None:
        for name in ("exponents", "references"):
            for key in getattr(self.settings, name):
                if key not in self.prices.keys:
                    known = ", ".join(self.prices.keys) or "none"
                    raise InvalidSettingsError(f"{name}: '{key}' is no cost of this job; its costs are {known}")

    def _policy(self, place: int, left: Left) -> Policy:
        shapes: dict[str, tuple[int, int]] = {name: mask.shape for name, mask in left.items()}
        seed = seed_of(self.problem.seed, "alpha", self.stage, place)
        return Policy(shapes, left, self.settings.alpha_lr, self.settings.alpha_weight_decay, seed)

    # --- samples ----------------------------------------------------------------------------------------------

    def draw(self, preference: Preference, explore: float) -> Sample:
        """One network; with that probability an edge's op is drawn uniformly."""
        return draw(self.problem.space, preference.policy, self.rng, explore)

    def samples(self, preference: Preference) -> list[Sample]:
        """Of a policy step; what this search has drawn before is drawn anew, as often as settings say."""
        before = self.merit.seen if self.problem.inherited is None else self.prices
        found: dict[str, Sample] = {}
        repeated: list[Sample] = []
        for _ in range(self.settings.samples):
            for _ in range(1 + self.settings.redraws):
                sample = self.draw(preference, self.settings.explore)
                key = sample.genotype.key()
                if key not in before and key not in found:
                    found[key] = sample
                    break
            else:
                repeated.append(sample)
        return [*found.values(), *repeated]

    def accuracy(self, genotype: Genotype, images: Tensor, labels: Tensor) -> float:
        """Percent, of a network on one batch with inherited weights and batch statistics; kept with the samples."""
        accuracy = 100.0 * (1.0 - self.weights.error(genotype, images, labels))
        self.merit.record(genotype.key(), accuracy)
        return accuracy

    # --- steps ------------------------------------------------------------------------------------------------

    def step(self, images: Tensor, labels: Tensor, told: Told) -> Asking:
        """Samples of one preference, scored on one batch and priced, and a step on its alpha. What they are worth is
        added to ``told``.
        """
        if not self.calibrated:
            yield from self.calibrate(images, labels)
        preference = self.preferences[self.turns % len(self.preferences)]
        self.turns += 1
        samples = self.samples(preference)
        genotypes = [sample.genotype for sample in samples]
        yield from self.prices.ask(genotypes)
        accuracies = [self.accuracy(genotype, images, labels) for genotype in genotypes]
        seen = [
            (self.merit.deserved(genotype, accuracy), self.prices.of(genotype.key()))
            for genotype, accuracy in zip(genotypes, accuracies, strict=True)
        ]
        rewards = _rewards(preference, seen)
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
                other.policy.step(columns, _rewards(other, seen), weights)
        if self.settings.elites:
            self._imitate_the_best(genotype.key() for genotype in genotypes)

    def learn(self) -> None:
        """From all samples so far, what networks are worth; then the foremost of them are found anew."""
        self.merit.learn()
        self._foremost = None

    def _imitate_the_best(self, drawn: Iterable[str]) -> None:
        """Every preference makes those of the foremost networks more likely that it thinks more of than others do."""
        known = dict.fromkeys([*(self.merit.seen if self._foremost is None else self._foremost), *drawn])
        keys = [key for key in known if self.prices.known(key) is not None]
        if not keys:
            return
        worth, elites = self.merit.worth(keys), self.settings.elites
        seen = [(each, self.prices.of(key)) for each, key in zip(worth.tolist(), keys, strict=True)]
        rewards = np.array([_rewards(preference, seen) for preference in self.preferences])
        if len(rewards) > 1:
            places = self._in_front(keys, -worth, elites * len(rewards))
        else:  # all of a front is not what one preference looks for
            places = np.argsort(-rewards[0], kind="stable")[:elites].tolist()
        self._foremost = [keys[place] for place in places]
        standing = np.log(np.maximum(rewards[:, places], LEAST_REWARD))
        standing -= standing.max(axis=1, keepdims=True)
        standing /= np.maximum(standing.std(axis=1, keepdims=True), 1e-9)
        ops = [self._ops_of(genotype_of(key)) for key in self._foremost]
        for place, preference in enumerate(self.preferences):
            own = np.flatnonzero(standing.argmax(axis=0) == place)
            if len(own) < FEWEST_ELITES:
                own = np.argsort(-standing[place], kind="stable")[:FEWEST_ELITES]
            preference.policy.imitate({name: np.mean([ops[one][name] for one in own], axis=0) for name in ops[0]})

    def _ops_of(self, genotype: Genotype) -> dict[str, NDArray[np.float64]]:
        """1 where an edge has an op, (edges, ops) by type; an edge left out has ``none``, where that can be derived."""
        space, found = self.problem.space, {}
        for name, selection in space.selection(genotype).items():
            found[name] = selection.astype(np.float64)
            names = list(space.ops(name)) if not name.endswith(PRE) else []
            if "none" in names and derivable(space, name)[names.index("none")]:
                found[name][~selection.any(axis=1), names.index("none")] = 1.0
        return found

    def _in_front(self, keys: Sequence[str], errors: NDArray[np.float64], most: int) -> list[int]:
        """Places of priced networks, by constrained rank and crowding distance."""
        axes = self.problem.axes
        known = [self.prices.known(key) or {} for key in keys]
        costs = np.array([[axes.cost(name, each[name]) for name in self.prices.keys] for each in known])
        violations = [axes.lasting_violation(each) for each in known]
        return foremost(np.column_stack([errors, costs.reshape(len(keys), -1)]), violations, most)

    def best(self, most: int, taken: set[str]) -> Iterator[Genotype]:
        """Of the samples, by constrained rank and crowding distance; accuracies are means over the batches seen."""
        keys = [key for key in self.merit.seen if key not in taken and self.prices.known(key) is not None]
        if most > 0 and keys:
            for place in self._in_front(keys, -self.merit.agreed(self.merit.table(keys)), most):
                yield genotype_of(keys[place])

    def calibrate(self, images: Tensor, labels: Tensor) -> Asking:
        """Rewards of the stage, by random samples of what is left, whose accuracies are the first that it sees; where
        none of them can be priced, the rewards of the stage before stay.
        """
        left = self.left
        uniform = Policy({n: m.shape for n, m in left.items()}, left, 1.0, 0.0, 0)
        samples = [draw(self.problem.space, uniform, self.rng, 1.0) for _ in range(CALIBRATING)]
        yield from self.prices.ask(sample.genotype for sample in samples)
        self.calibrated = True
        taken = [self.accuracy(sample.genotype, images, labels) for sample in samples]
        self.learn()
        priced = [
            (self.merit.deserved(sample.genotype, accuracy), costs)
            for sample, accuracy in zip(samples, taken, strict=True)
            if (costs := self.prices.of(sample.genotype.key())) is not None
        ]
        if priced:
            self._reward_by(priced)
            return
        why = f"none of {len(samples)} random networks could be priced"
        first = f"the first: {self.prices.reason(samples[0].genotype.key())}"
        if any(preference.reward is None for preference in self.preferences):
            raise ObjectiveError(f"{why}; {first}")
        self.problem.warn(f"{why} in stage {self.stage + 1}, which goes on by the rewards of the one before; {first}")

    def _reward_by(self, priced: Sequence[tuple[float, Mapping[str, float]]]) -> None:
        """Exponents and references that settings do not give, by accuracies and costs of random samples."""
        settings, keys = self.settings, self.prices.keys
        accuracies = np.array([accuracy for accuracy, _ in priced])
        table = np.array([[abs(costs[key]) for key in keys] for _, costs in priced]).reshape(len(priced), len(keys))
        middle = dict(zip(keys, np.median(table, axis=0).tolist(), strict=True)) if keys else {}
        if not self.most:
            self.most = dict(zip(keys, table.max(axis=0).tolist(), strict=True)) if keys else {}
        for place, preference in enumerate(self.preferences):
            spread = exponents_of(preference.direction, accuracies, table, settings.reward)
            exponents = dict(zip(keys, spread.tolist(), strict=True))
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

    def _reward(self, exponents: Mapping[str, float], references: Mapping[str, float]) -> Reward:
        settings = self.settings
        return Reward(self.problem.axes, exponents, references, settings.reward, settings.bound_exponent)

    # --- what they come to ------------------------------------------------------------------------------------

    def derive(self, preference: Preference) -> Genotype:
        """The likeliest op of each edge, by the space's rule; a normal cell has at most ``max_skips`` of skips."""
        space, strengths = self.problem.space, preference.policy.strengths()
        genotype = space.derive(strengths)
        if self.settings.max_skips is None:
            return genotype
        for name in (name for name in strengths if name.startswith("normal") and not name.endswith(PRE)):
            genotype = with_few_skips(space, name, genotype, strengths, self.settings.max_skips)
        return genotype

    def entropy(self) -> float:
        """Mean of the preferences' (``Policy.entropy``)."""
        return float(np.mean([preference.policy.entropy() for preference in self.preferences]))

    def metrics(self, told: Told) -> Generator[Price, list[Evaluation], dict[str, float]]:
        """Means of what samples were worth; of what the preferences derive now and no bound on a cost excludes, how
        many are not dominated, and their hypervolume with costs in units of the largest of the first random samples.
        """
        genotypes = {genotype.key(): genotype for genotype in map(self.derive, self.preferences)}
        yield from self.prices.ask(genotypes.values())
        axes = self.problem.axes
        points = self._points(
            {key: one for key, one in genotypes.items() if not axes.lasting_violation(self.prices.known(key) or {})}
        )
        front = points[non_dominated(points)]
        return {
            "accuracy": float(np.mean([accuracy for accuracy, _ in told])),
            "reward": float(np.mean([reward or 0.0 for _, reward in told])),
            "failed": float(len(self.prices.failures)),
            "front": float(len(np.unique(front, axis=0))),
            "hypervolume": hypervolume(points, [1.0] * points.shape[1]),
        }

    def _points(self, genotypes: Mapping[str, Genotype]) -> NDArray[np.float64]:
        """(priced genotypes, 1 + costs)."""
        rows = []
        for key, genotype in genotypes.items():
            costs = self.prices.of(key)
            if costs is None:
                continue
            scaled = [self.problem.axes.cost(name, costs[name]) / (self.most[name] or 1.0) for name in self.prices.keys]
            rows.append([self.weights.score(genotype, onlookers=True), *scaled])
        return np.array(rows, dtype=np.float64).reshape(len(rows), 1 + len(self.prices.keys))

    # --- from stage to stage ----------------------------------------------------------------------------------

    @property
    def left(self) -> Left:
        """What the supernet still has: ops that some preference keeps."""
        return union(preference.left for preference in self.preferences)

    def shrink(self, stages: Stages) -> Asking:
        """At the end of a stage every preference drops the ops that are least likely on each edge."""
        derived = [self.derive(preference) for preference in self.preferences]
        if len(derived) > 2:
            yield from self.prices.ask(derived)
        left_after = {
            name: stages.left_after(self.stage, mask.shape[1], self._given(name))
            for name, mask in self.preferences[0].left.items()
        }
        of_use = {name: derivable(self.problem.space, name) for name in left_after}
        for preference in self.preferences:
            preference.policy.shrink(left_after, of_use)
            preference.left = _copy(preference.policy.left)
        self._refine(derived, left_after)

    def _given(self, name: str) -> Sequence[int]:
        """Ops left on an edge of a type after each stage, where the settings say so."""
        if name.endswith(PRE):
            return ()
        return self.settings.normal_left if name.startswith("normal") else self.settings.reduce_left

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

    def begin(self, stage: int) -> None:
        """Fresh policies over all that is left."""
        self.stage, self.calibrated = stage, False
        left = self.left
        for place, preference in enumerate(self.preferences):
            preference.policy = self._policy(place, left)

    def inherit(self, left: Left, stage: int) -> None:
        """Takes over what another search has left."""
        for preference in self.preferences:
            preference.left = _copy(left)
        self.begin(stage)

    # --- safe points ------------------------------------------------------------------------------------------

    def preferences_state(self) -> list[dict[str, Any]]:
        return [preference.state() for preference in self.preferences]

    def resume_preferences(self, states: Sequence[Mapping[str, Any]]) -> None:
        for preference, state in zip(self.preferences, states, strict=True):
            preference.resume(state, self._reward)

    def state(self) -> dict[str, Any]:
        return {
            "preferences": self.preferences_state(),
            "rng": self.rng.bit_generator.state,
            "calibrated": self.calibrated,
            "turns": self.turns,
            "prices": self.prices.state(),
            "most": dict(self.most),
        }

    def resume(self, state: Mapping[str, Any], stage: int) -> None:
        self.stage, self.turns, self.calibrated = stage, int(state["turns"]), bool(state["calibrated"])
        self.prices.resume(state["prices"])
        self.most = dict(state["most"])
        self.resume_preferences(state["preferences"])
        self.rng.bit_generator.state = state["rng"]


def _copy(left: Left) -> Left:
    return {name: mask.copy() for name, mask in left.items()}


def _rewards(preference: Preference, seen: Sequence[tuple[float, Mapping[str, float] | None]]) -> list[float]:
    """Of samples with these accuracies and costs; none without a price."""
    assert preference.reward is not None
    return [0.0 if costs is None else preference.reward(accuracy, costs) for accuracy, costs in seen]
