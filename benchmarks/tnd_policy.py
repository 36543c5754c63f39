"""What TND-NAS's policies find, apart from what their ranking is worth: searches on scores in a table, without weights.

    python -m benchmarks.tnd_policy --data FOLDER [--variants full frozen ...] [--costs raspi4 gold6226] [--seeds 8]
        [--cache build/search-quality]

FOLDER as for ``benchmarks.tnd_nas``, whose ``full`` on raspi4, seed 0, gives the supernet (it is trained where the
cache has none). Its accuracy, and scores of one draw of untrained weights, of all 15,625 cells go into a table first
(40 minutes of a core, kept in the cache; several processes with ``--part 0/2``, ``1/2`` share the work). Then policies
learn as in that benchmark, with accuracies from the table and batch noise; ``random`` and ``nsga2`` see as many cells
as ``full``. Of all cells that a search has seen, the tight hypervolume is told

    own     if true errors were in the order of the ranking: what a search can be blamed for
    true    by the truth

Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.images import cifar10
from benchmarks.quality.methods import SEARCHES
from benchmarks.quality.oracle import Answer, Oracle, Spent
from benchmarks.quality.runs import TRUTH, Bench
from benchmarks.quality.statistics import estimate, paired
from benchmarks.rows import seeded
from benchmarks.tight import Tight, load_table, tight
from benchmarks.tnd_nas import BASE, COSTS, VARIANTS, World, state_of_full
from nas_core import settings
from nas_core.algorithms.tnd_nas import TndNas
from nas_core.architecture import Genotype
from nas_core.events import Evaluation, Price, Propose
from nas_core.merit import Merit
from nas_core.policy_search import PolicySearch
from nas_core.prices import Asking
from nas_core.progressive import Run
from nas_core.ranking import Blend, agreed
from nas_core.search import drive
from nas_core.shared_weights import SharedWeights
from nas_core.spaces.nasbench201 import from_arch
from nas_core.stages import Stages
from nas_core.training import seed_of
from nas_core.values import Value

Floats = NDArray[np.float64]
SIGNALS = ("supernet", "progressivity", "synflow")
"""Columns of the table."""
NOISE = 2.0
"""Points of accuracy, standard deviation: what a batch of 128 adds."""
STEPS, EPOCH = 45, 9
"""Policy steps of a stage, and of an epoch, after which the ranking learns anew: as in ``benchmarks.tnd_nas``."""
OURS: dict[str, dict[str, Any]] = {
    **{name: dict(VARIANTS[name]) for name in ("full", "frozen", "no-shrink", "one", "four", "alone")},
    "no-elites": {"elites": 0},
    "no-redraws": {"redraws": 0},
}
OTHERS = ("random", "nsga2")
KEPT_EVERY = 100


def tabulate(world: World, part: int, parts: int) -> Floats:
    """(cells, signals) of every ``parts``-th cell from ``part`` on; goes on where it was cut."""
    file = world.cache / f"tnd-policy-{part}-of-{parts}.npy"
    archs = world.bench.table.archs[part::parts]
    done = np.load(file) if file.exists() else np.empty((0, len(SIGNALS)))
    if len(done) < len(archs):
        run = _supernet(world)
        rows = done.tolist()
        for arch in archs[len(done) :]:
            genotype = from_arch(arch)
            rows.append([100.0 * (1.0 - run.weights.score(genotype)), *run.merit.signals(genotype)])
            if len(rows) % KEPT_EVERY == 0 or len(rows) == len(archs):
                np.save(file, np.array(rows))
                print(f"{len(rows)} of {len(archs)} cells scored", flush=True)
        done = np.array(rows)
    return cast(Floats, done)


def _supernet(world: World) -> Run:
    algorithm = replace(world.algorithm("full"), untrained_draws=1)
    run = Run(algorithm, world.problem(0, 1))
    run.inherit(state_of_full(world, "raspi4", 0))
    return run


@dataclass(frozen=True)
class Tabulated:
    """All cells with their signals, and how good a set of them is."""

    bench: Bench
    signals: Floats
    """(cells, SIGNALS)."""

    @cached_property
    def rows(self) -> dict[str, int]:
        return {from_arch(arch).key(): row for row, arch in enumerate(self.bench.table.archs)}

    @cached_property
    def weights(self) -> Floats:
        return np.array([float(cast(Any, BASE["ranked_by"])[name]) for name in SIGNALS])

    @cached_property
    def errors(self) -> Floats:
        """True ones, put into the order of the ranking."""
        found = np.empty(len(self.signals))
        found[np.argsort(-agreed(self.signals, self.weights))] = np.sort(self.bench.errors)
        return found

    @cached_property
    def own(self) -> dict[str, Tight]:
        """By cost: the measure, if these were the true errors."""
        table = self.bench.table
        ranked = replace(table, columns={**table.columns, TRUTH: 100.0 - self.errors})
        return {cost: tight(ranked, TRUTH, column) for cost, column in COSTS.items()}

    def worth(self, cost: str, rows: Sequence[int]) -> dict[str, float]:
        seen, costs = np.unique(rows), self.bench.table.columns[COSTS[cost]]
        return {
            "cells": float(len(seen)),
            "own": self.own[cost].hypervolume(self.errors[seen], costs[seen]),
            "true": self.bench.tights[COSTS[cost]].hypervolume(self.bench.errors[seen], costs[seen]),
        }


class NoisyWeights:
    """Accuracies from the table in place of a supernet."""

    def __init__(self, table: Tabulated, seed: int) -> None:
        self.table, self.rng, self.spent = table, np.random.default_rng(seed_of(seed, "noise")), 0.0

    def error(self, genotype: Genotype, images: Any, labels: Any) -> float:
        return self.score(genotype) - NOISE * float(self.rng.normal()) / 100.0

    def score(self, genotype: Genotype, onlookers: bool = False) -> float:
        return 1.0 - float(self.table.signals[self.table.rows[genotype.key()], 0]) / 100.0


def by_policies(world: World, table: Tabulated, variant: str, cost: str, seed: int) -> list[int]:
    """Rows that one search sees."""
    algorithm: TndNas = settings.parse(TndNas, {**BASE, **OURS[variant]}, "tnd-nas")
    blind = replace(world, images=lambda seed: cast(Any, None))
    problem, column = blind.problem(seed, 1), world.bench.table.columns[COSTS[cost]]
    merit = Merit(problem, algorithm.ranked_by, algorithm.untrained_shrink, algorithm.untrained_draws)
    others = {key: table.signals[row, 1:].tolist() for key, row in table.rows.items()}
    merit.resume({"seen": {}, "others": others, "spent": 0.0})
    policies = PolicySearch(algorithm, problem, cast(SharedWeights, NoisyWeights(table, seed)), merit)
    stages = Stages(algorithm.stages, world.epochs, algorithm.warmup)
    nothing = torch.empty(0)

    def priced(asked: Propose | Price) -> Iterator[Evaluation]:
        for genotype in asked.genotypes:
            yield Evaluation(genotype, ({"cost": Value(float(column[table.rows[genotype.key()]]), "", "tabular")},))

    def answered(asking: Asking) -> None:
        for _ in drive(asking, priced):
            pass

    for stage in range(algorithm.stages):
        for step in range(STEPS):
            if step % EPOCH == 0 and merit.seen:
                policies.learn()
            answered(policies.step(nothing, nothing, []))
        if stage + 1 < algorithm.stages:
            answered(policies.shrink(stages))
            policies.begin(stage + 1)
    derived = [policies.derive(preference).key() for preference in policies.preferences]
    return [table.rows[key] for key in [*merit.seen, *derived]]


@dataclass
class OfTheTable:
    """The ranking as a signal, learnt from as many random cells as searches see."""

    table: Tabulated
    seed: int
    cells: int
    preparation: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        signals, rng = self.table.signals, np.random.default_rng(self.seed)
        self.blend = Blend(signals[rng.choice(len(signals), self.cells, replace=False)], self.table.weights)

    def __call__(self, row: int) -> Answer:
        return Answer(1.0 - float(self.blend(self.table.signals[[row]])[0]) / 100.0, Spent())


def by_another(world: World, table: Tabulated, name: str, cost: str, seed: int, cells: int) -> list[int]:
    oracle = Oracle(world.bench.table, OfTheTable(table, seed, cells), world.bench.table.columns[COSTS[cost]], cells)
    SEARCHES[name](oracle, seed)
    return list(oracle.asked)


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    table = load_table(given.data)
    bench = Bench.of(table, [COSTS[cost] for cost in COSTS])
    world = World(bench, lru_cache(1)(partial(cifar10, given.data)), given.cache, epochs=36)
    part, parts = map(int, given.part.split("/"))
    own_part = tabulate(world, part, parts)
    if parts > 1 and part:
        return 0
    signals = np.empty((len(table.archs), len(SIGNALS)))
    for one in range(parts):
        signals[one::parts] = own_part if one == part else tabulate(world, one, parts)
    tabulated, results = Tabulated(bench, signals), []
    for cost in given.costs:
        rows: dict[str, list[dict[str, float]]] = {}
        for variant in dict.fromkeys(["full", *given.variants]):
            began = time.process_time()
            for seed in range(given.first, given.first + given.seeds):
                if variant in OTHERS:
                    cells = int(rows["full"][len(rows.get(variant, []))]["cells"])
                    seen = by_another(world, tabulated, variant, cost, seed, cells)
                else:
                    seen = by_policies(world, tabulated, variant, cost, seed)
                rows.setdefault(variant, []).append(tabulated.worth(cost, seen))
            line: dict[str, Any] = {"variant": variant, "cost": cost}
            for name in ("cells", "own", "true"):
                line[name] = float(np.mean([row[name] for row in rows[variant]]))
            values = {name: [row["own"] for row in rows[name]] for name in ("full", variant)}
            line["own_of_seeds"] = estimate(values[variant]).to_json()
            line["own_less_than_full"] = paired(values["full"], values[variant]).to_json()
            results.append(line)
            print(
                f"{variant:10s} {cost:9s} own {line['own']:.3f} true {line['true']:.3f} cells {line['cells']:.0f} "
                f"({time.process_time() - began:.0f} s)",
                flush=True,
            )
    print(json.dumps({"benchmark": "tnd_policy", "seeds": given.seeds, "results": results}))
    return 0


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.add_argument("--variants", nargs="+", default=["frozen", *OTHERS], choices=[*OURS, *OTHERS])
    parser.add_argument("--costs", nargs="+", default=["raspi4", "gold6226"], choices=list(COSTS))
    parser.add_argument(
        "--part", default="0/1", help="which part of the cells this process scores; the first one goes on"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
