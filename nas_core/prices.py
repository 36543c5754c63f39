"""What sampled networks cost, each asked for once."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any

from nas_core.architecture import Genotype
from nas_core.events import Evaluation, Price
from nas_core.search import Problem

Asking = Generator[Price, list[Evaluation], None]


class Prices:
    """Values by genotype, at the first target, of every objective that is no error or accuracy."""

    def __init__(self, problem: Problem[Any]) -> None:
        self.problem = problem
        objectives = problem.axes.objectives
        self.keys = list(problem.axes.priced)
        self.measured = any(objective.source == "measured" for objective in objectives.values())
        """Whether asking takes time of a device."""
        self._known: dict[str, dict[str, float] | str] = {}
        """By genotype's key; a text says why there are none."""
        self._warned: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether it was asked for."""
        return key in self._known

    def ask(self, genotypes: Iterable[Genotype]) -> Asking:
        """For what is not known yet. The first that cannot be priced is told of."""
        missing = {genotype.key(): genotype for genotype in genotypes if genotype.key() not in self}
        if not missing:
            return
        answered: list[Evaluation] = yield Price(tuple(missing.values()))
        for evaluation in answered:
            key = evaluation.genotype.key()
            if evaluation.failure is None:
                self._known[key] = found = {name: evaluation.values[0][name].value for name in self.keys}
                for name in _unrewarded(found):
                    self._warn(
                        name,
                        f"'{name}' is {found[name]:g} for a network: rewards are powers of ratios and cannot tell "
                        "values of 0 or less apart; shift the metric, so that it is positive",
                    )
                continue
            self._known[key] = evaluation.failure
            self._warn("", f"a sampled network cannot be priced, and counts as worthless: {evaluation.failure}")

    def _warn(self, about: str, text: str) -> None:
        """Once about each."""
        if about not in self._warned:
            self._warned.add(about)
            self.problem.warn(text)

    def of(self, key: str) -> Mapping[str, float] | None:
        """None: it could not be priced. Raises KeyError for one that was not asked for."""
        known = self._known[key]
        return None if isinstance(known, str) else known

    def known(self, key: str) -> Mapping[str, float] | None:
        """None as well where it was not asked for."""
        return self.of(key) if key in self else None

    def reason(self, key: str) -> str | None:
        """Why there is no price; None where there is one, or nobody asked."""
        known = self._known.get(key)
        return known if isinstance(known, str) else None

    @property
    def failures(self) -> list[str]:
        """Reasons, one for each genotype without a price."""
        return [known for known in self._known.values() if isinstance(known, str)]

    def state(self) -> dict[str, Any]:
        return {key: known if isinstance(known, str) else dict(known) for key, known in self._known.items()}

    def resume(self, state: Mapping[str, Any]) -> None:
        self._known = {key: known if isinstance(known, str) else dict(known) for key, known in state.items()}
        self._warned = {name for found in self._known.values() for name in _unrewarded(found)}
        self._warned |= {""} if self.failures else set()


def _unrewarded(found: Mapping[str, float] | str) -> list[str]:
    """Metrics whose value no reward can tell from others of 0 or less."""
    return [] if isinstance(found, str) else [name for name, value in found.items() if value <= 0]
