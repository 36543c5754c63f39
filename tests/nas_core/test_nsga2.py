"""NSGA-II: its parts by hand, and the quality of its fronts against pymoo's on the same problem."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from nas_core.algorithms.nsga2 import Nsga2, fitness, survivors
from nas_core.algorithms.random_search import RandomSearch
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count
from nas_core.events import Evaluated, Evaluation, Propose
from nas_core.pareto import hypervolume
from nas_core.search import Bound, Problem, SearchAlgorithm, drive, start
from nas_core.spaces.darts import DartsCells
from nas_core.values import Value
from tests.contracts.problems import problem

SPACE = DartsCells(cells=5, channels=8)
SKELETON = SPACE.skeleton((3, 32, 32), 10)
CEILING = count(Architecture(SPACE.extreme(SKELETON, "params", True), SKELETON)).params
STRENGTH = {"sep_conv_5x5": 1.0, "sep_conv_3x3": 0.9, "dil_conv_5x5": 0.6, "dil_conv_3x3": 0.5, "skip_connect": 0.35}


def known_costs(genotype: Genotype) -> tuple[float, float]:
    """A made-up error that falls with strong ops, early inputs and variety, and the real params: they conflict."""
    quality = 0.0
    for name, weight in (("normal", 1.0), ("reduce", 0.5)):
        edges = genotype.types[name].edges
        quality += weight * sum(STRENGTH.get(edge.op, 0.1) / (1 + 0.3 * edge.source) for edge in edges)
        quality += 0.2 * weight * len({edge.op for edge in edges})
    return 1.0 / (1.0 + quality), count(Architecture(genotype, SKELETON)).params / CEILING


def evaluate(proposal: Propose) -> Iterator[Evaluation]:
    for genotype in proposal.genotypes:
        error, params = known_costs(genotype)
        values = {"error": Value(error, "", "tabular"), "params": Value(params, "", "tabular")}
        yield Evaluation(genotype, (values,))


def on(seed: int, evaluations: int) -> Problem[DartsCells]:
    made = problem(seed, evaluations)
    object.__setattr__(made, "space", SPACE)
    return made


def quality(points: list[tuple[float, float]]) -> float:
    return hypervolume(points, [0.35, 1.0])


def ours(algorithm: SearchAlgorithm, seed: int, evaluations: int) -> float:
    events = drive(start(algorithm, on(seed, evaluations)), evaluate)
    return quality([known_costs(event.evaluation.genotype) for event in events if isinstance(event, Evaluated)])


def pymoos(seed: int, evaluations: int, population: int) -> float:
    """pymoo's NSGA2 with our space's sampling, crossover and mutation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.crossover import Crossover
        from pymoo.core.duplicate import ElementwiseDuplicateElimination
        from pymoo.core.mutation import Mutation
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.core.sampling import Sampling
        from pymoo.optimize import minimize
    rng = np.random.default_rng(seed)
    seen: list[tuple[float, float]] = []

    class Known(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=1, n_obj=2)

        def _evaluate(self, x, out, *args, **kwargs):  # type: ignore[no-untyped-def]
            out["F"] = known_costs(x[0])
            seen.append(out["F"])

    class Sample(Sampling):  # type: ignore[misc]
        def _do(self, problem, n_samples, **kwargs):  # type: ignore[no-untyped-def]
            return np.array([[SPACE.sample(rng)] for _ in range(n_samples)], dtype=object)

    class Mate(Crossover):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(2, 2, prob=0.9)

        def _do(self, problem, X, **kwargs):  # type: ignore[no-untyped-def]  # noqa: N803
            out = np.empty_like(X)
            for mating in range(X.shape[1]):
                for child in range(2):
                    out[child, mating, 0] = SPACE.crossover(X[0, mating, 0], X[1, mating, 0], rng)
            return out

    class Change(Mutation):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(prob=1.0)

        def _do(self, problem, X, **kwargs):  # type: ignore[no-untyped-def]  # noqa: N803
            return np.array([[SPACE.mutate(x[0], rng)] for x in X], dtype=object)

    class Same(ElementwiseDuplicateElimination):  # type: ignore[misc]
        def is_equal(self, a, b):  # type: ignore[no-untyped-def]
            return a.X[0].key() == b.X[0].key()

    algorithm = NSGA2(population, sampling=Sample(), crossover=Mate(), mutation=Change(), eliminate_duplicates=Same())
    minimize(Known(), algorithm, ("n_eval", evaluations), seed=seed, verbose=False)
    return quality(seen)


