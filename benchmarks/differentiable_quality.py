"""What differentiable searches hand over on NAS-Bench-201, beside random cells on the same supernet.

    python -m benchmarks.differentiable_quality --data FOLDER [--methods darts ...] [--first 0] [--seeds 5]
        [--epochs 15] [--cache build/search-quality]

FOLDER holds ``nasbench201.csv.gz`` and ``cifar10_full_jpeg.npz``. A method trains its own supernet (five cells, eight
channels, images of 16 x 16, a sixth of CIFAR-10) for ``epochs`` epochs and derives cells on the way; these are scored
by the supernet's validation error with inherited weights. Twenty of them by (score, latency on raspi4) are handed over,
or all if there are fewer, and their true errors are looked up. Methods:

    darts          first order, a cell an epoch
    darts-weights  a penalty on predicted latency, five weights one after another
    entrannas      EnTranNAS, the first cell is the Engine-cell
    rc-darts       upper bounds on predicted latency at ten places of its range, from one warm supernet (reconstructed)

Beside each, ``random``: as many random connected cells as it derived, scored by the same supernet and handed over in
the same way; and ``uniform``: 100 of them. ``rho`` is Spearman's correlation of the supernet's scores with the truth,
over those 100. Rows are kept in the cache as they come. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.own_scores import run
from benchmarks.quality.handover import hand_over
from benchmarks.quality.images import halved
from benchmarks.quality.oracle import Spent
from benchmarks.quality.runs import Bench
from benchmarks.quality.statistics import estimate, paired, spearman
from benchmarks.rc_darts_bounds import LATENCY, SPACE, STEPS, WEIGHTS, Predicted, costs_of, fitted, whole
from benchmarks.rows import Row, RowFile, seeded
from benchmarks.tight import load_table
from nas_core import settings
from nas_core.algorithms.darts import Darts
from nas_core.algorithms.entrannas import EnTranNas
from nas_core.algorithms.rc_darts import RcDarts
from nas_core.data import Splits
from nas_core.objectives.error import Error
from nas_core.search import Axes, Budget, Problem
from nas_core.spaces.nasbench201 import from_arch, to_arch
from nas_core.training import seed_of

BOUNDED = tuple(np.linspace(0.1, 1.0, 10))
"""Of the range of predicted latency, where a bound of rc-darts lies."""
WARM = 0.4
"""Share of its epochs that rc-darts trains its supernet for before any bound."""
UNIFORM = 100
METHODS: Mapping[str, tuple[type[Any], Mapping[str, Any]]] = {
    "darts": (Darts, {"order": "first"}),
    "darts-weights": (Darts, {"resource": "ms", "resource_weights": list(WEIGHTS)}),
    "entrannas": (EnTranNas, {}),
    "rc-darts": (RcDarts, {"warmup": WARM, "band": 0.2}),
}


@dataclass(frozen=True)
class World:
    """What every run shares."""

    bench: Bench
    latency: Predicted
    bounds: Sequence[float]
    """Milliseconds."""
    images: Callable[[int], Splits]
    epochs: int

    def problem(self, seed: int) -> Problem[Any]:
        splits = self.images(seed)
        return Problem(
            space=SPACE,
            axes=Axes({"error": Error(), "ms": self.latency}),
            skeleton=SPACE.skeleton(splits.input, splits.classes),
            targets=(whole(),),
            budget=Budget(10_000, self.epochs),
            seed=seed_of(seed, "differentiable quality"),
            rng=np.random.default_rng(seed),
            device=torch.device("cpu"),
            splits=splits,
        )


def searched(world: World, method: str, seed: int) -> Row:
    """What the method and random cells on its supernet hand over."""
    table, began = world.bench.table, time.process_time()
    places = {arch: row for row, arch in enumerate(table.archs)}
    kind, own = METHODS[method]
    given = {**STEPS, **own}
    if method == "rc-darts":
        given["bounds"] = [{"ms": {"max": most}} for most in world.bounds]
    engine = settings.parse(kind, given, method).engine(world.problem(seed))
    run(engine)
    seconds = time.process_time() - began
    found = dict.fromkeys(places[to_arch(genotype)] for genotype in engine.derived.values())
    derived = [row for row in found if table.connected[row]]

    def error(row: int) -> float:
        return float(engine.error(from_arch(table.archs[row])))

    def handed(rows: Sequence[int], scores: Sequence[float]) -> Row:
        chosen = hand_over(np.array(scores), table.columns[LATENCY][list(rows)])
        return world.bench.measure(LATENCY, [rows[place] for place in chosen], len(rows), Spent())

    rng = np.random.default_rng(seed_of(seed, "beside", method))
    uniform = rng.choice(np.flatnonzero(table.connected), UNIFORM, replace=False).tolist()
    scores = [error(row) for row in uniform]
    return {
        "own": handed(derived, [error(row) for row in derived]),
        "random": handed(uniform[: len(derived)], scores[: len(derived)]),
        "uniform": handed(uniform, scores),
        "derived": len(derived),
        "rho": spearman(scores, world.bench.errors[uniform]),
        "seconds": seconds,
    }


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    table = load_table(given.data)
    latency = fitted(table)
    costs = costs_of(table, latency)["ms"][table.connected]
    bounds = [float(costs.min() + share * (costs.max() - costs.min())) for share in BOUNDED]
    world = World(Bench.of(table, [LATENCY]), latency, bounds, halved(given.data), given.epochs)
    file = RowFile(given.cache / "differentiable_quality.jsonl")
    rows: dict[str, list[Row]] = {method: [] for method in given.methods}
    for seed in range(given.first, given.first + given.seeds):
        for method in given.methods:
            key = {
                "method": method,
                "seed": seed,
                "epochs": given.epochs,
                "settings": [STEPS, dict(METHODS[method][1])],
            }
            row = file.row(key, partial(searched, world, method, seed))
            rows[method].append(row)
            shown = ", ".join(f"{name} {row[name]['hypervolume']:.3f}" for name in ("own", "random", "uniform"))
            print(f"seed {seed} {method:14s} {row['derived']:3d} cells: {shown}, rho {row['rho']:.2f}", flush=True)
    print(json.dumps({"benchmark": "differentiable_quality", **{name: _summary(some) for name, some in rows.items()}}))
    return 0


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    value = {name: [row[name]["hypervolume"] for row in rows] for name in ("own", "random", "uniform")}
    return {
        **{name: estimate(each).to_json() for name, each in value.items()},
        "above_random": paired(value["own"], value["random"]).to_json(),
        "above_uniform": paired(value["own"], value["uniform"]).to_json(),
        "cells": [row["derived"] for row in rows],
        "regret": estimate([row["own"]["regret"] for row in rows]).to_json(),
        "rho": estimate([row["rho"] for row in rows]).to_json(),
        "seconds": estimate([row["seconds"] for row in rows]).to_json(),
    }


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=int, default=15, help="of each search")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
