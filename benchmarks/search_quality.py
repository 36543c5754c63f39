"""How good the cells are that a search hands over, on NAS-Bench-201, against what the search cost.

    python -m benchmarks.search_quality --data FOLDER [--methods flops e12 nsga2:e12 ...] [--costs hw_raspi4_lat_ms ...]
        [--seeds 10] [--evaluations 2000] [--cache build/search-quality] [--out docs/benchmarks]
        [--check-reference]

FOLDER holds ``nasbench201.csv.gz``. A method is one of

- a ranker of all cells by one signal: ``flops``, ``synflow``, ``e12``, ``valid``, ``supernet-E``;
- ``random-N``: N cells drawn at random, handed over whole;
- ``searcher:signal``, a search that asks for one cell after another: searchers random, nsga2, pymoo, optuna-nsga2,
  optuna-tpe; signals valid, e12, synflow, supernet-E.

``supernet-E`` is a shared supernet trained for E epochs on CIFAR-10's images, which FOLDER holds as well
(``cifar10_full_jpeg.npz``). Seed n has its own supernet, and only the first seeds have one: two of the shortest
training, one of the others.

Every method hands over twenty cells chosen by its signal and the cost; their true errors are looked up afterwards. One
run of a search serves all smaller budgets. Rows are kept in the cache as they come; a run that was cut goes on where it
stopped. docs/benchmarks/README.md says what is measured and why. Prints one JSON object last. With
``--check-reference`` the reference figures are computed anew, compared and printed, and nothing else; exit code 1 where
one is off by more than 0.02.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality import report
from benchmarks.quality.images import cifar10
from benchmarks.quality.methods import POPULATION, SEARCHES
from benchmarks.quality.oracle import TRAINING, Floats, Signal, Spent, macs_of
from benchmarks.quality.picture import picture
from benchmarks.quality.reference import compare
from benchmarks.quality.runs import (
    COLUMNS,
    COSTS,
    RANKERS,
    SIGNALS,
    TRUTH,
    Bench,
    equal_cost,
    random_cells,
    rank_all,
    run,
    table_signal,
)
from benchmarks.quality.statistics import by_decile, spearman
from benchmarks.quality.supernet import SUPERNETS, SupernetSignal, of_a_supernet, plan
from benchmarks.quality.zero_cost import SynflowSignal
from benchmarks.rows import Row, RowFile
from benchmarks.tight import Table, load_table, tight

VERSION = 1
"""Of rows: raised when hand-over or methods change, so that no old row is taken for a new one."""
LONGEST = list(SUPERNETS)[-1]
DEFAULT = [
    "flops",
    "synflow",
    "e12",
    "valid",
    "random-20",
    "random-100",
    "random-500",
    "random-2000",
    "random:valid",
    "nsga2:valid",
    "pymoo:valid",
    "optuna-nsga2:valid",
    "random:e12",
    "nsga2:e12",
    "pymoo:e12",
    "optuna-nsga2:e12",
    "optuna-tpe:e12",
    "random:synflow",
    "nsga2:synflow",
    *SUPERNETS,
    *(f"{searcher}:{signal}" for signal in SUPERNETS for searcher in ("random", "nsga2", "pymoo")),
]
PICTURED = {
    *("flops", "synflow", "valid", LONGEST, "random:e12", "nsga2:e12", "pymoo:e12", "nsga2:synflow"),
    *(f"{searcher}:{LONGEST}" for searcher in ("random", "nsga2")),
}
"""As many as the picture has colours; the page has all."""
SLOW = {"optuna-tpe": 300}
"""Evaluations of searchers whose own time would eat up the rest."""
NAME = "search-quality"
COST_NAME = re.compile(r"_ms$|_mj$|^ms$|^flops_m$|^params_m$")
LOWEST = 0.65


class Harness:
    """Everything that runs share: the table, the signals, the rows."""

    def __init__(self, table: Table, costs: Sequence[str], evaluations: int, cache: Path, data: Path) -> None:
        self.bench, self.evaluations, self.cache = Bench.of(table, costs), evaluations, cache
        self.images = lru_cache(1)(partial(cifar10, data))
        self.rows = RowFile(cache / "rows.jsonl")
        self.commit = _commit()
        self._signals: dict[tuple[str, int], Signal] = {}

    def signal(self, name: str, seed: int) -> Signal:
        """Of a supernet the seed's own; the others are the same for all seeds."""
        place = name, seed if of_a_supernet(name) else 0
        if place not in self._signals:
            self._signals[place] = self._made(*place)
        return self._signals[place]

    def _made(self, name: str, seed: int) -> Signal:
        table = self.bench.table
        if name in COLUMNS:
            return table_signal(table, name)
        if name == "synflow":
            return SynflowSignal(table.archs, macs_of(table), self.cache / "synflow.jsonl")
        if of_a_supernet(name):
            return SupernetSignal(table, plan(name, seed), self.images, self.cache)
        raise ValueError(f"there is no signal '{name}'; known: {', '.join(SIGNALS)}")

    def scores(self, ranker: str, seed: int) -> tuple[Floats, Spent]:
        """(cells,) of a ranker, less is better, and the price of all connected cells."""
        table = self.bench.table
        if ranker == "flops":
            return -macs_of(table), Spent()
        signal = self.signal(ranker, seed)
        scores, connected = np.full(len(table.archs), np.inf), np.flatnonzero(table.connected)
        answers = [signal(int(row)) for row in connected]
        scores[connected] = [answer.score for answer in answers]
        prices = [signal.preparation, *(answer.price for answer in answers)]
        return scores, Spent(sum(price.multiply_adds for price in prices), sum(price.seconds for price in prices))

    def result(self, method: str, cost: str, seed: int) -> Row:
        """One method on one cost column with one seed, out of the cache or computed."""
        key: Row = {"method": method, "cost": cost, "seed": seed, "version": VERSION}
        if ":" in method:
            searcher, signal = method.split(":")
            evaluations = min(self.evaluations, SLOW.get(searcher, self.evaluations))
            key |= {"evaluations": evaluations, "population": POPULATION}

            def compute() -> list[Row]:
                return run(self.bench, searcher, self.signal(signal, seed), cost, seed, evaluations)

        elif method in RANKERS:

            def compute() -> list[Row]:
                return rank_all(self.bench, cost, seed, *self.scores(method, seed))

        else:

            def compute() -> list[Row]:
                return random_cells(self.bench, cost, seed, int(method.removeprefix("random-")))

        return self.rows.row(key, lambda: {"commit": self.commit, "rows": compute()})

    def at_equal_cost(self, method: str, cost: str, seed: int, multiply_adds: float) -> Row:
        """Random search for what the method cost: by the same signal where a training stands behind it, else by
        trainings of 12 epochs, charged in full.
        """
        signal = method.split(":")[1]
        return equal_cost(
            self.bench,
            self.signal(signal if signal in COLUMNS else "e12", seed),
            cost,
            seed,
            2 * self.evaluations,
            multiply_adds,
        )

    def correlations(self, rankers: Sequence[str], seeds: int) -> dict[str, Any]:
        """Rank correlation with the truth over connected cells: overall, and within ten tenths of each cost; of
        supernets the mean over them.
        """
        connected = self.bench.table.connected
        accuracies = 100.0 - self.bench.errors[connected]
        found: dict[str, Any] = {}
        for ranker in rankers:
            own = range(seeds_of(ranker, seeds) if of_a_supernet(ranker) else 1)
            signals = [-self.scores(ranker, seed)[0][connected] for seed in own]
            overall = [spearman(signal, accuracies) for signal in signals]
            deciles = {
                cost: np.mean(
                    [by_decile(signal, accuracies, self.bench.table.columns[cost][connected]) for signal in signals], 0
                ).tolist()
                for cost in self.bench.tights
            }
            found[ranker] = {"overall": float(np.mean(overall)), "by_seed": overall, "deciles": deciles}
        return found


