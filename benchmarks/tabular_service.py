"""Whole service runs over NAS-Bench-201's table: how long one takes, and how good its front is.

    python -m benchmarks.tabular_service --data DIR [--seeds 10] [--evaluations 2000] [--json FILE]

DIR holds ``nasbench201.csv.gz``. The table is registered with a real embedded service; each job takes its error from
``c10_valid_acc`` and ``hw_raspi4_lat_ms`` as the cost, and is posted, searched, concluded and fetched over HTTP. Beside
NSGA-II and random search through the service, pymoo's NSGA-II runs in this process over the same table, until it has
seen as many distinct connected cells. Each is scored by the tight hypervolume in validation values (benchmarks.tight)
of all that it found. Prints a line per run and one JSON object last; times are seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from api.embedded import Embedded
from benchmarks.tight import FILE, Table, Tight, load_table, tight
from nas_core.architecture import genotype_from_json
from nas_core.spaces.nasbench201 import BENCHMARK_OPS, EDGES, genotype_of, is_connected, to_arch
from skyline.client import Client

ACCURACY, COST = "c10_valid_acc", "hw_raspi4_lat_ms"
BAR_SECONDS, LEAST, ABOVE_RANDOM, BELOW_PYMOO = 60.0, 0.97, 0.03, 0.01
"""Medians over the seeds."""
GENERATIONS = 2000
"""Of pymoo at most: it repeats itself once it has converged, and repeating costs it nothing here."""


def spec(algorithm: dict[str, Any], evaluations: int, seed: int) -> dict[str, Any]:
    return {
        "space": {"name": "nasbench201"},
        "objectives": [
            {"name": "error", "table": "nb201", "column": ACCURACY, "test": "c10_test_acc"},
            {"name": "tabular", "table": "nb201", "column": COST},
        ],
        "algorithm": algorithm,
        "budget": {"evaluations": evaluations},
        "seed": seed,
    }


def register(client: Client, folder: Path) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    share = {"unit": "%", "direction": "maximize"}
    columns = {ACCURACY: share, "c10_test_acc": share, COST: {"unit": "ms", "direction": "minimize"}}
    client.add_table("nb201", folder / FILE, space="nasbench201", input=(3, 32, 32), classes=10, columns=columns)
    return time.perf_counter() - began


def through_service(client: Client, job: dict[str, Any], table: Table, measure: Tight) -> dict[str, Any]:
    """One job, from the request to the front in hand."""
    began = time.perf_counter()
    made = client.wait(client.submit(job).id)
    if made.status != "succeeded":
        raise RuntimeError(f"job {made.id} is {made.status}: {made.reason}")
    front = client.front(made.id, kind="final")
    seconds = time.perf_counter() - began
    assert made.started_at is not None and made.ended_at is not None, "it has ended"
    archs = [to_arch(genotype_from_json(member.architecture["genotype"])) for member in front.members]
    return {
        "seconds": seconds,
        "waited": (made.started_at - made.created_at).total_seconds(),
        "cpu_seconds": sum(attempt.cpu_seconds or 0 for attempt in made.attempts),
        "front": len(archs),
        "hypervolume": score(archs, table, measure),
    }


def score(archs: Sequence[str], table: Table, measure: Tight) -> float:
    rows = table.rows(archs)
    return measure.hypervolume(100.0 - table.columns[ACCURACY][rows], table.columns[COST][rows])


def by_pymoo(table: Table, measure: Tight, evaluations: int, population: int, seed: int) -> dict[str, Any]:
    """pymoo's NSGA-II over six choices; uniform crossover and a random choice as mutation suit them best."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.core.variable import Choice
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.rm import ChoiceRandomMutation
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    places = {arch: row for row, arch in enumerate(table.archs)}
    errors, costs = 100.0 - table.columns[ACCURACY], table.columns[COST]
    seen: dict[str, None] = {}
    worst = [float(errors.max()), float(costs.max()) * 2]
    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=UniformCrossover(prob=0.9),
        mutation=ChoiceRandomMutation(prob_var=1 / len(EDGES)),
    )
    last = len(BENCHMARK_OPS) - 1
    choices = {str(edge): Choice(options=list(range(last + 1))) for edge in range(len(EDGES))}
    algorithm.setup(Problem(n_var=len(EDGES), n_obj=2, vars=choices, xl=0, xu=last), seed=seed)
    began = time.perf_counter()
    for _ in range(GENERATIONS):
        children = algorithm.ask()
        if children is None or len(seen) >= evaluations:
            break
        values = []
        for genes in children.get("X"):
            ops = [BENCHMARK_OPS[int(gene)] for gene in genes]
            if not is_connected(ops):
                values.append(worst)
                continue
            arch = to_arch(genotype_of(ops))
            if len(seen) < evaluations:
                seen[arch] = None
            row = places[arch]
            values.append([float(errors[row]), float(costs[row])] if arch in seen else worst)
        children.set("F", np.array(values))
        algorithm.tell(infills=children)
    return {
        "seconds": time.perf_counter() - began,
        "evaluations": len(seen),
        "hypervolume": score(list(seen), table, measure),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of nasbench201.csv.gz")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--population", type=int, default=50, help="of both evolutions")
    parser.add_argument("--json", type=Path, help="a file for the last line, too")
    given = parser.parse_args()
    table = load_table(given.data)
    measure = tight(table, ACCURACY, COST)
    algorithms: dict[str, dict[str, Any]] = {
        "nsga2": {"name": "nsga2", "population": given.population},
        "random": {"name": "random", "batch": given.population},
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*algorithms, "pymoo")}
    with (
        tempfile.TemporaryDirectory(prefix="skyline-") as folder,
        Embedded(Path(folder), port=0, workers=1, threads=1) as service,
        Client(service.url) as client,
    ):
        registered = register(client, given.data)
        for seed in range(given.seeds):
            for name, algorithm in algorithms.items():
                job = spec(algorithm, given.evaluations, seed)
                runs[name].append(through_service(client, job, table, measure))
            runs["pymoo"].append(by_pymoo(table, measure, given.evaluations, given.population, seed))
            for name, found in runs.items():
                print(json.dumps({"method": name, "seed": seed, **found[-1]}), flush=True)
    medians = {name: statistics.median(run["hypervolume"] for run in found) for name, found in runs.items()}
    seconds = statistics.median(run["seconds"] for run in runs["nsga2"])
    met = {
        "seconds": seconds < BAR_SECONDS,
        "least": medians["nsga2"] >= LEAST,
        "above_random": medians["nsga2"] >= medians["random"] + ABOVE_RANDOM,
        "not_below_pymoo": medians["nsga2"] >= medians["pymoo"] - BELOW_PYMOO,
    }
    summary = {
        "benchmark": "tabular_service",
        "accuracy": ACCURACY,
        "cost": COST,
        "evaluations": given.evaluations,
        "population": given.population,
        "whole_table": measure.whole,
        "register_seconds": registered,
        "seconds": seconds,
        "hypervolume": medians,
        "by_seed": {name: [run["hypervolume"] for run in each] for name, each in runs.items()},
        "met": met,
    }
    print(json.dumps(summary))
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(summary, indent=2) + "\n")
    return int(not all(met.values()))


if __name__ == "__main__":
    raise SystemExit(main())
