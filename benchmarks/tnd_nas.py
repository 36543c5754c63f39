"""TND-NAS on NAS-Bench-201: how good its fronts are, what they cost, and what each of its parts is worth.

    python -m benchmarks.tnd_nas --data FOLDER [--variants full frozen ...] [--costs raspi4 gold6226 eyeriss fpga]
        [--seeds 5] [--epochs 36] [--cache build/search-quality]

FOLDER holds ``nasbench201.csv.gz`` and ``cifar10_full_jpeg.npz``. A run is one search by ``tnd-nas`` in one process on
one core: supernets are trained on CIFAR-10's images, costs are a column of the table, asked for as black boxes. Its
candidates (error as the search ranks them, cost) go through the hand-over of ``benchmarks.search_quality``: 20 cells,
whose true errors are looked up afterwards. Variants:

    full         the algorithm with the settings of the preset ``tnd-nas-small``
    frozen       alpha stays uniform: sampling and the choice alone
    no-shrink    every edge keeps all ops through all stages
    no-warm-up   alpha learns from the first epoch
    one, four    preferences: 1, 4 (full: 8)
    alone        no preference learns from the samples of another
    policy-paths             weights learn on the paths that the policy draws, not on all alike
    few-draws    untrained scores of the candidates are those that the search chose them by
    supernet     candidates are ranked by the supernet alone
    relaxed      weight steps on the softmax mixture of all ops (published) instead of drawn paths
    random, nsga2            on the supernet that ``full`` has trained, as many cells scored by the same ranking, and as
                 many of the best of them anew in the end
    random-equal, nsga2-equal        the same, not as many cells but for as many multiply-adds as ``full`` spent on the
                 scores of its samples (128 images each, where these look at 500)
    random-plain, nsga2-plain        as many cells, scored by the supernet alone
    trained-1, trained-2, trained-4, trained-8       nsga2 that trains each cell itself for so many epochs, on the same
                 images and a stack of as many cells, for 900 processor seconds

Rows are kept in the cache as they come, a run that was cut goes on. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.handover import hand_over
from benchmarks.quality.images import cifar10
from benchmarks.quality.methods import SEARCHES, Column
from benchmarks.quality.oracle import TRAINING, Answer, Oracle, OutOfBudgetError, Spent
from benchmarks.quality.runs import Bench
from benchmarks.quality.statistics import estimate, paired
from benchmarks.rows import Row, RowFile, seeded
from benchmarks.tight import load_table
from nas_core import checkpoint, settings
from nas_core.algorithms.tnd_nas import TndNas
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count
from nas_core.data import Splits, shrunk
from nas_core.events import Checkpoint, Evaluation, Price, Progress, Propose
from nas_core.merit import genotype_of
from nas_core.objectives.error import Error
from nas_core.pareto import foremost
from nas_core.presets.tnd_nas import TndNasSmall
from nas_core.progressive import Run
from nas_core.proxies import noise_images
from nas_core.recipe import Recipe, shrunk_input
from nas_core.search import Axes, Budget, Problem, drive, start
from nas_core.spaces.nasbench201 import NasBench201, from_arch, to_arch
from nas_core.training import seed_of
from nas_core.training.networks import Training, misclassified
from nas_core.values import Value

COSTS = {
    "raspi4": "hw_raspi4_lat_ms",
    "gold6226": "lat_gold_6226_ms",
    "eyeriss": "hw_eyeriss_energy_mj",
    "fpga": "hw_fpga_lat_ms",
}
SPACE = NasBench201(cells=8, channels=8)
"""Untrained signals look at this depth; the supernet has five cells, which see more images in the same time."""
BASE: Mapping[str, Any] = {k: v for k, v in TndNasSmall.job["algorithm"].items() if k != "name"}
"""Of the preset ``tnd-nas-small``."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "frozen": {"alpha_lr": 1e-12},
    "no-shrink": {"normal_left": [5, 5, 1]},
    "no-warm-up": {"warmup": 0.0},
    "one": {"preferences": 1},
    "four": {"preferences": 4},
    "alone": {"share_samples": False},
    "policy-paths": {"path_explore": 0.0},
    "few-draws": {"final_draws": 0},
    "supernet": {"ranked_by": {"supernet": 1.0}},
    "relaxed": {"weights": "relaxed", "draws": 1, "path_explore": None},
}
BASELINES = {
    f"{searcher}{how}": (searcher, how) for searcher in ("random", "nsga2") for how in ("", "-equal", "-plain")
}
TRAINED = {f"trained-{epochs}": epochs for epochs in (1, 2, 4, 8)}
TRAINING_SECONDS = 900.0
Integers = NDArray[np.intp]
Floats = NDArray[np.float64]
MARKS = (50.0, 100.0, 225.0, 450.0)
"""Processor seconds after which the hand-over of a search that trains is looked at, besides its end."""


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

    def state_file(self, cost: str, seed: int, variant: str = "full") -> Path:
        settings_of = zlib.crc32(json.dumps(dict(BASE) | dict(VARIANTS[variant]), sort_keys=True).encode())
        return self.cache / f"tnd-{variant}-{cost}-{seed}-{self.epochs}-{settings_of:08x}.pt"


