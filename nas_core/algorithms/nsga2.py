"""NSGA-II (Deb, Pratap, Agarwal, Meyarivan, IEEE TEC 6(2), 2002) over genotypes.

Binary tournaments by rank and crowding distance, constrained domination (section VI), elitist survival. Crossover and
mutation are the space's. We never evaluate a genotype twice: a child that was tried before is varied again. The job's
seeds come before all samples and children.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from nas_core.algorithms import algorithms
from nas_core.architecture import Genotype
from nas_core.events import Checkpoint, Evaluation, Progress, evaluation_from_json, evaluation_to_json
from nas_core.pareto import constrained_ranks, crowding_by_rank, foremost
from nas_core.recipe import Estimation, ShortTraining
from nas_core.scoring import scorer
from nas_core.search import Evolvable, Problem, Search
from nas_core.settings import settings
from nas_core.variation import distinct


@algorithms.register("nsga2")
@settings
class Nsga2:
    """NSGA-II: evolution by rank and crowding distance, with bounds by constrained domination."""

    population: Annotated[int, Ge(4)] = 20
    """Candidates alive, and children of a generation."""
    crossover: Annotated[float, Ge(0), Le(1)] = 0.9
    """Probability that a child has two parents; it is mutated in any case."""
    evaluate: Estimation = ShortTraining()
    """How a candidate's error is learnt: a short training each, or one shared supernet."""
    needs: ClassVar[type] = Evolvable

    def search(self, problem: Problem[Evolvable], resume: Mapping[str, Any] | None = None) -> Search:
        rng, scoring = problem.rng, scorer(self.evaluate, problem)
        alive: list[Evaluation] = []
        seen: list[str] = []
        if resume:
            rng.bit_generator.state = resume["rng"]
            scoring.resume(resume["scoring"])
            alive = [evaluation_from_json(data) for data in resume["alive"]]
            seen = list(resume["seen"])

        def checkpoint() -> Checkpoint:
            return Checkpoint(
                {
                    "rng": rng.bit_generator.state,
                    "scoring": scoring.state(),
                    "alive": [evaluation_to_json(evaluation) for evaluation in alive],
                    "seen": list(seen),
                }
            )

        for progress in scoring.prepare():
            yield progress
            yield checkpoint()
        budget = problem.budget.evaluations
        while len(seen) < budget and not (seen and problem.time_is_up()):
            count = min(self.population, budget - len(seen))
            genotypes = self._children(problem, alive, count, seen)
            if not genotypes:
                return  # the space holds no more
            evaluations = yield scoring.propose(genotypes)
            seen += [genotype.key() for genotype in genotypes]
            alive = survivors(problem, alive + evaluations, self.population)
            yield Progress("search", len(seen), budget, {"alive": len(alive)})
            yield checkpoint()

    def _children(
        self, problem: Problem[Evolvable], alive: Sequence[Evaluation], count: int, seen: Sequence[str]
    ) -> list[Genotype]:
        rng, space = problem.rng, problem.space
        if not alive:
            return distinct(lambda: space.sample(rng), count, seen, problem.seeds)
        rank, crowding = fitness(problem, alive)

        def parent() -> Genotype:
            one, other = rng.integers(len(alive), size=2)
            better = (rank[one], -crowding[one]) <= (rank[other], -crowding[other])
            return alive[int(one if better else other)].genotype

        def child() -> Genotype:
            mated = space.crossover(parent(), parent(), rng) if rng.random() < self.crossover else parent()
            return space.mutate(mated, rng)

        return distinct(child, count, seen, problem.seeds)  # more of them than a population holds


def fitness(problem: Problem[Any], evaluations: Sequence[Evaluation]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Constrained rank and crowding distance within the rank; failures come last."""
    costs = problem.costs(evaluations)
    rank = constrained_ranks(costs, problem.violations(evaluations))
    return rank, crowding_by_rank(costs, rank)


def survivors(problem: Problem[Any], evaluations: Sequence[Evaluation], count: int) -> list[Evaluation]:
    """The best ``count`` by rank, then by crowding distance, then by age."""
    return [evaluations[i] for i in foremost(problem.costs(evaluations), problem.violations(evaluations), count)]
