"""A progressive search: a supernet that shrinks by stages, policies that learn on it, and what comes of them.

The stages are those of TND-NAS (``nas_core.algorithms.tnd_nas``, whose settings these are); how alpha learns stands in
``nas_core.policy_search``.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas_core import checkpoint
from nas_core.architecture import Genotype
from nas_core.devices import peak_memory_mb
from nas_core.errors import InvalidSettingsError
from nas_core.events import Checkpoint, Progress, Propose
from nas_core.merit import Merit, genotype_of
from nas_core.policy_search import PolicySearch, Told
from nas_core.scoring import data_values
from nas_core.search import Problem, Relaxable, Search
from nas_core.shared_weights import SharedWeights
from nas_core.stages import Stages
from nas_core.training import seed_of
from nas_core.values import Value

if TYPE_CHECKING:
    from nas_core.algorithms.tnd_nas import TndNas

SHOWN_EVERY = 10
"""Networks that are scored in the end, for each event that says how far it is."""


class Run:
    """The supernet, the policies and all that was seen of samples, through the stages of one search."""

    def __init__(self, settings: TndNas, problem: Problem[Relaxable]) -> None:
        """Raises InvalidSettingsError for settings that do not fit the problem."""
        if problem.inherited is None and problem.budget.epochs < settings.stages:
            raise InvalidSettingsError(
                f"budget.epochs: {problem.budget.epochs} are too few for {settings.stages} stages, one for each"
            )
        self.settings, self.problem = settings, problem
        self.stages = Stages(settings.stages, problem.budget.epochs, settings.warmup, settings.skip_dropout)
        self.merit = Merit(problem, settings.ranked_by, settings.untrained_shrink, settings.untrained_draws)
        self.weights = SharedWeights(
            problem,
            shrink=settings.shrink,
            augment=settings.augment,
            average=settings.average,
            score=settings.score,
            score_images=settings.score_images,
        )
        self.policies = PolicySearch(settings, problem, self.weights, self.merit)
        self.order = torch.Generator().manual_seed(seed_of(problem.seed, "order"))
        self.chance = torch.Generator().manual_seed(seed_of(problem.seed, "skip dropout"))
        self.stage, self.epochs_done, self.finished = 0, 0, False
        self.built, self.trained = 0, 0
        """The stage of the supernet that is there, and the epochs that it has had."""
        self.steps = 0
        """Weight steps so far, which preferences take in turn."""
        self.seconds = 0.0
        """Spent in this stage."""
        self.previous: dict[str, Any] | None = None
        """What the stage before came to, until the policies of this one have learnt for an epoch."""
        self._build()

    # --- a stage ----------------------------------------------------------------------------------------------

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
            self.policies.learn()
        told: Told = []
        validation = self.weights.validation_batches(settings.batch, self.order)
        batches = self.weights.training_batches(settings.batch, self.order)
        per_epoch = max(1, self.weights.train.size // settings.batch)
        self.weights.supernet.drop_skips(0.0)
        for index, (images, labels) in enumerate(batches):
            if learning and index % settings.interval == 0:
                yield from self.policies.step(*next(validation), told)
            self.weight_step(images, labels)
            problem.between_steps()
            problem.glance(
                number * per_epoch + index + 1, problem.budget.epochs * per_epoch, self.weights.learner.loss_so_far
            )
        self.epochs_done, self.trained = self.epochs_done + 1, self.trained + 1
        metrics = {"loss": self.weights.learner.mean_loss(), "stage": self.stage + 1.0}
        metrics |= {"entropy": self.policies.entropy(), "multiply_adds": self.spent}
        if any(reward is not None for _, reward in told):
            self.previous = None
        if told:
            metrics |= yield from self.policies.metrics(told)
        self.seconds += time.monotonic() - began
        yield Progress("search", number + 1, problem.budget.epochs, metrics)

    def weight_step(self, images: Tensor, labels: Tensor) -> None:
        """One step on the weights, of one preference's relaxation or of a network that it draws; alpha stays."""
        preferences = self.policies.preferences
        preference = preferences[self.steps % len(preferences)]
        self.steps += 1
        self.weights.supernet.drop_skips(self.stages.skip_rate(self.stage, self.epochs_done), self.chance)
        if self.settings.weights == "relaxed":
            gates = {
                name: gate.to(images.device) for name, gate in preference.policy.probabilities(preference.left).items()
            }
            self.weights.step(images, labels, gates, preference.left)
        else:
            explore = 1.0 if self.settings.path_explore is None else self.settings.path_explore
            drawn = [self.policies.draw(preference, explore) for _ in range(self.settings.draws)]
            paths = (self.problem.space.selection(sample.genotype) for sample in drawn)
            self.weights.step(images, labels, None, max(paths, key=self.weights.macs.of))
        self.weights.supernet.drop_skips(0.0)

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
        last = self.stage + 1 == settings.stages
        if last or time_is_up or self.previous is not None:
            if not last and self.previous is None and self.merit.seen:
                self.problem.warn(
                    f"time was up in stage {self.stage + 1} of {settings.stages}: edges have several ops left, and "
                    "networks are derived from the likeliest; give more time, or fewer epochs"
                )
            self.stage = settings.stages
            return
        self.previous = checkpoint.copied(
            {
                "stage": self.stage,
                "supernet": None if settings.carry else self.weights.scoring.state_dict(),
                "trained": self.trained,
                "preferences": self.policies.preferences_state(),
                "seen": self.merit.state()["seen"],
            }
        )
        yield from self.policies.shrink(self.stages)
        self.stage, self.epochs_done = self.stage + 1, 0
        self.policies.begin(self.stage)
        if not settings.carry:
            self.merit.seen = {}
        self._build()

    def step_back(self) -> None:
        """To the end of the stage before, where the policies of this one had learnt nothing: time was up, or no network
        of it had a price.
        """
        if self.previous is None or self.finished:
            return
        kept, self.previous = self.previous, None
        if self.problem.time_is_up():
            stage = int(kept["stage"]) + 1
            self.problem.warn(
                f"time was up before the policies of stage {stage + 1} had learnt: the search ends with what stage "
                f"{stage} came to, without the {self.epochs_done} epochs since; give more time, or fewer epochs"
            )
        if kept["supernet"] is not None:
            self.stage = int(kept["stage"])
            self._build()
            self.stage, self.weights.averaged = self.settings.stages, None
            self.weights.supernet.load_state_dict(kept["supernet"])
            self.trained = int(kept["trained"])
            self.merit.seen = {key: list(record) for key, record in kept["seen"].items()}
        self.policies.resume_preferences(kept["preferences"])

    # --- what comes of it -------------------------------------------------------------------------------------

    def finish(self) -> Search:
        """The job's seeds, what the preferences derive, and the best samples, all scored on the same images."""
        problem, policies = self.problem, self.policies
        if not self.merit.seen:
            problem.warn(
                "time was up before the first policy step: what is proposed are networks of policies that have learnt "
                "nothing, and the best of some random ones; give more time, or fewer epochs"
            )
            yield from policies.calibrate(*next(self.weights.validation_batches(self.settings.batch, self.order)))
        wanted = {genotype.key(): genotype for genotype in problem.seeds}
        in_order = sorted(policies.preferences, key=lambda preference: -preference.direction[0])
        derived = {genotype.key(): genotype for genotype in map(policies.derive, in_order)}
        own = [
            genotype for key, genotype in derived.items() if key not in wanted and policies.prices.reason(key) is None
        ]
        room = min(len(own), max(0, problem.budget.evaluations - len(wanted)))
        for place in np.linspace(0, len(own) - 1, room).round().astype(int):  # both ends of the trade-off among them
            wanted[own[place].key()] = own[place]
        most = min(self.settings.rescored, problem.budget.evaluations - len(wanted))
        if problem.inherited is None or not policies.prices.measured:
            yield from policies.prices.ask(map(genotype_of, self.merit.seen))
        for genotype in policies.best(most, set(wanted)):
            wanted[genotype.key()] = genotype
        wanted = wanted or dict(list(derived.items())[: problem.budget.evaluations])
        genotypes = tuple(wanted.values())
        errors: list[float] = []
        for start in range(0, len(genotypes), SHOWN_EVERY):
            errors += self.scored_in_the_end(genotypes[start : start + SHOWN_EVERY])
            yield Progress("scoring", len(errors), len(genotypes))
        yield Propose(genotypes, tuple(map(self.values, self.merit.in_order(genotypes, errors))))
        self.finished = True

    def scored_in_the_end(self, genotypes: Sequence[Genotype]) -> list[float]:
        """Their errors on the supernet, 0 to 1; with untrained scores that chose none of them, if settings say so.
        ``merit.in_order`` makes of it what stands for their errors.
        """
        found: list[float] = []
        for genotype in genotypes:
            if self.settings.final_draws:
                self.merit.take_anew(genotype, self.settings.final_draws)
            found.append(self.weights.score(genotype))
            self.problem.between_steps()
        return found

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
        self.policies.inherit({name: mask.numpy() for name, mask in handed["left"].items()}, self.stage)

    def retarget(self) -> Search:
        """Policy steps alone, on weights that stay as they are."""
        settings, problem, policies = self.settings, self.problem, self.policies
        total = settings.policy_steps * len(policies.preferences)
        if not policies.prices.measured:  # what is known of the supernet shows the way from the first step
            yield from policies.prices.ask(map(genotype_of, self.merit.seen))
        while policies.turns < total and not (policies.turns and problem.time_is_up()):
            validation = self.weights.validation_batches(settings.batch, self.order)
            told: Told = []
            if self.merit.seen:
                self.policies.learn()
            for _ in range(min(total - policies.turns, max(1, total // 10))):
                yield from policies.step(*next(validation), told)
                problem.between_steps()
            metrics = {"entropy": policies.entropy(), "multiply_adds": self.spent}
            metrics |= yield from policies.metrics(told)
            yield Progress("search", policies.turns, total, metrics)
            yield Checkpoint(self.state())

    # --- safe points ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """In the end what another job can go on from; before, all that this one needs to go on."""
        state: dict[str, Any] = {"stage": self.stage, "finished": self.finished}
        if self.finished:
            left = {name: torch.from_numpy(mask) for name, mask in self.policies.left.items()}
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
            **self.policies.state(),
            "order": self.order.get_state(),
            "chance": self.chance.get_state(),
            "epochs_done": self.epochs_done,
            "built": self.built,
            "trained": self.trained,
            "steps": self.steps,
            "spent": self.weights.spent,
            "merit": self.merit.state(),
            "seconds": self.seconds,
            "previous": checkpoint.copied(self.previous),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.stage, self.finished = int(state["stage"]), bool(state["finished"])
        if self.finished:
            self.policies.turns = self.settings.policy_steps * len(self.policies.preferences)
            return
        self.epochs_done, self.steps = int(state["epochs_done"]), int(state["steps"])
        self.policies.resume(state, self.stage)
        self.merit.resume(state["merit"])
        self.seconds = float(state["seconds"])
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
        self.trained = int(state["trained"])
        self.order.set_state(state["order"])
        self.chance.set_state(state["chance"])
