"""How well a shared supernet ranks cells of NAS-Bench-201, beside counting multiply-adds, after so much training.

    python -m benchmarks.supernet_rank --data FOLDER [--epochs 240 480 960] [--seeds 0] [--sample 1000]
        [--set lr=0.1 shrink=2 ...] [--channels 16] [--cells 5] [--cache build/search-quality]

FOLDER holds ``nasbench201.csv.gz`` and ``cifar10_full_jpeg.npz``. Each supernet (epochs, seed) is trained on one core
by the recipe of ``benchmarks.quality.supernet``, changed by ``--set``, and scores ``--sample`` connected cells, always
the same ones (0: all). Spearman's rank correlation is printed with the benchmark's accuracies after 200 epochs: on
validation images, by which settings were chosen, and on test images. Weights and scores are kept in the cache, a run
that was cut goes on. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.images import cifar10
from benchmarks.quality.oracle import macs_of
from benchmarks.quality.runs import TRUTH
from benchmarks.quality.statistics import by_decile, spearman
from benchmarks.quality.supernet import RECIPE, Plan, SupernetSignal
from benchmarks.tight import Table, load_table
from nas_core import settings
from nas_core.recipe import SupernetTraining

VALIDATION = "c10_valid_acc"


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    table = load_table(given.data)
    connected = np.flatnonzero(table.connected)
    order = np.random.default_rng(0).permutation(connected)
    rows = np.sort(order[: given.sample or len(order)])
    macs = macs_of(table)[rows]
    images = lru_cache(1)(partial(cifar10, given.data))
    changed = settings.parse(SupernetTraining, settings.dump(RECIPE) | dict(given.set), "--set")
    found = []
    for seed in given.seeds:
        for epochs in given.epochs:
            plan = Plan(replace(changed, supernet_epochs=epochs), given.channels, given.cells, seed)
            signal = SupernetSignal(table, plan, images, given.cache)
            answers = [signal(int(row)) for row in rows]
            scores = np.array([answer.score for answer in answers])
            line = {
                "epochs": epochs,
                "seed": seed,
                "training_seconds": round(signal.preparation.seconds, 1),
                "multiply_adds": signal.preparation.multiply_adds,
                "seconds_a_score": round(sum(answer.price.seconds for answer in answers) / len(answers), 4),
                **_correlations(table, rows, -scores),
            }
            print(json.dumps(line), flush=True)
            found.append(line)
    document = {
        "benchmark": "supernet_rank",
        "settings": settings.dump(changed) | {"channels": given.channels, "cells": given.cells},
        "sample": len(rows),
        "multiply_adds_alone": _correlations(table, rows, macs),
        "supernets": found,
    }
    print(json.dumps(document))
    return 0


def _correlations(table: Table, rows: Any, signal: Any) -> dict[str, float]:
    """Of a signal (rows,), more is better: over all rows, and the mean of ten tenths by multiply-adds."""
    truth = {name: table.columns[name][rows] for name in (VALIDATION, TRUTH)}
    tenths = by_decile(signal, truth[TRUTH], macs_of(table)[rows])
    known = [value for value in tenths if not np.isnan(value)]
    return {
        "with_validation": round(spearman(signal, truth[VALIDATION]), 4),
        "with_test": round(spearman(signal, truth[TRUTH]), 4),
        "with_test_in_tenths": round(float(np.mean(known)), 4),
    }


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, nargs="+", default=[240, 480, 960])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sample", type=int, default=1000, help="connected cells that are scored; 0: all")
    parser.add_argument("--set", type=_setting, nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5, help="of the whole stack")
    parser.add_argument("--cache", type=Path, default=Path("build/search-quality"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
