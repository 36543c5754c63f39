"""TND-NAS against NSGA-II in the space ``darts`` on CIFAR-10's images, at equal processor seconds, and against itself
without a policy.

    python -m benchmarks.tnd_darts --data FOLDER [--methods nsga2 frozen] [--first 0] [--seeds 5] [--epochs 18]
        [--top 6] [--trained 8] [--cache build/search-quality]

FOLDER holds ``cifar10_full_jpeg.npz``. Images are made half as large (16 x 16); networks have five cells and eight
channels; objectives are error and parameters. ``tnd-nas`` searches first, ``nsga2`` (short trainings of one epoch on
5,000 images) for as many processor seconds; ``frozen`` is ``tnd-nas`` whose alpha stays uniform, ``all-paths`` trains
all paths alike, as is the default, instead of the policies' own. Of each search front the ``top`` by hypervolume
contribution are trained from scratch by one recipe, as verification does; held-out images (select) decide which of
them are the front, whose hypervolume is that of their errors on all 10,000 test images. Rows are kept in the cache.
Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from benchmarks.quality.images import halved
from benchmarks.quality.oracle import OutOfBudgetError
from benchmarks.quality.statistics import estimate, paired
from benchmarks.rows import Row, RowFile, seeded
from nas_core import settings
from nas_core.algorithms.nsga2 import Nsga2
from nas_core.algorithms.tnd_nas import TndNas
from nas_core.architecture import Architecture, Genotype, genotype_to_json
from nas_core.costs import count
from nas_core.data import Splits
from nas_core.evaluation import Evaluator
from nas_core.events import Evaluation, Price, Propose
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.pareto import hypervolume, non_dominated, select
from nas_core.recipe import Recipe, ShortTraining
from nas_core.search import Axes, Budget, Problem, SearchAlgorithm, drive, start
from nas_core.spaces.darts import DartsCells
from nas_core.training import seed_of
from nas_core.training.networks import Training, misclassified

SPACE = DartsCells(cells=5, channels=8, fan_in="any")
OURS: Mapping[str, Any] = {
    "weights": "paths",
    "draws": 4,
    "path_explore": 0.0,
    "depths": [5, 5, 5],
    "carry": True,
    "batch": 128,
    "lr": 0.05,
    "average": 0.998,
    "shrink": 1,
    "interval": 6,
    "alpha_lr": 0.1,
    "skip_dropout": [],
    "score": "expected_error",
    "score_images": 500,
    "rescored": 100,
    "final_draws": 4,
}
TND: Mapping[str, Mapping[str, Any]] = {
    "tnd-nas": OURS,
    "frozen": {**OURS, "alpha_lr": 1e-12},
    "all-paths": {**OURS, "path_explore": 1.0},
}
NSGA2 = Nsga2(population=20, evaluate=ShortTraining(epochs=1, subset=5000, batch=64, lr=0.05, score_images=2000))
RECIPE: Mapping[str, Any] = {"batch": 128, "lr": 0.05}
WORST_ERROR = 0.75
"""Of the reference point, whose parameters are those of the dearest network of the space."""
CPU = torch.device("cpu")


def problem(splits: Splits, seed: int, evaluations: int, epochs: int) -> Problem[DartsCells]:
    skeleton = SPACE.skeleton(splits.input, splits.classes)
    return Problem(
        space=SPACE,
        axes=Axes({"error": Error(), "params": Params()}),
        skeleton=skeleton,
        targets=(skeleton,),
        budget=Budget(evaluations, epochs),
        seed=seed,
        rng=np.random.default_rng(seed),
        device=CPU,
        splits=splits,
    )


def searched(algorithm: SearchAlgorithm, on: Problem[DartsCells], seconds: float) -> tuple[list[Evaluation], float]:
    """All candidates that it has had scored when its processor seconds are over, and these."""
    evaluator, found = Evaluator(on), dict[str, Evaluation]()
    began = time.process_time()

    def answer(asked: Propose | Price) -> Iterator[Evaluation]:
        for evaluation in evaluator(asked):
            if isinstance(asked, Propose) and evaluation.failure is None:
                found[evaluation.genotype.key()] = evaluation
            yield evaluation
            if time.process_time() - began >= seconds:
                raise OutOfBudgetError(f"{seconds:.0f} processor seconds are used up")

    with suppress(OutOfBudgetError):
        for _ in drive(start(algorithm, on), answer):
            pass
    return list(found.values()), time.process_time() - began


def verified(genotype: Genotype, on: Problem[DartsCells], epochs: int) -> Row:
    """Trained from scratch on the search's images: errors on held-out and on test images, and parameters."""
    architecture, splits = Architecture(genotype, on.skeleton), on.splits
    seed = seed_of(on.seed, architecture.hash)
    training = Training(
        architecture, Recipe(epochs=epochs, **RECIPE), splits.train_and_validation, splits.augmentation, seed, CPU
    )
    while not training.finished:
        training.epoch()
    errors = {name: misclassified(training.network, part, CPU) / part.size for name, part in _held(splits).items()}
    return {**errors, "params": count(architecture).params, "genotype": genotype_to_json(genotype)}