def candidates(
    world: World, algorithm: TndNas, problem: Problem[Any], cost: str
) -> tuple[dict[int, float], Mapping[str, Any], dict[str, float]]:
    """One search to its end: errors as it ranks them by row of the table, its last state, its last metrics."""
    table = world.bench.table
    column, places = table.columns[COSTS[cost]], {arch: row for row, arch in enumerate(table.archs)}
    found: dict[int, float] = {}

    def answer(asked: Propose | Price) -> Iterator[Evaluation]:
        known = asked.known if isinstance(asked, Propose) else ({},) * len(asked.genotypes)
        for genotype, given in zip(asked.genotypes, known, strict=True):
            row = places[to_arch(genotype)]
            if isinstance(asked, Propose):
                found[row] = given["error"].value
            yield Evaluation(genotype, ({**given, "cost": Value(float(column[row]), "", "tabular")},))

    state, shown = None, {}
    for event in drive(start(algorithm, problem), answer):
        if isinstance(event, Checkpoint):
            state = event.state
        elif isinstance(event, Progress) and event.phase == "search":
            shown = dict(event.metrics)
    assert state is not None
    return found, state, shown


def searched(world: World, variant: str, cost: str, seed: int) -> Row:
    """One search from the start."""
    bench, column = world.bench, world.bench.table.columns[COSTS[cost]]
    algorithm = world.algorithm(variant)
    problem = world.problem(seed, 2 * algorithm.rescored)
    began = time.process_time()
    found, state, shown = candidates(world, algorithm, problem, cost)
    seconds = time.process_time() - began
    checkpoint.save(state, world.state_file(cost, seed, variant))
    rows, scores = np.array(list(found)), np.array(list(found.values()))
    chosen = rows[hand_over(scores, column[rows])]
    everything = bench.measure(COSTS[cost], rows.tolist(), len(rows), Spent())["hypervolume"]
    return {
        **bench.measure(COSTS[cost], chosen.tolist(), len(state["handed_on"]["seen"]), Spent(state["spent"], seconds)),
        "candidates": len(rows),
        "hypervolume_of_all_candidates": everything,
        "last": shown,
    }


def state_of_full(world: World, cost: str, seed: int) -> Mapping[str, Any]:
    """The last state of ``full``, which is searched where the cache has none."""
    file = world.state_file(cost, seed)
    if not file.exists():
        searched(world, "full", cost, seed)
    return checkpoint.load(file)


@dataclass
class OnItsSupernet:
    """Scores a cell as ``full`` does in the end, with the weights it trained."""

    run: Run
    plain: bool
    archs: tuple[str, ...]
    preparation: Spent
    allowance: float
    """Multiply-adds; OutOfBudgetError when they are used up."""
    paid: float = 0.0
    spent: float = 0.0
    """Multiply-adds of its run, after the last cell."""
    ended: float = 0.0
    """The processor's clock then."""

    def __call__(self, row: int) -> Answer:
        if self.paid >= self.allowance:
            raise OutOfBudgetError(f"{self.paid:.3g} multiply-adds are used up")
        run, genotype = self.run, from_arch(self.archs[row])
        began = time.process_time()
        score = run.weights.score(genotype)
        if not self.plain:
            score = 1.0 - run.merit.deserved(genotype, 100.0 * (1.0 - score)) / 100.0
        self.spent, self.ended = run.spent, time.process_time()
        price = accuracy_price(run, genotype, int(BASE["score_images"]))
        price += 0.0 if self.plain else untrained_price(run, genotype)
        self.paid += price
        return Answer(score, Spent(price, self.ended - began))


def accuracy_price(run: Run, genotype: Genotype, images: float) -> float:
    """Multiply-adds of so many images in the supernet."""
    return images * run.weights.macs.of(run.problem.space.selection(genotype))


def untrained_price(run: Run, genotype: Genotype) -> float:
    """Multiply-adds of the untrained scores of a sample, also where ``full`` has paid for them already."""
    architecture = Architecture(genotype, run.merit.skeleton)
    return run.settings.untrained_draws * (TRAINING + noise_images(architecture)) * float(count(architecture).macs)


def price_of_samples(run: Run, seen: Mapping[str, Sequence[float]]) -> float:
    """Multiply-adds of all that policies were told of their samples."""
    total = 0.0
    for key, (times, _) in seen.items():
        genotype = genotype_of(key)
        total += accuracy_price(run, genotype, times * run.settings.batch) + untrained_price(run, genotype)
    return total