def seeds_of(method: str, wanted: int) -> int:
    """How many of the seeds wanted a method has: those of its supernet."""
    return min(wanted, SUPERNETS.get(method.rpartition(":")[2], wanted))


def main() -> int:
    parser = _parser()
    given = parser.parse_args()
    torch.set_num_threads(1)  # seconds are of one core
    try:
        table = load_table(given.data)
        for cost in given.costs:
            _check_cost(table, cost)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if given.check_reference:
        return _check_reference(table)
    start = time.process_time()
    methods, costs = list(dict.fromkeys(given.methods)), list(dict.fromkeys(given.costs))
    harness = Harness(table, costs, given.evaluations, given.cache, given.data)
    found: dict[str, dict[str, dict[int, Sequence[Row]]]] = {cost: {} for cost in costs}
    equal: dict[str, dict[str, dict[int, Row]]] = {cost: {} for cost in costs}
    for seed in range(given.seeds):
        for cost in costs:
            for method in methods:
                if seed >= seeds_of(method, given.seeds):
                    continue
                rows = harness.result(method, cost, seed)["rows"]
                found[cost].setdefault(method, {})[seed] = rows
                if ":" in method:
                    row = harness.at_equal_cost(method, cost, seed, rows[-1]["multiply_adds"])
                    equal[cost].setdefault(method, {})[seed] = row
                print(json.dumps({"seed": seed, "cost": cost, "method": method, **_short(rows[-1])}), flush=True)
    results = report.Results(found, equal)
    summaries = {cost: {method: report.summary(results, cost, method) for method in methods} for cost in costs}
    document = {
        "benchmark": "search_quality",
        "commit": harness.commit,
        "settings": {
            "truth": TRUTH,
            "seeds": given.seeds,
            "evaluations": given.evaluations,
            "population": POPULATION,
            "training_is_forward_times": TRAINING,
        },
        "correlations": harness.correlations([method for method in methods if method in RANKERS], given.seeds),
        "costs": summaries,
        "processor_seconds_of_this_run": round(time.process_time() - start, 1),
    }
    if given.out is not None:
        _write(given.out, document)
    print(json.dumps(document))
    return 0


