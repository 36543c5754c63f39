"""Whether the two ways of counting agree: the additive table without torch, and the built network.

    python -m benchmarks.counting [--networks 1000] [--seed 0] [--space darts ...]

For each space, random networks of random depth, width, image size, fan-in, concatenation and middle width, every op
known. Each is counted by the table and once more as built on the meta device. Prints one JSON object last: networks,
how many differ (none may), and the seconds that each way took. Exit code 1 when any differs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping

import numpy as np

from nas_core.architecture import Architecture, CellType, Edge, Genotype
from nas_core.costs import OPS, count
from nas_core.counting import built_cost
from nas_core.spaces.darts import INPUTS, TYPES, DartsCells
from nas_core.spaces.nasbench201 import BENCHMARK_OPS, EDGES, NasBench201, genotype_of

INPUTS_OF_IMAGES = ((3, 32, 32), (1, 28, 28), (3, 33, 47), (3, 64, 64), (1, 8, 8))


def darts(rng: np.random.Generator) -> Architecture:
    """Cells as in DARTS, but with every op, any fan-in, any concatenation, middle widths and norms behind pools."""
    types = {}
    for name in TYPES:
        nodes = int(rng.integers(1, 6))
        edges = []
        for target in range(INPUTS, INPUTS + nodes):
            for source in rng.choice(target, int(rng.integers(1, target + 1))):
                op = str(rng.choice(list(OPS)))
                width = int(rng.integers(1, 20)) if op.startswith("sep_conv") and rng.random() < 0.5 else None
                edges.append(Edge(target, int(source), op, width))
        concat = sorted(rng.choice(np.arange(INPUTS, INPUTS + nodes), int(rng.integers(1, nodes + 1)), replace=False))
        outputs = tuple(int(node) for node in concat)
        norm = bool(rng.random() < 0.5)
        types[name] = CellType(tuple(edges), INPUTS, nodes, name == "reduce", concat=outputs, pool_norm=norm)
    space = DartsCells(cells=int(rng.integers(3, 9)), channels=int(rng.integers(2, 20)))
    skeleton = space.skeleton(INPUTS_OF_IMAGES[rng.integers(len(INPUTS_OF_IMAGES))], int(rng.integers(2, 101)))
    return Architecture(Genotype("darts", types), skeleton)


def nasbench201(rng: np.random.Generator) -> Architecture:
    """Any of the benchmark's cells, disconnected ones too."""
    space = NasBench201(cells=3 * int(rng.integers(1, 6)) + 2, channels=int(rng.integers(2, 20)))
    ops = [BENCHMARK_OPS[column] for column in rng.integers(len(BENCHMARK_OPS), size=len(EDGES))]
    skeleton = space.skeleton(INPUTS_OF_IMAGES[rng.integers(len(INPUTS_OF_IMAGES))], int(rng.integers(2, 101)))
    return Architecture(genotype_of(ops), skeleton)


SPACES: Mapping[str, Callable[[np.random.Generator], Architecture]] = {"darts": darts, "nasbench201": nasbench201}
"""By space: a random network."""


def compare(space: str, networks: int, seed: int) -> dict[str, float | int]:
    """How many of ``networks`` random ones count differently, and seconds of each way."""
    rng = np.random.default_rng(seed)
    different, by_table, by_building = 0, 0.0, 0.0
    for _ in range(networks):
        architecture = SPACES[space](rng)
        start = time.perf_counter()
        cost = count(architecture)
        between = time.perf_counter()
        built = built_cost(architecture)
        by_table, by_building = by_table + between - start, by_building + time.perf_counter() - between
        if built != (cost.params, cost.macs):
            different += 1
            print(f"{space}: table {cost.params}, {cost.macs}; built {built}: {json.dumps(architecture.to_json())}")
    seconds = {"table_seconds": round(by_table, 3), "built_seconds": round(by_building, 3)}
    return {"networks": networks, "different": different, **seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--space", choices=list(SPACES), nargs="+", default=list(SPACES))
    given = parser.parse_args()
    found = {space: compare(space, given.networks, given.seed) for space in given.space}
    print(json.dumps({"benchmark": "counting", "seed": given.seed, "spaces": found}))
    return int(any(result["different"] for result in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
