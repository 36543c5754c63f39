"""rc-darts on NAS-Bench-201: whether bounds hold, and what its cells are worth beside other ways to meet a bound.

    python -m benchmarks.rc_darts_bounds --data FOLDER [--first 0] [--seeds 5] [--warm 10] [--epochs 4]
        [--cache build/search-quality]

FOLDER holds ``nasbench201.csv.gz`` and ``cifar10_full_jpeg.npz``. Bounds are upper ones at 20, 40, 60 and 80 % of the
range of the space: on multiply-adds, and on the latency on raspi4 as a device's profile predicts it (a sum over ops,
fitted to 500 cells of the table, as a profile is). A seed is one supernet (five cells, eight channels, images of 8 x 8)
that rc-darts warms up for ``warm`` epochs; then each of the eight bounds has ``epochs`` of them. Its cell for a
bound is the best, by the supernet's validation error, of what it derived within the bound and the band below it;
``upper`` is the same without a band. Rivals, which choose among cells that hold the bound by the
validation error on a supernet of as many epochs:

    penalty        darts with an expected cost in its loss, five weights of each cost, as many epochs for each weight:
                   the best of all cells that any of them derived
    repair         the alpha of darts, trained as long without bounds; of the cell it derives the nearest that holds
    random         as many random cells that hold it as ``upper`` has derived of these, on its supernet
    in-band        as many random cells within the bound and the band as rc-darts has derived of these, on its supernet

Regret is the true test error (200 epochs, the table's) minus the least that any cell has that holds the bound, in
points; a rival that has no such cell has the regret of the cheapest. Rows are kept in the cache as they come. Prints
one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.own_scores import run
from benchmarks.quality.images import halved, small
from benchmarks.quality.statistics import estimate, paired, spearman
from benchmarks.rows import Row, RowFile, seeded
from benchmarks.tight import Table, load_table
from nas_core import settings
from nas_core.additive import AdditiveTable
from nas_core.algorithms.darts import Darts
from nas_core.algorithms.rc_darts import Bounded, RcDarts, Tables
from nas_core.architecture import Architecture, Genotype, Skeleton
from nas_core.constraints import Constraints
from nas_core.data import Splits
from nas_core.differentiable import Engine
from nas_core.objectives.error import Error
from nas_core.objectives.macs import Macs
from nas_core.search import Axes, Bound, Budget, Problem, Relaxable
from nas_core.spaces.nasbench201 import NasBench201, from_arch, to_arch
from nas_core.training import seed_of
from nas_core.values import Value

SPACE = NasBench201(cells=5, channels=8)
SHARES = (0.2, 0.4, 0.6, 0.8)
"""Of the range of each cost, where a bound lies."""
WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Of the penalty, nats per cost of the even mixture."""
LATENCY = "hw_raspi4_lat_ms"
TRUTH = "c10_test_acc"
PROFILED = 500
"""Cells that the prediction of latency is fitted to."""
STEPS = {"batch": 128, "lr": 0.05, "alpha_lr": 0.01, "train_share": 0.16, "validation_share": 0.16}
CPU = torch.device("cpu")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """Latency as a sum over a cell's ops, milliseconds."""

    table: AdditiveTable
    unit: ClassVar[str] = "ms"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "exact"

    def value(self, architecture: Architecture) -> Value:
        ((name, entries),) = self.table.entries.items()
        edges, ops = list(SPACE.edges), SPACE.ops(name)
        found = [
            entries[edges.index((e.target, e.source)), ops.index(e.op)] for e in architecture.genotype.types[name].edges
        ]
        return Value(self.table.constant + float(sum(found)), self.unit, "predicted")


def fitted(table: Table) -> Predicted:
    """By least squares on random connected cells; ``none`` costs nothing."""
    rows = np.random.default_rng(0).choice(np.flatnonzero(table.connected), PROFILED, replace=False)
    (name,) = SPACE.selection(from_arch(table.archs[0]))
    kept = [column for column, op in enumerate(SPACE.ops(name)) if op != "none"]
    chosen = np.stack([SPACE.selection(from_arch(table.archs[row]))[name][:, kept].ravel() for row in rows])
    design = np.column_stack([np.ones(len(rows)), chosen])
    (constant, *found), *_ = np.linalg.lstsq(design, table.columns[LATENCY][rows], rcond=None)
    entries = np.zeros((len(SPACE.edges), len(SPACE.ops(name))))
    entries[:, kept] = np.reshape(found, (-1, len(kept)))
    return Predicted(AdditiveTable(float(constant), {name: entries}))


