"""What a search by MGAS takes in stages, and all at once: memory and seconds, of the same space and as many epochs.

    python -m benchmarks.mgas_stages --data FOLDER [--first 0] [--seeds 3] [--epochs 20] [--images 1500]
        [--cache build/search-quality]

FOLDER holds ``cifar10_full_jpeg.npz``. Images are made half as large (16 x 16); networks have eight cells of three
nodes and eight channels, the ops of ``benchmarks.mgas_sizes``. Each search has a process of its own, which holds no
other images, on one thread. Memory is what its resident memory grew by at most from the search's beginning; seconds
are processor seconds, in all and by phase. Rows are kept in the cache as they come. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import mgas_sizes
from benchmarks.quality.images import cifar10, small
from benchmarks.quality.statistics import estimate
from benchmarks.rows import Row, RowFile, seeded
from nas_core import settings
from nas_core.algorithms.mgas import Mgas
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count
from nas_core.data import Splits, first_drawn
from nas_core.evaluation import Evaluator
from nas_core.events import Progress
from nas_core.granularity.layout import as_derived, full_types
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.search import Axes, Budget, Problem, drive

SPACE = replace(mgas_sizes.FREE, cells=8, nodes=3)
RHO = (0.5, 0.5, 0.5)
SHARE = 0.3
"""Of the full network's parameters, the one target."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {"staged": {}, "one-stage": {"stages": 1}}


def few(data: Path, seed: int, images: int) -> Splits:
    """So many images to train on, and as many for everything else."""
    splits = small(cifar10(data, seed))
    train, rest = (first_drawn(split, images, seed) for split in (splits.train, splits.validation))
    return replace(splits, train=train, validation=rest, select=rest, test=rest, train_and_validation=train)


def searched(splits: Splits, variant: str, seed: int, epochs: int) -> Row:
    """One search, in the process that this is called in."""
    torch.set_num_threads(1)
    skeleton = SPACE.skeleton(splits.input, splits.classes)
    full = count(Architecture(Genotype("darts", as_derived(full_types(SPACE, skeleton), skeleton)), skeleton)).params
    given = {**mgas_sizes.MGAS, "rho": RHO, **VARIANTS[variant], "targets": [SHARE * full]}
    problem: Problem[Any] = Problem(
        space=SPACE,
        axes=Axes({"error": Error(), "params": Params()}),
        skeleton=skeleton,
        targets=(skeleton,),
        budget=Budget(100, epochs),
        seed=seed,
        rng=np.random.default_rng(seed),
        device=torch.device("cpu"),
        splits=splits,
    )
    search = settings.parse(Mgas, given, "mgas").search(problem)
    seconds: dict[str, float] = {}
    resident: dict[str, float] = {}
    before, began = _peak(), time.process_time()
    for event in drive(search, Evaluator(problem)):
        if isinstance(event, Progress):
            now = time.process_time()
            seconds[event.phase] = seconds.get(event.phase, 0.0) + now - began
            resident[event.phase], began = _peak() - before, now
    return {"seconds": seconds, "mib": resident, "full": full}


def _peak() -> float:
    """Most resident memory of this program so far, MiB; Linux alone. That of ``resource`` begins with its parent's."""
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


def main() -> int:
    given = _arguments()
    file = RowFile(given.cache / "mgas_stages.jsonl")
    rows: dict[str, list[Row]] = {name: [] for name in VARIANTS}
    fresh = multiprocessing.get_context("spawn")
    for seed in range(given.first, given.first + given.seeds):
        for variant in VARIANTS:

            def compute(variant: str = variant, seed: int = seed) -> Row:
                splits = few(given.data, seed, given.images)
                with fresh.Pool(1) as pool:
                    return pool.apply(searched, (splits, variant, seed, given.epochs))

            key = {"variant": variant, "seed": seed, "epochs": given.epochs, "images": given.images}
            row = file.row(key, compute)
            rows[variant].append(row)
            print(f"seed {seed} {variant:10s} seconds {row['seconds']}, MiB at most {row['mib']}", flush=True)
    seconds = {name: [sum(row["seconds"].values()) for row in some] for name, some in rows.items()}
    mib = {name: [max(row["mib"].values()) for row in some] for name, some in rows.items()}
    result: dict[str, Any] = {
        name: {"seconds": estimate(seconds[name]).to_json(), "mib": estimate(mib[name]).to_json()} for name in VARIANTS
    }
    for name, values in (("seconds", seconds), ("mib", mib)):
        result[f"{name}_of_staged"] = estimate(
            [mine / theirs for mine, theirs in zip(values["staged"], values["one-stage"], strict=True)]
        ).to_json()
    print(json.dumps({"benchmark": "mgas_stages", **result}))
    return 0


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.set_defaults(seeds=3)
    parser.add_argument("--epochs", type=int, default=20, help="of each search")
    parser.add_argument("--images", type=int, default=1500, help="of training and of validation")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
