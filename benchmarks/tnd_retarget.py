"""TND-NAS that goes on from a trained supernet: searches for one device against searches for another, and bounds.

    python -m benchmarks.tnd_retarget --data FOLDER [--seeds 5] [--bounded 20] [--epochs 36]
        [--cache build/search-quality]

FOLDER as in ``benchmarks.tnd_nas``, whose variant ``full`` for raspi4 trains the supernet of each seed. On it, as a job
with ``from`` does, alpha and the choice are made anew for each of four costs; the twenty cells of each search are then
worth something by all four: tight hypervolume, searched for (rows) against scored on (columns). The search for a device
should win its column.

With ``--bounded``, so many more searches, each with its own seed, have a bound on raspi4's latency, a tenth to half way
up the true front: whether the networks of the search front hold it, and how much worse the best of them is than the
best cell of the table that holds it. Rows are kept in the cache. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.handover import hand_over
from benchmarks.quality.images import cifar10
from benchmarks.quality.oracle import Spent
from benchmarks.quality.runs import Bench
from benchmarks.quality.statistics import paired
from benchmarks.rows import Row, RowFile
from benchmarks.tight import load_table
from benchmarks.tnd_nas import BASE, COSTS, World, candidates, searched
from nas_core import checkpoint
from nas_core.pareto import non_dominated
from nas_core.search import Axes, Bound

STEPS = 10
"""Policy steps of each preference."""
SUPERNET = "raspi4"
SHARES = (0.1, 0.2, 0.3, 0.5)
"""Where bounds lie between the cheapest and the dearest cell of the true front."""


def redone(world: World, cost: str, state: Mapping[str, Any], seed: int, bound: float | None = None) -> Row:
    """A search for another cost on a trained supernet: rows of the table, scores, seconds."""
    problem = world.problem(seed, 2 * int(BASE["rescored"]))
    bounds = {} if bound is None else {"cost": Bound(max=bound)}
    problem = replace(problem, axes=Axes(problem.axes.objectives, bounds), inherited=state)
    began = time.process_time()
    algorithm = replace(world.algorithm("full"), policy_steps=STEPS)
    found, _, _ = candidates(world, algorithm, problem, cost)
    return {
        "rows": list(found),
        "scores": list(found.values()),
        "seconds": round(time.process_time() - began, 1),
    }


def scored_on_all(world: World, found: Row, cost: str) -> dict[str, float]:
    """Tight hypervolume by each cost of what a search for one of them hands over."""
    rows, scores = np.array(found["rows"]), np.array(found["scores"])
    chosen = rows[hand_over(scores, world.bench.table.columns[COSTS[cost]][rows])].tolist()
    return {
        other: float(world.bench.measure(column, chosen, len(rows), Spent())["hypervolume"])
        for other, column in COSTS.items()
    }


def bounded(world: World, found: Row, bound: float) -> Row:
    """How the search front stands to its bound."""
    bench, rows, scores = world.bench, np.array(found["rows"]), np.array(found["scores"])
    costs = bench.table.columns[COSTS[SUPERNET]]
    inside = costs[rows] <= bound
    front = (
        rows[inside][non_dominated(np.column_stack([scores[inside], costs[rows[inside]]]))]
        if inside.any()
        else rows[:0]
    )
    best = bench.errors[bench.table.connected & (costs <= bound)].min()
    return {
        "bound": bound,
        "front": len(front),
        "held": bool(len(front) and (costs[front] <= bound).all()),
        "of_all_candidates": float(inside.mean()),
        "regret": float(bench.errors[front].min() - best) if len(front) else float("nan"),
        "used": float(costs[front].max() / bound) if len(front) else float("nan"),
    }


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    table = load_table(given.data)
    world = World(
        Bench.of(table, list(COSTS.values())), lru_cache(1)(partial(cifar10, given.data)), given.cache, given.epochs
    )
    file = RowFile(given.cache / "tnd_retarget.jsonl")

    @lru_cache(1)
    def state(seed: int) -> Mapping[str, Any]:
        path = world.state_file(SUPERNET, seed)
        if not path.exists():
            searched(world, "full", SUPERNET, seed)
        return checkpoint.load(path)

    matrices, seconds = [], []
    for seed in range(given.seeds):
        matrix = {}
        for cost in COSTS:
            key = {
                "kind": "device",
                "cost": cost,
                "seed": seed,
                "epochs": given.epochs,
                "steps": STEPS,
                "settings": BASE,
            }
            row = file.row(key, lambda cost=cost, seed=seed: redone(world, cost, state(seed), seed))  # type: ignore[misc]
            matrix[cost] = scored_on_all(world, row, cost)
            seconds.append(row["seconds"])
            print(f"seed {seed} {cost:9s} {matrix[cost]} {row['seconds']} s", flush=True)
        matrices.append(matrix)
    low, high = world.bench.tights[COSTS[SUPERNET]].c_min, world.bench.tights[COSTS[SUPERNET]].c_max
    holds = []
    for number in range(given.bounded):
        bound = low + SHARES[number % len(SHARES)] * (high - low)
        seed = number % max(1, given.seeds)
        key = {
            "kind": "bound",
            "bound": bound,
            "seed": number,
            "epochs": given.epochs,
            "steps": STEPS,
            "settings": BASE,
        }
        row = file.row(
            key,
            lambda bound=bound, seed=seed, number=number: redone(world, SUPERNET, state(seed), 100 + number, bound),  # type: ignore[misc]
        )
        holds.append(bounded(world, row, bound))
        print(f"bound {bound:.1f} seed {number}: {holds[-1]} {row['seconds']} s", flush=True)
    print(
        json.dumps(
            {
                "benchmark": "tnd_retarget",
                **_summary(matrices),
                "seconds": float(np.median(seconds)),
                "bounds": {
                    "held": sum(hold["held"] for hold in holds),
                    "of": len(holds),
                    **{
                        name: float(np.median([hold[name] for hold in holds]))
                        for name in ("of_all_candidates", "regret", "used")
                        if holds
                    },
                },
            }
        )
    )
    return 0


def _summary(matrices: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    medians = {
        cost: {other: float(np.median([matrix[cost][other] for matrix in matrices])) for other in COSTS}
        for cost in COSTS
    }
    ahead = {
        column: {
            cost: paired([m[column][column] for m in matrices], [m[cost][column] for m in matrices]).to_json()
            for cost in COSTS
            if cost != column
        }
        for column in COSTS
    }
    wins = {column: medians[column][column] >= max(medians[cost][column] for cost in COSTS) for column in COSTS}
    return {"matrix": medians, "diagonal_ahead_of": ahead, "diagonal_wins": wins}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5, help="how many supernets")
    parser.add_argument("--bounded", type=int, default=20, help="searches with a bound")
    parser.add_argument("--epochs", type=int, default=36, help="of the supernet, all stages together")
    parser.add_argument("--cache", type=Path, default=Path("build/search-quality"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
