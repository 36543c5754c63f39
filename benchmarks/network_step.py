"""How much faster a stand-alone network trains on a CPU by our own kernels (nas_core/quick.py).

    python -m benchmarks.network_step [--seeds 0 1 2 3] [--channels 16 36] [--repeats 4]

A step is forward and backward of a random network of the space ``darts`` (eight cells), 32 images of 3x32x32, one
thread, in processor seconds. Both networks have the same weights, take turns in every repeat, and the least time
counts; losses must be equal to 1e-4. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.statistics import estimate
from nas_core.architecture import Architecture
from nas_core.compiled import chains
from nas_core.network import Network
from nas_core.quick import quicken
from nas_core.spaces.darts import DartsCells
from worker.template import ALLOCATOR

SPACE = DartsCells(cells=8)
SAME = 1e-4


def step(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Processor seconds and loss."""
    network.zero_grad(set_to_none=True)
    began = time.process_time()
    loss = F.cross_entropy(network(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    return time.process_time() - began, loss.item()


def measured(seed: int, channels: int, repeats: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    genotype = SPACE.sample(np.random.default_rng(seed))
    plain = Network(Architecture(genotype, SPACE.skeleton((3, 32, 32), 10, channels=channels))).train()
    plain = plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    quick = copy.deepcopy(plain)
    quicken(quick)
    images, labels = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.arange(32) % 10
    found = [[step(network, images, labels) for network in (plain, quick)] for _ in range(repeats)]
    seconds = [min(each[place][0] for each in found) for place in (0, 1)]
    ops = [edge.op for cell in genotype.types.values() for edge in cell.edges]
    return {
        "seed": seed,
        "channels": channels,
        "separable": sum("sep" in op for op in ops),
        "dilated": sum("dil" in op for op in ops),
        "plain_s": seconds[0],
        "quick_s": seconds[1],
        "times_faster": seconds[0] / seconds[1],
        "losses_differ_by": max(abs(one[1] - other[1]) for one, other in found),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="of the network")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 36])
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):  # as in a worker's attempts
        words = [sys.executable, "-m", "benchmarks.network_step", *sys.argv[1:]]
        os.execve(sys.executable, words, {**os.environ, **ALLOCATOR})
    torch.set_num_threads(1)
    rows = [measured(seed, channels, given.repeats) for channels in given.channels for seed in given.seeds]
    for row in rows:
        print(
            f"seed {row['seed']}, {row['channels']} channels, cells with {row['separable']} separable and "
            f"{row['dilated']} dilated convolutions: {row['plain_s']:.3f} s, {row['quick_s']:.3f} s, "
            f"{row['times_faster']:.2f} times",
            flush=True,
        )
    equal = all(row["losses_differ_by"] <= SAME for row in rows)
    result = {"times_faster": estimate([row["times_faster"] for row in rows]).to_json(), "losses_are_equal": equal}
    print(json.dumps({"benchmark": "network_step", "compiled": chains() is not None, **result, "rows": rows}))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
