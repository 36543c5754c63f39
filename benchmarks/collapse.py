"""DARTS' collapse on NAS-Bench-201, and where its guard ends a search.

    python -m benchmarks.collapse --data FOLDER [--first 0] [--seeds 5] [--epochs 40] [--cache build/search-quality]

FOLDER holds ``nasbench201.csv.gz`` and ``cifar10_full_jpeg.npz``. DARTS (first order, settings of
``benchmarks.rc_darts_bounds``) searches on images of 8 x 8 without a guard; after each epoch the true test error of the
cell that it derives is looked up. A guard ends a search after the first epoch in which the share of ops without
parameters reaches its limit (``collapse: {parameter_free: LIMIT}``), and leaves the cell derived in the epoch before;
up to there nothing is different, so that one search shows all limits. Rows are kept in the cache. Prints one JSON
object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.quality.images import halved, small
from benchmarks.quality.statistics import estimate
from benchmarks.rc_darts_bounds import SPACE, STEPS, TRUTH
from benchmarks.rows import Row, RowFile, seeded
from benchmarks.tight import Table, load_table
from nas_core import settings
from nas_core.algorithms.darts import Darts
from nas_core.data import Splits
from nas_core.events import Evaluation, Price, Progress, Propose
from nas_core.objectives.error import Error
from nas_core.search import Axes, Budget, Problem, drive
from nas_core.spaces.nasbench201 import to_arch
from nas_core.training import seed_of

LIMITS = (0.4, 0.5, 0.6, 0.8)


def searched(table: Table, images: Callable[[int], Splits], seed: int, epochs: int) -> Row:
    """Epoch by epoch, the share of ops without parameters, the gap, and the cell's true error, percent."""
    splits = images(seed)
    skeleton = SPACE.skeleton(splits.input, splits.classes)
    problem: Problem[Any] = Problem(
        space=SPACE,
        axes=Axes({"error": Error()}),
        skeleton=skeleton,
        targets=(skeleton,),
        budget=Budget(10_000, epochs),
        seed=seed_of(seed, "collapse"),
        rng=np.random.default_rng(seed),
        device=torch.device("cpu"),
        splits=splits,
    )
    errors = dict(zip(table.archs, 100.0 - table.columns[TRUTH], strict=True))
    newest: list[str] = []

    def answer(asked: Propose | Price) -> Iterator[Evaluation]:
        assert isinstance(asked, Propose)
        for genotype, known in zip(asked.genotypes, asked.known, strict=True):
            newest.append(to_arch(genotype))
            yield Evaluation(genotype, (known,))

    began, lines = time.process_time(), []
    search = settings.parse(Darts, {**STEPS, "order": "first"}, "darts").search(problem)
    for event in drive(search, answer):
        if isinstance(event, Progress):
            shown = {name: event.metrics.get(name, float("nan")) for name in ("parameter_free", "gap")}
            lines.append({**shown, "arch": newest[-1], "true": float(errors[newest[-1]])})
    return {"epochs_seen": lines, "seconds": time.process_time() - began}


def ended(lines: list[Row], limit: float) -> tuple[int, float]:
    """The epoch in which a guard with this limit ends the search, and the true error of what it leaves."""
    for place, line in enumerate(lines):
        if line["parameter_free"] >= limit:
            return place + 1, float(lines[max(0, place - 1)]["true"])
    return len(lines), float(lines[-1]["true"])


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    table, images = load_table(given.data), halved(given.data)
    file, rows = RowFile(given.cache / "collapse.jsonl"), []
    for seed in range(given.first, given.first + given.seeds):
        key = {"seed": seed, "epochs": given.epochs, "settings": STEPS}
        compute = partial(searched, table, lambda seed: small(images(seed)), seed, given.epochs)
        rows.append(file.row(key, compute))
        lines = rows[-1]["epochs_seen"]
        trace = ", ".join(
            f"{line['parameter_free']:.2f}: {line['true']:.0f}" for line in lines[:: max(1, len(lines) // 8)]
        )
        print(f"seed {seed}: share without parameters: true error % {trace}; {rows[-1]['seconds']:.0f} s", flush=True)
    result: dict[str, Any] = {
        "at_the_end": estimate([row["epochs_seen"][-1]["true"] for row in rows]).to_json(),
        "best_on_the_way": estimate([min(line["true"] for line in row["epochs_seen"]) for row in rows]).to_json(),
        "parameter_free_at_the_end": [row["epochs_seen"][-1]["parameter_free"] for row in rows],
    }
    for limit in LIMITS:
        epochs, errors = zip(*(ended(row["epochs_seen"], limit) for row in rows), strict=True)
        result[f"guard_{limit}"] = {"epoch": list(epochs), "error": estimate(errors).to_json()}
    print(json.dumps({"benchmark": "collapse", **result}))
    return 0


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