def _held(splits: Splits) -> dict[str, Any]:
    return {"select": splits.select, "test": splits.test}


def run(on: Problem[DartsCells], algorithm: SearchAlgorithm, seconds: float, top: int, trained: int) -> Row:
    """One search, and what its best come to."""
    evaluations, used = searched(algorithm, on, seconds)
    costs = [on.axes.costs_of({key: value.value for key, value in e.values[0].items()}) for e in evaluations]
    dearest = float(count(Architecture(SPACE.extreme(on.skeleton, "params", True), on.skeleton)).params)
    keys = [evaluation.genotype.key() for evaluation in evaluations]
    chosen = select(costs, [1.0, dearest / 1e6], top, keys)
    members = [verified(evaluations[place].genotype, on, trained) for place in chosen]
    return {"seconds": used, "candidates": len(evaluations), "members": members, "dearest": dearest}


def worth(row: Row) -> dict[str, float]:
    """Hypervolume in test values of the front that held-out values choose, and its best and smallest members."""
    members = row["members"]
    front = [
        member
        for member, kept in zip(
            members, non_dominated([[each["select"], each["params"]] for each in members]).tolist(), strict=True
        )
        if kept
    ]
    points = [[member["test"] / WORST_ERROR, member["params"] / row["dearest"]] for member in front]
    best = min(front, key=lambda member: float(member["select"]))
    return {
        "hypervolume": hypervolume(points, [1.0, 1.0]),
        "best_test_error": best["test"],
        "its_params": best["params"],
        "members": len(front),
    }


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    file, images = RowFile(given.cache / "tnd_darts.jsonl"), halved(given.data)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in ("tnd-nas", *given.methods)}
    for seed in range(given.first, given.first + given.seeds):
        seconds = np.inf
        for name, worths in results.items():
            algorithm: SearchAlgorithm = (
                NSGA2 if name == "nsga2" else settings.parse(TndNas, dict(TND[name]), "tnd-nas")
            )
            most = 100_000 if name == "nsga2" else 2 * int(TND[name]["rescored"])

            def compute(
                seed: int = seed,
                algorithm: SearchAlgorithm = algorithm,
                most: int = most,
                seconds: float = seconds if name == "nsga2" else np.inf,
            ) -> Row:
                on = problem(images(seed), seed, most, given.epochs)
                return run(on, algorithm, seconds, given.top, given.trained)

            shared = {"seed": seed, "epochs": given.epochs, "top": given.top, "trained": given.trained}
            row = file.row({**shared, "method": name, "settings": settings.dump(algorithm)}, compute)
            if name == "tnd-nas":
                seconds = row["seconds"]
            worths.append(worth(row))
            print(
                f"seed {seed} {name:8s} {row['seconds']:.0f} s, {row['candidates']} candidates: {worth(row)}",
                flush=True,
            )
    volumes = {name: [each["hypervolume"] for each in worths] for name, worths in results.items()}
    summary = {name: estimate(values).to_json() for name, values in volumes.items()}
    ahead = {name: paired(volumes["tnd-nas"], volumes[name]).to_json() for name in volumes if name != "tnd-nas"}
    print(json.dumps({"benchmark": "tnd_darts", "hypervolume": summary, "tnd_nas_ahead_of": ahead, "rows": results}))
    return 0


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    others = ("nsga2", *(name for name in TND if name != "tnd-nas"))
    parser.add_argument("--methods", nargs="+", default=["nsga2"], choices=others, help="besides tnd-nas")
    parser.add_argument("--epochs", type=int, default=18, help="of the supernet, all stages together")
    parser.add_argument("--top", type=int, default=6, help="networks trained of each search")
    parser.add_argument("--trained", type=int, default=8, help="epochs of each")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
