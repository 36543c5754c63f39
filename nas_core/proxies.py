"""Scores of untrained networks: what can be told of an architecture for the price of a pass or two.

None of them is an error; they order networks, and higher is better. Weights are drawn by a seed, the same for all.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.costs import sites
from nas_core.network import Network

CPU = torch.device("cpu")
IMAGES = 32
"""Noise images, at least."""
PIXELS_A_CHANNEL = 8
"""Of the last cell's maps, in all noise images together: of fewer, components are chance."""


class Untrained:
    """The network of an architecture with first weights that are drawn by a seed, again and again: making it anew takes
    three times as long. They are drawn on the host, so that a seed means the same on every device. What is looked at is
    made once for each score, which is faster than a copy.
    """

    def __init__(self, architecture: Architecture, device: torch.device = CPU) -> None:
        self.architecture, self.shape, self.device = architecture, architecture.skeleton.input, device
        self._drawn = self._made()
        self._resets: list[Callable[[], None]] = [
            reset for module in self._drawn.modules() if callable(reset := getattr(module, "reset_parameters", None))
        ]

    def _made(self) -> Network:
        with torch.random.fork_rng(devices=[]):
            return Network(self.architecture)

    def network(self, seed: int) -> Network:
        """With the weights that a network gets which is made by this seed; it stays this one until the next draw."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for reset in self._resets:
                reset()
        return self._drawn

    @cached_property
    def _flowing(self) -> Network:
        return self._made().double().eval().to(self.device)

    def synflow(self, seed: int) -> float:
        """``synflow`` of the network by this seed."""
        drawn = self.network(seed)
        with torch.no_grad():
            for weights, first in zip(self._flowing.parameters(), drawn.parameters(), strict=True):
                weights.copy_(first).abs_()
        return _log_flow(self._flowing, self.shape)

    @cached_property
    def _noisy(self) -> Network:
        """Batch norms' parameters are those of every draw, convolutions' are drawn anew."""
        made = self._made().train()
        made.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return made

    @torch.no_grad()
    def progressivity(self, seed: int, images: int = IMAGES) -> float:
        """``progressivity`` with weights by He's initialisation and noise images, both by this seed."""
        chance = torch.Generator().manual_seed(seed)
        for module in self._noisy.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(nn.init.kaiming_normal_(torch.empty(module.weight.shape), generator=chance))
        noise = torch.randn(images, *self.shape, generator=chance)
        return progressivity(self._noisy, noise.to(self.device, memory_format=torch.channels_last))


def synflow(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Logarithm of the synaptic flow; minus infinity where nothing flows. ``shape``: (C, H, W) of an image.

    Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
    flow" (NeurIPS 2020), summed over all weights as Abdelfattah, Mehrotra, Dudziak and Lane do to rank networks,
    "Zero-cost proxies for lightweight NAS" (ICLR 2021): with every parameter replaced by its absolute value and an
    input of ones, R is the sum of the outputs, and the score the sum of theta dR/dtheta over convolutions and linear
    layers. Batch norms in evaluation mode, untrained, change nothing, so that they are as good as gone. In float64:
    sums grow with every layer.
    """
    flowing = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for parameter in flowing.parameters():
            parameter.abs_()
    return _log_flow(flowing, shape)


def _log_flow(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Of a network in float64 whose parameters are none below 0."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    flow = network(torch.ones(1, *shape, dtype=torch.float64, device=weights[0].device)).sum()
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    total = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    return math.log(total) if total > 0 else -math.inf


def noise_images(architecture: Architecture) -> int:
    """How many images ``progressivity`` looks at such a network with."""
    last = sites(architecture.genotype.types, architecture.skeleton)[-1]
    return max(IMAGES, -(-PIXELS_A_CHANNEL * last.outputs // (last.size_out[0] * last.size_out[1])))


@torch.no_grad()
def progressivity(network: Network, images: Tensor) -> float:
    """The least growth, from cell to cell, of how many directions the features of noise images (N, C, H, W) take. The
    network is in training mode, so that norms see these images.

    Lee and Ham, "AZ-NAS" (CVPR 2024), section 3: a cell's expressivity is the entropy of its output's principal
    components, each normalised by their sum; progressivity the smallest difference of neighbours, here of cells.
    """
    entropies: list[float] = []
    hooks = [cell.register_forward_hook(lambda _, __, out: entropies.append(_entropy(out))) for cell in network.cells]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return min(after - before for before, after in itertools.pairwise(entropies))


def _entropy(features: Tensor) -> float:  # (N, C, H, W) -> nats
    rows = features.movedim(1, -1).reshape(-1, features.shape[1])
    rows = rows - rows.mean(dim=0)
    components = torch.linalg.eigvalsh((rows.T @ rows).double() / len(rows)).clamp_min(0.0)
    shares = components / components.sum().clamp_min(1e-30)
    return float(-(shares * (shares + 1e-12).log()).sum())
