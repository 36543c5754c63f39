"""Answers what an algorithm proposes: exact costs, tables, short trainings, measurements; a failure is a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from nas_core.architecture import Architecture, Genotype, Skeleton
from nas_core.data import first_drawn
from nas_core.errors import DivergedError, MissingRowError, NasCoreError, NoRoomError
from nas_core.events import Evaluation, Price, Propose
from nas_core.masks import Masks, require
from nas_core.recipe import ShortTraining
from nas_core.search import Objective, Problem
from nas_core.training import Training, misclassified, seed_of
from nas_core.values import Value
from nas_core.valuing import data_value, measured_values, settled_value

Journal = Mapping[str, Mapping[str, Value]]
"""What is known already: values by objective key, by architecture hash."""
Measured = Mapping[tuple[str, str], Value | str]
"""By architecture hash and objective key; a text says why there is no value."""


MESSAGE = 500
"""Characters of an error that become a candidate's failure."""
FAILURES = (NasCoreError, RuntimeError, ValueError, ArithmeticError)
"""What fails a candidate and no search; out of memory is among them."""


class NoValueError(NasCoreError):
    """An objective has no value for a network, or none that is a number."""


def _finite(key: str, value: Value | str) -> Value:
    """``value`` itself; a text says why there is none. Raises NoValueError."""
    if isinstance(value, str):
        raise NoValueError(f"{key} could not be measured: {value}")
    if not math.isfinite(value.value):
        raise NoValueError(f"{key} is {value.value}, not a finite number")
    return value


def _reason(error: Exception) -> str:
    """In words of ours as they are, else with what kind of error it is."""
    if isinstance(error, (NoValueError, DivergedError, NoRoomError, MissingRowError)):
        return str(error)
    return f"{type(error).__name__}: {str(error)[:MESSAGE]}"


def side_by_side(
    key: str, objective: Objective, architectures: Sequence[Architecture], device: torch.device
) -> list[Value | str]:
    """Measures all together; where that fails, one after another, so that one bad network does not take the others
    along. What cannot be measured has the reason in its place.
    """
    try:
        return [*measured_values(key, objective, architectures, device)]
    except (NasCoreError, RuntimeError) as error:
        if len(architectures) == 1:
            return [str(error)]
    return [value for architecture in architectures for value in side_by_side(key, objective, [architecture], device)]