@dataclass(frozen=True)
class World:
    """What every run shares."""

    table: Table
    latency: Predicted
    images: Callable[[int], Splits]
    costs: dict[str, Floats]
    """Of every cell of the table."""
    warm: int
    epochs: int

    def problem(self, seed: int, epochs: int, warn: Callable[[str], None] = lambda text: None) -> Problem[Relaxable]:
        splits = self.images(seed)
        return Problem(
            space=SPACE,
            axes=Axes({"error": Error(), "macs": Macs(), "ms": self.latency}),
            skeleton=SPACE.skeleton(splits.input, splits.classes),
            targets=(whole(),),
            budget=Budget(10_000, epochs),
            seed=seed,
            rng=np.random.default_rng(seed),
            device=CPU,
            splits=splits,
            warn=warn,
        )

    def bounds(self) -> list[tuple[str, float]]:
        found = []
        for key, costs in self.costs.items():
            low, high = costs[self.table.connected].min(), costs[self.table.connected].max()
            found += [(key, float(low + share * (high - low))) for share in SHARES]
        return found

    def holding(self, key: str, most: float, least: float = 0.0) -> NDArray[np.intp]:
        """Rows of connected cells within bounds."""
        return np.flatnonzero(self.table.connected & (least <= self.costs[key]) & (self.costs[key] <= most))


def whole() -> Skeleton:
    """The skeleton of the benchmark, whose costs count."""
    return NasBench201().skeleton((3, 32, 32), 10)


def costs_of(table: Table, latency: Predicted) -> dict[str, Floats]:
    counted = SPACE.cost_table(whole(), "macs")
    macs = AdditiveTable(float(counted.constant), {name: each.astype(float) for name, each in counted.entries.items()})
    chosen = [SPACE.selection(from_arch(arch)) for arch in table.archs]
    return {
        "macs": np.array([macs.of(selection) for selection in chosen]),
        "ms": np.array([latency.table.of(selection) for selection in chosen]),
    }


def derived(engine: Engine) -> list[Genotype]:
    """Everything that a search has derived."""
    run(engine)
    return list(engine.derived.values())


def bounded(world: World, seed: int, **changed: Any) -> tuple[Engine, list[int]]:
    """rc-darts' search for all bounds, and what it derived as rows of the table."""
    places = {arch: row for row, arch in enumerate(world.table.archs)}
    bounds = world.bounds()
    sets = [{key: {"max": most}} for key, most in bounds]
    total = world.warm + world.epochs * len(bounds)
    given = {**STEPS, **changed, "bounds": sets, "warmup": world.warm / total}
    engine = settings.parse(RcDarts, given, "rc-darts").engine(world.problem(seed, total))
    return engine, [places[to_arch(genotype)] for genotype in derived(engine)]


@dataclass
class Judge:
    """The best of some cells under a bound, by the errors that a supernet has with them."""

    world: World
    engine: Engine
    errors: dict[int, float] = field(default_factory=dict)

    def error(self, row: int) -> float:
        if row not in self.errors:
            self.errors[row] = self.engine.error(from_arch(self.world.table.archs[row]))
        return self.errors[row]

    def best(self, rows: Sequence[int], key: str, most: float) -> int | None:
        holding = set(self.world.holding(key, most).tolist())
        return min((row for row in rows if row in holding), key=self.error, default=None)


def searched(world: World, seed: int) -> Row:
    """rc-darts as it is: what it comes to at every bound, as rows of the table; None: nothing."""
    began = time.process_time()
    engine, mine = bounded(world, seed)
    assert isinstance(engine.relaxation, Bounded)
    judge, rng, lines = Judge(world, engine), np.random.default_rng(seed_of(seed, "in band")), []
    for goal, (key, most) in enumerate(world.bounds()):
        low = engine.relaxation.sets[goal].aims[key].min or 0.0
        within = world.holding(key, most, low)
        own = [row for row in mine if row in set(within.tolist())]
        drawn = rng.choice(within, min(len(within), max(1, len(own))), replace=False).tolist()
        lines.append(
            {
                "key": key,
                "max": most,
                "rc-darts": judge.best(own or mine, key, most),
                "in-band": judge.best(drawn, key, most),
                "derived": len(own),
            }
        )
    return {"lines": lines, "seconds": time.process_time() - began}


