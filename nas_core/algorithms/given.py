"""No search at all: the architectures that a job names, evaluated as those of a search are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from nas_core.algorithms import algorithms
from nas_core.errors import InvalidSettingsError
from nas_core.events import Checkpoint, Progress
from nas_core.recipe import Estimation, ShortTraining
from nas_core.scoring import scorer
from nas_core.search import Problem, Search, SearchSpace
from nas_core.settings import settings
from nas_core.variation import untried


@algorithms.register("given")
@settings
class Given:
    """The architectures given as seeds, and no others."""

    batch: Annotated[int, Ge(1)] = 10
    """Candidates proposed together; their measurements are interleaved."""
    evaluate: Estimation | None = ShortTraining()
    """How a candidate's error is learnt before the verification: a short training each, or one shared supernet; null:
    not at all, and every candidate is verified."""
    needs: ClassVar[type] = SearchSpace
    needs_seeds: ClassVar[bool] = True

    def search(self, problem: Problem[SearchSpace], resume: Mapping[str, Any] | None = None) -> Search:
        """Raises InvalidSettingsError for a problem without seeds."""
        if not problem.seeds:
            raise InvalidSettingsError("algorithm 'given' evaluates seeds and nothing else; give it at least one")
        scoring = scorer(self.evaluate, problem)
        seen: list[str] = []
        if resume:
            scoring.resume(resume["scoring"])
            seen = list(resume["seen"])

        def checkpoint() -> Checkpoint:
            return Checkpoint({"scoring": scoring.state(), "seen": list(seen)})

        for progress in scoring.prepare():
            yield progress
            yield checkpoint()
        budget = min(problem.budget.evaluations, len(problem.seeds))
        while len(seen) < budget and not (seen and problem.time_is_up()):
            genotypes = untried(problem.seeds, min(self.batch, budget - len(seen)), seen)
            if not genotypes:
                return  # some were there twice
            yield scoring.propose(genotypes)
            seen += [genotype.key() for genotype in genotypes]
            yield Progress("search", len(seen), budget)
            yield checkpoint()
