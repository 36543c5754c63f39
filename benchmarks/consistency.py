"""How consistent the network that is searched is with the one that is derived from it, and inherited with retrained.

    python -m benchmarks.consistency --data FOLDER [--variants darts ...] [--seeds 5] [--epochs 8] [--cells 20]
        [--cache build/search-quality]

FOLDER holds ``cifar10_full_jpeg.npz``. Images are made half as large (16 x 16); a search in the space ``darts`` (five
cells of two nodes, eight channels) learns its weights from 2,000 training images and alpha from 1,600 validation
images, on which it is judged, too. All variants share these settings; alpha's rate is raised, since a search has some
250 steps. Of each variant and seed, in points of validation accuracy:

    searched     the network of the search, as its last step left it
    derived      the network that comes of it, with inherited weights
    gap          the first minus the second: what discretisation costs (EnTranNAS, arXiv 2101.11342, calls it bias)
    tau          Kendall's, of ``cells`` random cells: accuracy with this supernet's weights against that of the same
                 cells trained from scratch (once, on 6,000 training images) by one recipe

Rows are kept in the cache as they come. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.own_scores import run
from benchmarks.quality.images import halved
from benchmarks.quality.statistics import estimate
from benchmarks.rows import Row, RowFile, seeded
from nas_core import settings
from nas_core.algorithms.darts import Darts
from nas_core.algorithms.entrannas import EnTranNas
from nas_core.architecture import Architecture, Genotype
from nas_core.data import Splits, first_drawn
from nas_core.objectives.error import Error
from nas_core.profiling import kendall_tau
from nas_core.recipe import Recipe
from nas_core.search import Axes, Budget, Problem
from nas_core.spaces.darts import DartsCells
from nas_core.training import seed_of
from nas_core.training.networks import Training, misclassified

SPACE = DartsCells(cells=5, channels=8, nodes=2)
SHARE = 0.08
"""Of the training part and of the validation part, 25,000 and 20,000 images."""
STEPS: Mapping[str, Any] = {
    "batch": 64,
    "lr": 0.05,
    "alpha_lr": 0.01,
    "train_share": SHARE,
    "validation_share": SHARE,
    "fused": True,
}
VARIANTS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "darts": (Darts, {}),
    "darts-shared": (Darts, {"share_features": True}),
    "entrannas": (EnTranNas, {}),
    "entrannas-unshared": (EnTranNas, {"share_features": False}),
    "dst": (EnTranNas, {"dst": True}),
    "dst-unshared": (EnTranNas, {"dst": True, "share_features": False}),
}
RECIPE = Recipe(epochs=6, batch=96, lr=0.1)
RETRAINED = 6_000
"""Training images of a cell that is trained from scratch."""
CPU = torch.device("cpu")


def problem(splits: Splits, variant: str, seed: int, epochs: int) -> Problem[DartsCells]:
    space = replace(SPACE, fan_in="free") if variant.startswith("dst") else SPACE
    skeleton = space.skeleton(splits.input, splits.classes)
    return Problem(
        space=space,
        axes=Axes({"error": Error()}),
        skeleton=skeleton,
        targets=(skeleton,),
        budget=Budget(epochs + 1, epochs),
        seed=seed,
        rng=np.random.default_rng(seed),
        device=CPU,
        splits=splits,
    )


def cells(count: int) -> list[Genotype]:
    """The same ones for all variants and seeds."""
    rng = np.random.default_rng(seed_of(0, "cells"))
    return [SPACE.sample(rng) for _ in range(count)]


def searched(images: Callable[[int], Splits], variant: str, seed: int, epochs: int, count: int) -> Row:
    """One search: accuracies of what is searched and of what is derived, and those of random cells on its weights."""
    kind, changed = VARIANTS[variant]
    algorithm = settings.parse(kind, {**STEPS, **changed}, variant)
    engine = algorithm.engine(problem(images(seed), variant, seed, epochs))
    began = time.process_time()
    shown = run(engine)
    seconds = time.process_time() - began
    with torch.no_grad():
        mixture = engine.error_of(engine.relaxation.choice())
    (derived,) = engine.relaxation.derive()
    return {
        "searched": 100 * (1 - mixture),
        "derived": 100 * (1 - engine.error(derived)),
        "inherited": [100 * (1 - engine.error(genotype)) for genotype in cells(count)],
        "ops": sum(len(cell.edges) for cell in derived.types.values()),
        "last": shown[-1],
        "seconds": seconds,
    }


def trained(of_seed: Callable[[int], Splits], place: int, count: int) -> Row:
    """One of the random cells, from scratch: validation accuracy."""
    genotype, splits = cells(count)[place], of_seed(0)
    images = first_drawn(splits.train, RETRAINED, seed_of(0, "retrained"))
    architecture = Architecture(genotype, SPACE.skeleton(splits.input, splits.classes))
    training = Training(architecture, RECIPE, images, splits.augmentation, seed_of(0, place), CPU)
    while not training.finished:
        training.epoch()
    wrong = misclassified(training.network, splits.validation, CPU)
    return {"accuracy": 100 * (1 - wrong / splits.validation.size)}


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    file, images = RowFile(given.cache / "consistency.jsonl"), halved(given.data)
    rows: dict[str, list[Row]] = {name: [] for name in given.variants}
    for seed in range(given.first, given.first + given.seeds):
        for variant in given.variants:
            key = {
                "variant": variant,
                "seed": seed,
                "epochs": given.epochs,
                "cells": given.cells,
                "settings": {**STEPS, **VARIANTS[variant][1]},
            }
            row = file.row(key, partial(searched, images, variant, seed, given.epochs, given.cells))
            rows[variant].append(row)
            print(
                f"seed {seed} {variant:18s} searched {row['searched']:.1f}, derived {row['derived']:.1f}, "
                f"{row['ops']} ops, {row['seconds']:.0f} s",
                flush=True,
            )
    recipe = {"epochs": RECIPE.epochs, "batch": RECIPE.batch, "lr": RECIPE.lr, "images": RETRAINED}
    truth = []
    for place in range(given.cells):
        row = file.row({"cell": place, "of": given.cells, **recipe}, partial(trained, images, place, given.cells))
        truth.append(row["accuracy"])
    results = {}
    for variant, some in rows.items():
        columns = {name: [row[name] for row in some] for name in ("searched", "derived", "ops", "seconds")}
        columns["gap"] = [row["searched"] - row["derived"] for row in some]
        columns["tau"] = [kendall_tau(row["inherited"], truth) for row in some]
        results[variant] = {name: estimate(values).to_json() for name, values in columns.items()}
    print(json.dumps({"benchmark": "consistency", "trained": truth, "results": results}))
    return 0


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=8, help="of each search")
    parser.add_argument("--cells", type=int, default=20, help="random cells, trained from scratch once")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