def on_its_supernet(world: World, name: str, cost: str, seed: int) -> Row:
    """Another search on the supernet that ``full`` trained, with as many cells scored or at the same price."""
    searcher, how = BASELINES[name]
    plain, equal = how == "-plain", how == "-equal"
    state = state_of_full(world, cost, seed)
    run = Run(world.algorithm("full"), world.problem(seed, 1))
    run.inherit(state)
    run.merit.learn()
    seen, table = state["handed_on"]["seen"], world.bench.table
    allowance = price_of_samples(run, seen) if equal else np.inf
    signal = OnItsSupernet(run, plain, table.archs, Spent(state["spent"], 0.0), allowance)
    column = table.columns[COSTS[cost]]
    oracle = Oracle(table, signal, column, len(table.archs) if equal else len(seen))
    with suppress(OutOfBudgetError):
        SEARCHES[searcher](oracle, seed)
    rows, scores, spent = np.array(oracle.asked), np.array(oracle.scores), oracle.spent[-1]
    if not plain:
        rows, scores = scored_anew(run, table.archs, rows, scores, column)
        spent = Spent(
            spent.multiply_adds + run.spent - signal.spent,
            spent.seconds + time.process_time() - signal.ended,
        )
    chosen = rows[hand_over(scores, column[rows])]
    return world.bench.measure(COSTS[cost], chosen.tolist(), len(oracle.asked), spent)


def scored_anew(
    run: Run, archs: Sequence[str], rows: Integers, scores: Floats, column: Floats
) -> tuple[Integers, Floats]:
    """The best cells of another search, as many as ``full`` scores in the end, and in the same way."""
    table = np.column_stack([scores, column[rows]])
    best = rows[foremost(table, np.zeros(len(rows)), run.settings.rescored)]
    genotypes = [from_arch(archs[row]) for row in best]
    return best, np.array(run.merit.in_order(genotypes, run.scored_in_the_end(genotypes)))


@dataclass
class OnTraining:
    """Trains a cell from scratch on the images that supernets see, in a stack as deep, and counts its errors on all of
    validation. Says OutOfBudgetError when its time is over.
    """

    splits: Splits
    epochs: int
    seed: int
    archs: tuple[str, ...]
    preparation: Spent = field(default_factory=Spent)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        factor = int(BASE["shrink"])
        self.train, self.validation = (shrunk(split, factor) for split in (self.splits.train, self.splits.validation))
        self.augmentation = self.splits.augmentation.shrunk(factor)
        self.skeleton = SPACE.skeleton(shrunk_input((3, 32, 32), factor), 10, cells=int(BASE["depths"][0]))

    def __call__(self, row: int) -> Answer:
        if self.seconds >= TRAINING_SECONDS:
            raise OutOfBudgetError(f"{self.seconds:.0f} processor seconds are used up")
        began = time.process_time()
        architecture = Architecture(from_arch(self.archs[row]), self.skeleton)
        recipe = Recipe(epochs=self.epochs, batch=int(BASE["batch"]), lr=float(BASE["lr"]), augment=False)
        cpu = torch.device("cpu")
        training = Training(architecture, recipe, self.train, self.augmentation, seed_of(self.seed, row), cpu)
        while not training.finished:
            training.epoch()
        score = misclassified(training.network, self.validation, cpu) / self.validation.size
        images = TRAINING * self.epochs * self.train.size + self.validation.size
        spent = Spent(float(images * count(architecture).macs), time.process_time() - began)
        self.seconds += spent.seconds
        return Answer(score, spent)


def by_training(world: World, name: str, cost: str, seed: int) -> Row:
    """nsga2 that trains each cell itself, at its end and on the way."""
    table, column = world.bench.table, world.bench.table.columns[COSTS[cost]]
    oracle = Oracle(table, OnTraining(world.images(seed), TRAINED[name], seed, table.archs), column, len(table.archs))
    with suppress(OutOfBudgetError):
        SEARCHES["nsga2"](oracle, seed)
    rows, scores = np.array(oracle.asked), np.array(oracle.scores)

    def after(seconds: float) -> Row:
        count = sum(spent.seconds <= seconds for spent in oracle.spent)
        chosen = rows[hand_over(scores[:count], column[rows[:count]])]
        return world.bench.measure(COSTS[cost], chosen.tolist(), count, oracle.spent[count - 1])

    return after(np.inf) | {"on_the_way": [after(mark) for mark in MARKS if mark >= oracle.spent[0].seconds]}


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
                compute = on_its_supernet if variant in BASELINES else by_training if variant in TRAINED else searched
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
    parser = seeded(__doc__)
    parser.add_argument("--variants", nargs="+", default=["full"], choices=[*VARIANTS, *BASELINES, *TRAINED])
    parser.add_argument("--costs", nargs="+", default=["raspi4", "gold6226"], choices=list(COSTS))
    parser.add_argument("--epochs", type=int, default=36, help="of the supernet, all stages together")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