def rivals(world: World, seed: int) -> Row:
    """The same of every other way."""
    began = time.process_time()
    places = {arch: row for row, arch in enumerate(world.table.archs)}
    bounds = world.bounds()
    total = world.warm + world.epochs * len(bounds)
    engine, mine = bounded(world, seed, band=None)
    judge = Judge(world, engine)
    plain = settings.parse(Darts, {**STEPS}, "darts").engine(world.problem(seed, total))
    run(plain)
    alpha = {name: each.detach().numpy().astype(np.float64) for name, each in plain.relaxation.alpha.items()}
    penalised: dict[str, list[int]] = {}
    for key in world.costs:
        length = world.warm + world.epochs * len(WEIGHTS)
        given = {**STEPS, "resource": key, "resource_weights": list(WEIGHTS), "warmup_epochs": world.epochs // 2}
        found = derived(settings.parse(Darts, given, "darts").engine(world.problem(seed, length)))
        penalised[key] = [places[to_arch(genotype)] for genotype in found]
    tables, rng = Tables(plain.problem), np.random.default_rng(seed_of(seed, "rivals"))
    lines = []
    for key, most in bounds:
        holding = world.holding(key, most)
        own = [row for row in mine if row in set(holding.tolist())]
        repaired = Constraints(SPACE, {key: tables.of(0, key)}).repaired(alpha, {key: Bound(max=most)}, rng)
        drawn = rng.choice(holding, min(len(holding), max(1, len(own))), replace=False).tolist()
        lines.append(
            {
                "upper": judge.best(own, key, most),
                "penalty": judge.best(penalised[key], key, most),
                "repair": None if repaired is None else places[to_arch(repaired)],
                "random": judge.best(drawn, key, most),
            }
        )
    everything = rng.choice(np.flatnonzero(world.table.connected), 200, replace=False).tolist()
    rank = spearman([judge.error(row) for row in everything], 100.0 - world.table.columns[TRUTH][everything])
    return {"lines": lines, "spearman": rank, "seconds": time.process_time() - began}


METHODS = ("rc-darts", "upper", "penalty", "repair", "random", "in-band")


def regrets(world: World, row: Row) -> dict[str, list[float]]:
    """By method, at every bound."""
    truth = 100.0 - world.table.columns[TRUTH]
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for line in row["lines"]:
        holding = world.holding(line["key"], line["max"])
        cheapest = int(holding[world.costs[line["key"]][holding].argmin()])
        for name in METHODS:
            place = cheapest if line[name] is None else line[name]
            found[name].append(float(truth[place] - truth[holding].min()))
    return found


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    table = load_table(given.data)
    latency = fitted(table)
    costs, images = costs_of(table, latency), halved(given.data)
    world = World(table, latency, lambda seed: small(images(seed)), costs, given.warm, given.epochs)
    wrong = np.abs(costs["ms"] / table.columns[LATENCY] - 1.0)[table.connected]
    file, rows = RowFile(given.cache / "rc_darts_bounds.jsonl"), []
    for seed in range(given.first, given.first + given.seeds):
        key = {"seed": seed, "warm": given.warm, "epochs": given.epochs, "steps": STEPS}
        own = file.row(key, partial(searched, world, seed))
        others = file.row({**key, "rivals": list(WEIGHTS)}, partial(rivals, world, seed))
        row = {**others, "lines": [{**a, **b} for a, b in zip(own["lines"], others["lines"], strict=True)]}
        rows.append(row)
        medians = {name: round(float(np.median(each)), 2) for name, each in regrets(world, row).items()}
        print(f"seed {seed}: median regret {medians}, {own['seconds']:.0f} s", flush=True)
    held = {name: [line[name] is not None for row in rows for line in row["lines"]] for name in METHODS[:2]}
    each = {name: np.array([regrets(world, row)[name] for row in rows]) for name in METHODS}
    by_bound = [
        {"key": key, "max": most, **{name: float(np.median(each[name][:, place])) for name in METHODS}}
        for place, (key, most) in enumerate(world.bounds())
    ]
    mean = {name: values.mean(axis=1) for name, values in each.items()}
    result = {
        "benchmark": "rc_darts_bounds",
        "held": {name: f"{sum(each)} of {len(each)}" for name, each in held.items()},
        "latency_wrong_by": float(wrong.mean()),
        "spearman": estimate([row["spearman"] for row in rows]).to_json(),
        "regret": {name: estimate(values).to_json() for name, values in mean.items()},
        "ahead_of": {name: paired(mean[name], mean["rc-darts"]).to_json() for name in METHODS[1:]},
        "by_bound": by_bound,
        "missed": {name: sum(line[name] is None for row in rows for line in row["lines"]) for name in METHODS},
    }
    print(json.dumps(result))
    return 0


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.add_argument("--warm", type=int, default=10, help="epochs before any bound")
    parser.add_argument("--epochs", type=int, default=4, help="for each bound, and for each weight of a penalty")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