@pytest.mark.slow
def test_its_fronts_are_as_good_as_pymoos_and_better_than_random() -> None:
    seeds, evaluations = range(5), 400
    mine = [ours(Nsga2(population=20), seed, evaluations) for seed in seeds]
    theirs = [pymoos(seed, evaluations, 20) for seed in seeds]
    chance = [ours(RandomSearch(), seed, evaluations) for seed in seeds]
    gain = statistics.median(theirs) - statistics.median(chance)
    assert gain > 0
    assert statistics.median(mine) > statistics.median(theirs) - 0.15 * gain
    assert statistics.median(mine) > statistics.median(chance) + 0.7 * gain


def evaluation(error: float, params: float, failure: str | None = None) -> Evaluation:
    genotype = SPACE.sample(np.random.default_rng(int(params)))
    values = {"error": Value(error, "", "tabular"), "params": Value(params, "", "tabular")}
    return Evaluation(genotype, () if failure else (values,), failure)


def test_survivors_by_rank_then_crowding_and_failures_last() -> None:
    ends = [evaluation(0.1, 900.0), evaluation(0.9, 100.0)]
    crowded, lonely = evaluation(0.12, 880.0), evaluation(0.5, 400.0)
    dominated, failed = evaluation(0.95, 950.0), evaluation(0.0, 0.0, "out of memory")
    pool = [failed, dominated, crowded, lonely, *ends]
    assert survivors(on(0, 1), pool, 3) == [*ends, lonely]
    assert survivors(on(0, 1), pool, 6)[-2:] == [dominated, failed]


def test_feasible_survives_before_better_but_infeasible() -> None:
    bounded = problem(bounds={"params": Bound(max=500.0)})
    inside, outside, far = evaluation(0.9, 400.0), evaluation(0.1, 600.0), evaluation(0.1, 900.0)
    rank, _ = fitness(bounded, [far, outside, inside])
    assert rank.tolist() == [2, 1, 0]


def test_bounds_that_last_come_before_those_on_an_estimated_error() -> None:
    """However far the error is beyond its bound, and however little the others are."""
    limits = {"error": Bound(max=0.01), "params": Bound(max=500.0)}
    bounded = problem(bounds=limits)
    pool = [evaluation(0.01, 501.0), evaluation(0.9, 500.0), evaluation(0.4, 300.0), evaluation(0.01, 600.0)]
    pool += [evaluation(0.0, 0.0, "out of memory"), evaluation(0.01, 500.0)]
    violations = bounded.violations(pool)
    assert violations.argsort().tolist() == [5, 2, 1, 0, 3, 4]
    assert violations[5] == 0 and 0 < violations[2] < violations[1] < 1 < violations[0] < violations[3] < np.inf


def test_a_bound_that_no_estimate_holds_does_not_keep_the_search_from_the_other_bounds() -> None:
    """Two random networks of a hundred are small enough."""
    rng = np.random.default_rng(1)
    small = float(np.quantile([known_costs(SPACE.sample(rng))[1] for _ in range(500)], 0.02))
    found = {}
    for error in (None, 0.005):
        bounds = {"params": Bound(max=small)} | ({} if error is None else {"error": Bound(max=error)})
        made = on(0, 200)
        object.__setattr__(made, "axes", replace(made.axes, bounds=bounds))
        events = drive(start(Nsga2(population=20), made), evaluate)
        points = [known_costs(event.evaluation.genotype) for event in events if isinstance(event, Evaluated)]
        found[error] = sum(params <= small for _, params in points[100:])
    assert min(found.values()) >= 40, found


@pytest.mark.parametrize("algorithm", [Nsga2(population=4), RandomSearch(batch=3)])
def test_no_genotype_is_evaluated_twice(algorithm: SearchAlgorithm) -> None:
    keys = []
    for event in drive(start(algorithm, on(0, 60)), evaluate):
        if isinstance(event, Evaluated):
            keys.append(event.evaluation.genotype.key())
    assert len(keys) == len(set(keys)) == 60
