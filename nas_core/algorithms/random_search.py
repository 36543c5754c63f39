"""Random search: the job's seeds, then distinct samples of the space; the baseline every other method has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from nas_core.algorithms import algorithms
from nas_core.events import Checkpoint, Progress
from nas_core.recipe import Estimation, ShortTraining
from nas_core.scoring import scorer
from nas_core.search import Problem, Search, SearchSpace
from nas_core.settings import settings
from nas_core.variation import distinct


@algorithms.register("random")
@settings
class RandomSearch:
    """Random search over distinct genotypes."""

    batch: Annotated[int, Ge(1)] = 10
    """Candidates proposed together; their measurements are interleaved."""
    evaluate: Estimation = ShortTraining()
    """How a candidate's error is learnt: a short training each, or one shared supernet."""
    needs: ClassVar[type] = SearchSpace

    def search(self, problem: Problem[SearchSpace], resume: Mapping[str, Any] | None = None) -> Search:
        rng, scoring = problem.rng, scorer(self.evaluate, problem)
        seen: list[str] = []
        if resume:
            rng.bit_generator.state = resume["rng"]
            scoring.resume(resume["scoring"])
            seen = list(resume["seen"])

        def checkpoint() -> Checkpoint:
            return Checkpoint({"rng": rng.bit_generator.state, "scoring": scoring.state(), "seen": list(seen)})

        for progress in scoring.prepare():
            yield progress
            yield checkpoint()
        budget = problem.budget.evaluations
        while len(seen) < budget and not (seen and problem.time_is_up()):
            count = min(self.batch, budget - len(seen))
            genotypes = distinct(lambda: problem.space.sample(rng), count, seen, problem.seeds)
            if not genotypes:
                return  # the space holds no more
            yield scoring.propose(genotypes)
            seen += [genotype.key() for genotype in genotypes]
            yield Progress("search", len(seen), budget)
            yield checkpoint()
