"""Does a user's metric, of which nobody knows a gradient, move the front as its exponent grows? In the real service.

    python -m benchmarks.plugin_exponent [--seeds 5] [--exponents 0 -0.3 -1 -3]

The metric is a plug-in: a Python function of multiply-adds, of how many ops stand one behind the other on the longest
way through a cell, and with a jump where there are many of one kind. A job by ``tnd-nas`` with one preference trains a
supernet for each seed; jobs ``from`` it, one for each exponent, redo alpha on it and hand over what alpha derives.
Prints one JSON object last: the metric of that network by exponent, the mean over seeds, and whether that falls.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from api.embedded import Embedded
from skyline.client import Client

PLUGIN = '''
"""Joules of a board of our own, which nobody can differentiate."""

from typing import ClassVar

from nas_core.costs import count
from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Value


@objectives.register("board")
@settings
class Board:
    """Millijoules of an inference."""

    unit: ClassVar[str] = "mJ"
    direction: ClassVar[str] = "minimize"
    source: ClassVar[str] = "measured"

    def measure(self, architectures, device):
        return [Value(round(self.joules(each), 6), self.unit, "predicted") for each in architectures]

    def joules(self, architecture):
        total = count(architecture).macs / 1e5
        for cell in architecture.genotype.types.values():
            longest = {0: 0, 1: 0}
            for edge in cell.edges:
                steps = longest[edge.source] + (edge.op != "skip_connect")
                longest[edge.target] = max(longest.get(edge.target, 0), steps)
            total += 1.5 * max(longest.values())
            total += 4.0 * (sum(edge.op.startswith("sep_conv") for edge in cell.edges) > 2)
        return total
'''
SPEC: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 3, "channels": 4},
    "dataset": {"name": "digits"},
    "objectives": ["error", "board"],
    "algorithm": {
        "name": "tnd-nas",
        "preferences": 1,
        "weights": "relaxed",
        "stages": 1,
        "batch": 32,
        "warmup": 0.8,
        "alpha_lr": 0.05,
        "rescored": 0,
        "policy_steps": 100,
        "ranked_by": {"supernet": 1.0},
        "score": "expected_error",
    },
    "budget": {"epochs": 12, "evaluations": 4},
    "verify": {"top": 1, "epochs": 1},
}
PATIENCE = 900.0


def derived(client: Client, source: str, exponent: float, seed: int) -> float:
    """The metric of what alpha derives with an exponent, on the supernet of a job."""
    algorithm = {"name": "tnd-nas", "exponents": {"board": [exponent]}}
    asked = {"from": source, "seed": seed, "objectives": SPEC["objectives"], "algorithm": algorithm}
    job = client.wait(client.submit(asked).id, timeout=PATIENCE)
    if job.status != "succeeded":
        raise RuntimeError(f"job {job.id} {job.status}: {job.reason}")
    (candidate,) = client.candidates(job.id)
    return float(candidate.search_values["board"].value)


def measure(client: Client, exponents: list[float], seeds: int) -> dict[str, Any]:
    rows = []
    for seed in range(seeds):
        source = client.wait(client.submit({**SPEC, "seed": seed}).id, timeout=PATIENCE)
        if source.status != "succeeded":
            raise RuntimeError(f"job {source.id} {source.status}: {source.reason}")
        rows.append([derived(client, str(source.id), exponent, seed) for exponent in exponents])
        print(f"seed {seed}: {dict(zip(exponents, rows[-1], strict=True))}", flush=True)
    means = np.mean(rows, axis=0).tolist()
    falls = all(after <= before for before, after in itertools.pairwise(means))
    return {"exponents": exponents, "metric": rows, "mean": means, "falls": falls}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--exponents", type=float, nargs="+", default=[0.0, -0.3, -1.0, -3.0])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "board.py"
        file.write_text(PLUGIN)
        with (
            Embedded(Path(folder) / "data", port=0, workers=1, threads=1, plugins=str(file)) as service,
            Client(service.url) as client,
        ):
            found = measure(client, given.exponents, given.seeds)
    print(json.dumps({"benchmark": "plugin_exponent", **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
