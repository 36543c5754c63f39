"""TND-NAS on NAS-Bench-201: how good its fronts are, what they cost, and what each of its parts is worth.

    python -m benchmarks.tnd_nas --data FOLDER [--variants full frozen ...] [--costs raspi4 gold6226 eyeriss fpga]
        [--seeds 5] [--epochs 60] [--cache build/search-quality]

FOLDER holds ``nasbench201.csv.gz`` and ``cifar10_full_jpeg.npz``. A run is one search by ``tnd-nas`` in one process on
one core: supernets are trained on CIFAR-10's images, costs are a column of the table, asked for as black boxes. Its
candidates (error as the search ranks them, cost) go through the hand-over of ``benchmarks.search_quality``: 20 cells,
whose true errors are looked up afterwards. Variants:

    full         the algorithm with the settings below
    frozen       alpha stays uniform: sampling and the choice alone
    no-shrink    every edge keeps all ops through all stages
    no-warm-up   alpha learns from the first epoch
    one, four    preferences: 1, 4 (full: 8)
    supernet     candidates are ranked by the supernet alone
    relaxed      weight steps on the softmax mixture of all ops (published) instead of drawn paths
    random, nsga2            on the supernet that ``full`` has trained, as many cells scored by the same ranking
    random-plain, nsga2-plain        the same, scored by the supernet alone

Rows are kept in the cache as they come, a run that was cut goes on. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.handover import hand_over
from benchmarks.quality.images import cifar10
from benchmarks.quality.methods import SEARCHES, Column
from benchmarks.quality.oracle import Answer, Oracle, Spent
from benchmarks.quality.runs import Bench
from benchmarks.quality.statistics import estimate, paired
from benchmarks.rows import Row, RowFile
from benchmarks.tight import load_table
from nas_core import checkpoint, settings
from nas_core.algorithms.tnd_nas import Run, TndNas
from nas_core.data import Splits
from nas_core.events import Checkpoint, Evaluation, Price, Progress, Propose
from nas_core.objectives.error import Error
from nas_core.search import Axes, Budget, Problem, drive, start
from nas_core.spaces.nasbench201 import NasBench201, from_arch, to_arch
from nas_core.values import Value

COSTS = {
    "raspi4": "hw_raspi4_lat_ms",
    "gold6226": "lat_gold_6226_ms",
    "eyeriss": "hw_eyeriss_energy_mj",
    "fpga": "hw_fpga_lat_ms",
}
SPACE = NasBench201(cells=8, channels=16)
"""Untrained signals look at this depth; the supernet has five cells, which sees more images in the same time."""
BASE: Mapping[str, Any] = {
    "depths": [5, 5, 5],
    "carry": True,
    "weights": "paths",
    "draws": 8,
    "batch": 128,
    "lr": 0.05,
    "average": 0.999,
    "shrink": 4,
    "untrained_shrink": 2,
    "score": "expected_error",
    "score_images": 1000,
    "interval": 4,
    "alpha_lr": 0.03,
    "skip_dropout": [],
    "rescored": 400,
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "frozen": {"alpha_lr": 1e-12},
    "no-shrink": {"normal_left": [5, 5, 1]},
    "no-warm-up": {"warmup": 0.0},
    "one": {"preferences": 1},
    "four": {"preferences": 4},
    "supernet": {"ranked_by": {"supernet": 1.0}},
    "relaxed": {"weights": "relaxed"},
}
BASELINES = {"random": ("random", False), "nsga2": ("nsga2", False), "random-plain": ("random", True)}
BASELINES["nsga2-plain"] = ("nsga2", True)


@dataclass(frozen=True)
class World:
    """What every run shares."""

    bench: Bench
    images: Callable[[int], Splits]
    cache: Path
    epochs: int

    def problem(self, seed: int, evaluations: int) -> Problem[Any]:
        skeleton = SPACE.skeleton((3, 32, 32), 10)
        return Problem(
            space=SPACE,
            axes=Axes({"error": Error(), "cost": Column()}),
            skeleton=skeleton,
            targets=(skeleton,),
            budget=Budget(evaluations, self.epochs),
            seed=seed,
            rng=np.random.default_rng(seed),
            device=torch.device("cpu"),
            splits=self.images(seed),
        )

    def algorithm(self, variant: str) -> TndNas:
        return settings.parse(TndNas, dict(BASE) | dict(VARIANTS[variant]), "tnd-nas")

    def state_file(self, cost: str, seed: int) -> Path:
        return self.cache / f"tnd-{cost}-{seed}-{self.epochs}.pt"


def searched(world: World, variant: str, cost: str, seed: int) -> Row:
    """One search to its end."""
    bench, column = world.bench, world.bench.table.columns[COSTS[cost]]
    places = {arch: row for row, arch in enumerate(bench.table.archs)}
    found: dict[int, float] = {}
    algorithm = world.algorithm(variant)
    problem = world.problem(seed, 2 * algorithm.rescored)

    def answer(asked: Propose | Price) -> Iterator[Evaluation]:
        known = asked.known if isinstance(asked, Propose) else ({},) * len(asked.genotypes)
        for genotype, given in zip(asked.genotypes, known, strict=True):
            row = places[to_arch(genotype)]
            if isinstance(asked, Propose):
                found[row] = given["error"].value
            yield Evaluation(genotype, ({**given, "cost": Value(float(column[row]), "", "tabular")},))

    began, state, shown = time.process_time(), None, {}
    for event in drive(start(algorithm, problem), answer):
        if isinstance(event, Checkpoint):
            state = event.state
        elif isinstance(event, Progress) and event.phase == "search":
            shown = dict(event.metrics)
    assert state is not None
    seconds = time.process_time() - began
    if variant == "full":
        checkpoint.save(state, world.state_file(cost, seed))
    rows, scores = np.array(list(found)), np.array(list(found.values()))
    chosen = rows[hand_over(scores, column[rows])]
    everything = bench.measure(COSTS[cost], rows.tolist(), len(rows), Spent())["hypervolume"]
    return {
        **bench.measure(COSTS[cost], chosen.tolist(), len(state["handed_on"]["seen"]), Spent(state["spent"], seconds)),
        "candidates": len(rows),
        "hypervolume_of_all_candidates": everything,
        "last": shown,
    }


@dataclass
class OnItsSupernet:
    """Scores a cell as ``full`` does in the end, with the weights it trained."""

    run: Run
    plain: bool
    archs: tuple[str, ...]
    preparation: Spent

    def __call__(self, row: int) -> Answer:
        run, genotype = self.run, from_arch(self.archs[row])
        began, before = time.process_time(), run.spent + run.merit.spent
        score = run.score(genotype)
        if not self.plain:
            score = 1.0 - run.merit.deserved(genotype, 100.0 * (1.0 - score)) / 100.0
        return Answer(score, Spent(run.spent + run.merit.spent - before, time.process_time() - began))


def on_its_supernet(world: World, name: str, cost: str, seed: int) -> Row:
    """Another search on the supernet that ``full`` trained, with as many cells scored."""
    searcher, plain = BASELINES[name]
    file = world.state_file(cost, seed)
    if not file.exists():
        searched(world, "full", cost, seed)
    state = checkpoint.load(file)
    run = Run(world.algorithm("full"), world.problem(seed, 1))
    run.inherit(state)
    run.merit.learn()
    budget = len(state["handed_on"]["seen"])
    table = world.bench.table
    signal = OnItsSupernet(run, plain, table.archs, Spent(state["spent"], 0.0))
    column = table.columns[COSTS[cost]]
    oracle = Oracle(table, signal, column, budget)
    SEARCHES[searcher](oracle, seed)
    rows = np.array(oracle.asked)
    chosen = rows[hand_over(np.array(oracle.scores), column[rows])]
    return world.bench.measure(COSTS[cost], chosen.tolist(), len(rows), oracle.spent[-1])


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    table = load_table(given.data)
    bench = Bench.of(table, [COSTS[cost] for cost in COSTS])
    world = World(bench, lru_cache(1)(partial(cifar10, given.data)), given.cache, given.epochs)
    file = RowFile(given.cache / "tnd_nas.jsonl")
    rows: dict[tuple[str, str], list[Row]] = {}
    for seed in range(given.first, given.first + given.seeds):
        for variant in given.variants:
            for cost in given.costs:
                compute = on_its_supernet if variant in BASELINES else searched
                changed = {**BASE, **VARIANTS.get(variant, {})}
                key = {"variant": variant, "cost": cost, "seed": seed, "epochs": given.epochs, "settings": changed}
                row = file.row(key, partial(compute, world, variant, cost, seed))
                rows.setdefault((variant, cost), []).append(row)
                print(
                    f"{variant:12s} {cost:9s} seed {seed}: {row['hypervolume']:.3f} "
                    f"(all candidates {row.get('hypervolume_of_all_candidates', float('nan')):.3f}), "
                    f"{row['seconds']:.0f} s, {row['multiply_adds']:.2e} multiply-adds",
                    flush=True,
                )
    print(json.dumps({"benchmark": "tnd_nas", "epochs": given.epochs, "results": _summary(rows)}))
    return 0


def _summary(rows: Mapping[tuple[str, str], list[Row]]) -> list[dict[str, Any]]:
    found = []
    for (variant, cost), some in rows.items():
        line: dict[str, Any] = {"variant": variant, "cost": cost}
        volumes = [row["hypervolume"] for row in some]
        line["hypervolume"] = estimate(volumes).to_json()
        full = rows.get(("full", cost))
        if full is not None and variant != "full" and len(full) == len(some):
            line["less_than_full"] = paired([row["hypervolume"] for row in full], volumes).to_json()
        line |= {name: float(np.median([row[name] for row in some])) for name in ("regret", "seconds", "multiply_adds")}
        found.append(line)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--variants", nargs="+", default=["full"], choices=[*VARIANTS, *BASELINES])
    parser.add_argument("--costs", nargs="+", default=["raspi4", "gold6226"], choices=list(COSTS))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--epochs", type=int, default=60, help="of the supernet, all stages together")
    parser.add_argument("--cache", type=Path, default=Path("build/search-quality"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
