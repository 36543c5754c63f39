"""synflow: a score of an untrained network without any image.

Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow"
(NeurIPS 2020), summed over all weights as Abdelfattah, Mehrotra, Dudziak and Lane do to rank networks, "Zero-cost
proxies for lightweight NAS" (ICLR 2021): with every parameter replaced by its absolute value and an input of ones,
R is the sum of the outputs, and the score the sum of theta dR/dtheta over convolutions and linear layers. Batch norms
in evaluation mode, untrained, change nothing, so that they are as good as gone. In float64: sums grow with every layer.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.quality.oracle import TRAINING, Answer, Floats, Spent
from nas_core.architecture import Architecture
from nas_core.network import Network
from nas_core.spaces.nasbench201 import NasBench201, from_arch

SKELETON = NasBench201().skeleton((3, 32, 32), 10)
"""The benchmark's own network."""


def synflow(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Logarithm of the score; minus infinity where nothing flows. ``shape``: (C, H, W) of an image.

    Uses the network up: its parameters are absolute values afterwards.
    """
    network.double().eval()
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    flow = network(torch.ones(1, *shape, dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    total = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    return math.log(total) if total > 0 else -math.inf


class SynflowSignal:
    """Minus synflow of the benchmark's network, by row of the table; each cell is built and scored once.

    The weights are those of seed 0 for every cell: a search draws its chance elsewhere.
    """

    preparation = Spent()

    def __init__(self, archs: tuple[str, ...], macs: Floats, file: Path) -> None:
        """``file`` keeps what was scored, one JSON list [row, score, processor seconds] a line."""
        self.archs, self.macs, self.file = archs, macs, file
        self._known: dict[int, tuple[float, float]] = {}
        if file.exists():
            for line in file.read_text().splitlines():
                row, score, seconds = json.loads(line)
                self._known[row] = score, seconds

    def __call__(self, row: int) -> Answer:
        if row not in self._known:
            start = time.process_time()
            torch.manual_seed(0)
            score = synflow(Network(Architecture(from_arch(self.archs[row]), SKELETON)), SKELETON.input)
            self._known[row] = -score, time.process_time() - start
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:
                file.write(json.dumps([row, *self._known[row]]) + "\n")
        score, seconds = self._known[row]
        return Answer(score, Spent(float(TRAINING * self.macs[row]), seconds))
