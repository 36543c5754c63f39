"""A small made-up table over a small space: cells of NAS-Bench-201 with two ops, on a small skeleton."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from typing import Any

from nas_core.spaces.nasbench201 import NasBench201, to_arch

SETTINGS: dict[str, Any] = {"cells": 5, "channels": 2, "normal_ops": ["none", "conv_1x1", "conv_3x3"]}
SPACE: dict[str, Any] = {"name": "nasbench201", **SETTINGS}
INPUT, CLASSES = [1, 8, 8], 10
"""Those of the data set digits."""
MADE = NasBench201(cells=5, channels=2, normal_ops=("none", "conv_1x1", "conv_3x3"))
ARCHS = [to_arch(genotype) for genotype in MADE.every()]
COLUMNS = {
    "acc": {"unit": "%", "direction": "maximize"},
    "test_acc": {"unit": "%", "direction": "maximize"},
    "ms": {"unit": "ms", "direction": "minimize"},
}


def values(arch: str) -> dict[str, float]:
    """Large convolutions help, and cost more than small ones; where they stand matters a little."""
    large, small = arch.count("nor_conv_3x3"), arch.count("nor_conv_1x1")
    place = sum(index for index, letter in enumerate(arch) if letter == "3") / 1000
    accuracy = 50 + 6 * large + 2 * small + place
    return {"acc": accuracy, "test_acc": accuracy - 1, "ms": 1 + 3 * large + small - place}


def text(archs: Iterable[str] = ARCHS, change: Callable[[list[list[Any]]], Any] = lambda rows: None) -> str:
    """As CSV; ``change`` is given the rows, the header first."""
    rows: list[list[Any]] = [["arch", *COLUMNS], *([arch, *values(arch).values()] for arch in archs)]
    change(rows)
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue()


def registration(**changes: Any) -> dict[str, Any]:
    return {
        "name": "made",
        "space": SPACE,
        "input": INPUT,
        "classes": CLASSES,
        "columns": COLUMNS,
        "csv": text(),
        **changes,
    }


def job(**changes: Any) -> dict[str, Any]:
    return {
        "space": SPACE,
        "objectives": [
            {"name": "error", "table": "made", "column": "acc", "test": "test_acc"},
            {"name": "tabular", "table": "made", "column": "ms"},
        ],
        "algorithm": {"name": "nsga2", "population": 10},
        "budget": {"evaluations": 100},
        **changes,
    }
