"""Searchers: ours through ``nas_core.search.drive``, pymoo's NSGA-II, Optuna's samplers, each asking an oracle.

All of them see the same two numbers of a cell. A cell that is not connected is never evaluated: ours do not propose
one, pymoo's get it as a violated constraint, Optuna's as a failed trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, cast

import numpy as np

from benchmarks.quality.oracle import Oracle, OutOfBudgetError
from nas_core.algorithms.nsga2 import Nsga2
from nas_core.algorithms.random_search import RandomSearch
from nas_core.events import Evaluation, Price, Propose
from nas_core.objectives.error import Error
from nas_core.search import Axes, Budget, Problem, SearchAlgorithm, drive, start
from nas_core.spaces.nasbench201 import BENCHMARK_OPS, EDGES, NasBench201, genotype_of, is_connected
from nas_core.values import Value

SPACE = NasBench201()
Search = Callable[[Oracle, int], None]
"""Asks the oracle until its budget is spent; the seed decides all chance."""
POPULATION = 20
DISCONNECTED = (1e3, 1e3)
"""Values that pymoo wants of what violates a constraint; it never compares them with others."""
MOST_TRIALS = 5
"""Times the budget: a sampler that proposes known cells all the time comes to an end."""


@dataclass(frozen=True)
class Column:
    """A cost column of the table as an objective."""

    unit: ClassVar[str] = ""
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "measured"


def ours(algorithm: SearchAlgorithm, oracle: Oracle, seed: int) -> None:
    """An algorithm of nas_core, in this process; the oracle stands for the evaluator."""
    import torch

    skeleton = SPACE.skeleton((3, 32, 32), 10)
    problem: Problem[NasBench201] = Problem(
        space=SPACE,
        axes=Axes({"error": Error(), "cost": Column()}),
        skeleton=skeleton,
        targets=(skeleton,),
        budget=Budget(evaluations=oracle.budget),
        seed=seed,
        rng=np.random.default_rng(seed),
        device=torch.device("cpu"),
        splits=cast(Any, None),  # no image is read: the oracle knows all errors
    )

    def answer(proposal: Propose | Price) -> Iterator[Evaluation]:
        for genotype in proposal.genotypes:
            score, cost = oracle(genotype)
            values = {"error": Value(score, Error.unit, "tabular"), "cost": Value(cost, Column.unit, "tabular")}
            yield Evaluation(genotype, (values,))

    for _ in drive(start(algorithm, problem), answer):
        pass


def pymoo_nsga2(oracle: Oracle, seed: int, population: int = POPULATION) -> None:
    """pymoo's NSGA-II on six integers: uniform crossover, polynomial mutation rounded, no duplicates."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.problems.functional import FunctionalProblem

    def ops(x: Any) -> list[str]:
        return [BENCHMARK_OPS[int(column)] for column in x]

    def values(x: Any) -> tuple[float, float]:
        return oracle(genotype_of(ops(x))) if is_connected(ops(x)) else DISCONNECTED

    problem = FunctionalProblem(
        n_var=len(EDGES),
        objs=[lambda x: values(x)[0], lambda x: values(x)[1]],
        constr_ieq=[lambda x: 0.0 if is_connected(ops(x)) else 1.0],
        xl=0,
        xu=len(BENCHMARK_OPS) - 1,
    )
    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=UX(prob=0.9),
        mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, seed=seed, termination=("n_eval", MOST_TRIALS * oracle.budget))
    with suppress(OutOfBudgetError):
        while algorithm.has_next():
            algorithm.next()


def optuna(sampler: Callable[[int], Any], oracle: Oracle, seed: int) -> None:
    """A sampler of Optuna on six categorical parameters, both values minimised."""
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    study = library.create_study(directions=["minimize", "minimize"], sampler=sampler(seed))
    with suppress(OutOfBudgetError):
        for _ in range(MOST_TRIALS * oracle.budget):
            trial = study.ask()
            ops = [trial.suggest_categorical(f"{target}-{source}", BENCHMARK_OPS) for target, source in EDGES]
            if is_connected(ops):
                study.tell(trial, oracle(genotype_of(ops)))
            else:
                study.tell(trial, state=library.trial.TrialState.FAIL)
            if oracle.used_up:
                return


def nsgaii_sampler(seed: int, population: int = POPULATION) -> Any:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=population, seed=seed)


def tpe_sampler(seed: int) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(multivariate=True, seed=seed)


SEARCHES: dict[str, Search] = {
    "random": partial(ours, RandomSearch(batch=POPULATION)),
    "nsga2": partial(ours, Nsga2(population=POPULATION)),
    "pymoo": pymoo_nsga2,
    "optuna-nsga2": partial(optuna, nsgaii_sampler),
    "optuna-tpe": partial(optuna, tpe_sampler),
}
"""By name."""