class Evaluator:
    """An evaluator for :func:`nas_core.search.drive`.

    It answers from the journal first, so that a resumed search neither trains nor measures twice; then measures all of
    a proposal interleaved, then trains one candidate after another, and yields each as soon as it is complete.
    """

    def __init__(self, problem: Problem[Any], journal: Journal | None = None) -> None:
        self.problem = problem
        self.journal: dict[str, dict[str, Value]] = {key: dict(values) for key, values in (journal or {}).items()}

    def __call__(self, proposal: Propose | Price) -> Iterator[Evaluation]:
        if isinstance(proposal, Price):
            yield from self._priced(proposal.genotypes)
            return
        count = len(proposal.genotypes)
        known, brought = proposal.known or ({},) * count, proposal.masks or (None,) * count
        measured = {} if proposal.unscored else self._measure(proposal.genotypes, self.problem.targets)
        for genotype, given, masks in zip(proposal.genotypes, known, brought, strict=True):
            try:
                yield self._evaluate(genotype, given, proposal, measured, masks or self._known_masks(genotype))
            except FAILURES as error:
                yield Evaluation(genotype, (), _reason(error))

    def _priced(self, genotypes: Sequence[Genotype]) -> Iterator[Evaluation]:
        first = self.problem.targets[:1]
        measured = self._measure(genotypes, first)
        for genotype in genotypes:
            try:
                self.problem.space.check(genotype)
                values = self._costs(Architecture(genotype, first[0]), measured)
            except (NasCoreError, ValueError, ArithmeticError) as error:
                yield Evaluation(genotype, (), str(error)[:MESSAGE])
            else:
                yield Evaluation(genotype, (values,))

    def _costs(self, architecture: Architecture, measured: Measured) -> dict[str, Value]:
        """Every value that needs no error. Raises NasCoreError for one that cannot be had."""
        keys = [key for key, objective in self.problem.axes.objectives.items() if objective.source != "data"]
        found = self._values(architecture, keys, measured)
        self.journal.setdefault(architecture.hash, {}).update(found)
        return found

    def _values(
        self,
        architecture: Architecture,
        keys: Iterable[str],
        measured: Measured,
        data: Mapping[str, Value] = MappingProxyType({}),
        masks: Masks | None = None,
    ) -> dict[str, Value]:
        """Of these objectives at one target; ``data``: of those that follow from the error. Raises one of FAILURES."""
        found = {}
        for key in keys:
            objective = self.problem.axes.objectives[key]
            value: Value | str | None
            value = settled_value(key, objective, architecture, None if masks is None else masks.removed)
            if value is None:
                value = data[key] if objective.source == "data" else measured[architecture.hash, key]
            found[key] = _finite(key, value)
        return found

    def _architectures(self, genotype: Genotype) -> list[Architecture]:
        return [Architecture(genotype, target) for target in self.problem.targets]

    def _evaluate(
        self,
        genotype: Genotype,
        given: Mapping[str, Value],
        proposal: Propose,
        measured: Measured,
        masks: Masks | None,
    ) -> Evaluation:
        self.problem.space.check(genotype)
        for architecture in self._architectures(genotype):
            require(architecture, masks)
        data = {} if proposal.unscored else self._data_values(genotype, given, proposal, masks)
        objectives = self.problem.axes.objectives
        left_out = ("data", "measured") if proposal.unscored else ()
        keys = [key for key, objective in objectives.items() if objective.source not in left_out]
        values, failures = list[Mapping[str, Value]](), list[str | None]()
        for architecture in self._architectures(genotype):
            try:
                found = self._values(architecture, keys, measured, data, masks)
            except FAILURES as error:
                values.append({})
                failures.append(_reason(error))
            else:
                self.journal[architecture.hash] = found
                values.append(found)
                failures.append(None)
        if None not in failures:
            return Evaluation(genotype, (), failures[0])
        return Evaluation(genotype, tuple(values), failures=tuple(failures) if any(failures) else ())

    def _measure(self, genotypes: Sequence[Genotype], targets: Sequence[Skeleton]) -> Measured:
        """Measured objectives of these targets, journalled ones as they were, the others interleaved.

        What cannot be measured has the reason in its place.
        """
        found: dict[tuple[str, str], Value | str] = {}
        for key, objective in self.problem.axes.objectives.items():
            if objective.source != "measured":
                continue
            missing: dict[str, Architecture] = {}
            for genotype in genotypes:
                for architecture in (Architecture(genotype, target) for target in targets):
                    known = self.journal.get(architecture.hash, {}).get(key)
                    if known is not None:
                        found[architecture.hash, key] = known
                    else:
                        missing[architecture.hash] = architecture
            if missing:
                with self.problem.quietly():
                    taken = side_by_side(key, objective, list(missing.values()), self.problem.device)
                for name, value in zip(missing, taken, strict=True):
                    found[name, key] = value
        return found

    def _known_masks(self, genotype: Genotype) -> Masks | None:
        """Of a genotype that comes without: those of the problem's seeds."""
        return None if genotype.masks is None else self.problem.masks.get(genotype.masks)

    def _data_values(
        self, genotype: Genotype, given: Mapping[str, Value], proposal: Propose, masks: Masks | None
    ) -> Mapping[str, Value]:
        """Values of all objectives that follow from the error: given, journalled or trained for."""
        wanted = [key for key, objective in self.problem.axes.objectives.items() if objective.source == "data"]
        if all(key in given for key in wanted):
            return given
        journalled = self.journal.get(self._architectures(genotype)[0].hash, {})
        if all(key in journalled for key in wanted):
            return journalled
        if proposal.train is None:
            raise NasCoreError("the algorithm neither scored its proposal nor said how to train it")
        error, detail = self._short_error(genotype, proposal.train, masks)
        objectives = self.problem.axes.objectives
        return {key: data_value(key, objectives[key], error, "trained", detail) for key in wanted}

    def _short_error(
        self, genotype: Genotype, short: ShortTraining, masks: Masks | None
    ) -> tuple[float, dict[str, Any]]:
        """Validation error after a short training on the search skeleton."""
        problem = self.problem
        architecture = Architecture(genotype, problem.skeleton)
        split = first_drawn(problem.splits.train, short.subset, seed_of(problem.seed, "subset"))
        judges = first_drawn(problem.splits.validation, short.score_images, seed_of(problem.seed, "judges"))
        training = Training(
            architecture,
            short.recipe(),
            split,
            problem.splits.augmentation,
            seed_of(problem.seed, architecture.hash, "search"),
            problem.device,
            problem.between_steps,
            problem.glance,
            masks,
        )
        while not training.finished:
            if training.epoch() is None:
                problem.warn(str(training.no_room and training.no_room.warning))
        wrong = misclassified(training.network, judges, problem.device)
        detail: dict[str, Any] = {"epochs": short.epochs, "seeds": 1, "split": "validation", "n": judges.size}
        if training.micro_batch is not None:
            detail["micro_batch"] = training.micro_batch
        return wrong / judges.size, detail