def _check_cost(table: Table, cost: str) -> None:
    """Raises ValueError for a column that is no cost, or lacks values."""
    costs = [name for name in table.columns if COST_NAME.search(name)]
    if cost not in costs:
        raise ValueError(f"--costs: '{cost}' is no cost column of the table; these are: {', '.join(costs)}")
    tight(table, TRUTH, cost)


def _write(folder: Path, document: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{NAME}.md").write_text(report.page(document, f"{NAME}.svg"))
    panels = [
        report.panel(cost, {method: each for method, each in found.items() if method in PICTURED})
        for cost, found in document["costs"].items()
    ]
    (folder / f"{NAME}.svg").write_text(picture(panels, LOWEST, "tight hypervolume (1 = the whole table)"))


def _check_reference(table: Table) -> int:
    found = compare(table)
    for line in found:
        print(json.dumps(line))
    worst = max(abs(line["found"] - line["reference"]) for line in found)
    print(json.dumps({"benchmark": "search_quality_reference", "figures": len(found), "largest_difference": worst}))
    return int(any(not line["met"] for line in found))


def _short(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "archs"}


def _commit() -> str | None:
    """Of the code that runs; None outside of a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def _method(text: str) -> str:
    searcher, colon, signal = text.partition(":")
    known = (searcher in SEARCHES and signal in SIGNALS) if colon else text in RANKERS
    if not known and not re.fullmatch(r"random-[1-9]\d*", text):
        raise argparse.ArgumentTypeError(
            f"unknown method '{text}'; known: {', '.join(RANKERS)}, random-N, and searcher:signal with the searchers "
            f"{', '.join(SEARCHES)} and the signals {', '.join(SIGNALS)}"
        )
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is wanted; got '{text}'")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--methods", type=_method, nargs="+", default=DEFAULT)
    parser.add_argument("--costs", nargs="+", default=list(COSTS), metavar="COLUMN")
    parser.add_argument("--seeds", type=_positive, default=10)
    parser.add_argument("--evaluations", type=_positive, default=2000, help="distinct cells that a search may ask for")
    parser.add_argument("--cache", type=Path, default=Path("build/search-quality"))
    parser.add_argument("--out", type=Path, help="folder for the page, the JSON object and the picture")
    parser.add_argument("--check-reference", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
