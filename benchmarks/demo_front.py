"""The front of a job file against random search of equal evaluations: hypervolume over (error, params), by seed.

    python -m benchmarks.demo_front [--job examples/digits.yaml] [--seeds 5] [--cache FILE]

Runs in one process what the service runs in many: search, choice, verification from scratch. Measured objectives are
left out, so that both searches see the same two exactly repeatable axes. Prints a line per run and one JSON object
last: median hypervolume of each method, the difference by seed, and what the final fronts look like.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.rows import Row, cached
from nas_core.architecture import Architecture
from nas_core.evaluation import Evaluator
from nas_core.events import Evaluated
from nas_core.pareto import hypervolume, non_dominated
from nas_core.search import drive, start
from nas_core.training import Training, misclassified, seed_of
from skyline.schemas import JobSpec
from store.settings import settings
from worker.assembly import plan_of, recipe_of, reference_point
from worker.choice import Scored, choose


def run(spec: JobSpec) -> Row:
    """One job: what its final front is."""
    began = time.monotonic()
    device = torch.device("cpu")
    plan = plan_of(spec, settings().data_root, device)
    problem = plan.problem
    reference = reference_point(problem, spec.reference_point)
    scored: list[Scored[Architecture]] = []
    for event in drive(start(plan.algorithm, problem), Evaluator(problem)):
        if isinstance(event, Evaluated) and event.evaluation.failure is None:
            for index, target in enumerate(problem.targets):
                architecture = Architecture(event.evaluation.genotype, target)
                values = {key: value.value for key, value in event.evaluation.values[index].items()}
                scored.append(Scored(architecture.hash, index, values, architecture))
    searched = time.monotonic() - began
    points = []
    for item in choose(scored, problem.axes, reference, spec.verify.top):
        recipe = recipe_of(spec)
        training = Training(
            item.what,
            recipe,
            problem.splits.train_and_validation,
            problem.splits.augmentation,
            seed_of(spec.seed, item.hash, 0),
            device,
        )
        while not training.finished:
            training.epoch()
        error = misclassified(training.network, problem.splits.select, device) / problem.splits.select.size
        points.append((error, item.values["params"]))
    front = sorted(point for point, kept in zip(points, non_dominated(points), strict=True) if kept)
    params = sorted({point[1] for point in front})
    return {
        "hypervolume": hypervolume(points, [reference["error"], reference["params"]])
        / (reference["error"] * reference["params"]),
        "front": front,
        "points": points,
        "best_error": min(point[0] for point in points),
        "smallest_gap": min((b / a for a, b in pairwise(params)), default=0.0),
        "evaluations": len(scored) // len(problem.targets),
        "search_seconds": searched,
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=Path, default=Path("examples/digits.yaml"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=["job", "random"])
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    job: dict[str, Any] = yaml.safe_load(given.job.read_text())
    job["objectives"] = ["error", "params"]
    rows: dict[str, list[Row]] = {method: [] for method in given.methods}
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for method in given.methods:
            algorithm = dict(job["algorithm"])
            if method == "random":
                algorithm = {"name": "random", "evaluate": algorithm.get("evaluate", {})}
            settled = {**job, "algorithm": algorithm, "seed": seed}
            spec = JobSpec.model_validate_json(json.dumps(settled))
            row = cached(given.cache, {"method": method, "seed": seed, "job": settled}, lambda spec=spec: run(spec))  # type: ignore[misc]
            rows[method].append(row)
            print(json.dumps({name: value for name, value in row.items() if name not in ("job", "points")}), flush=True)
    summary: dict[str, Any] = {
        method: {
            "hypervolume": statistics.median(row["hypervolume"] for row in found),
            "front_sizes": [len(row["front"]) for row in found],
            "best_errors": [row["best_error"] for row in found],
            "seconds": statistics.median(row["seconds"] for row in found),
        }
        for method, found in rows.items()
    }
    if {"job", "random"} <= set(rows):
        pairs = zip(rows["job"], rows["random"], strict=True)
        summary["difference_by_seed"] = [mine["hypervolume"] - other["hypervolume"] for mine, other in pairs]
    print(json.dumps({"benchmark": "demo_front", **summary}))


if __name__ == "__main__":
    main()
