"""Scores of untrained networks: what can be told of an architecture for the price of a pass or two.

None of them is an error; they order networks, and higher is better. Weights are drawn by a seed, the same for all.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.costs import sites
from nas_core.network import Network

IMAGES = 32
"""Noise images, at least."""
PIXELS_A_CHANNEL = 8
"""Of the last cell's maps, in all noise images together: of fewer, components are chance."""


def untrained(architecture: Architecture, seed: int) -> Network:
    """The network with its first weights, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(architecture)


def redrawn(network: Network, seed: int) -> Network:
    """The same network with the weights that ``untrained`` draws by this seed, for a third of the time of making it
    anew.
    """
    network.float().cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return network


def synflow(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Logarithm of the synaptic flow; minus infinity where nothing flows. ``shape``: (C, H, W) of an image.

    Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
    flow" (NeurIPS 2020), summed over all weights as Abdelfattah, Mehrotra, Dudziak and Lane do to rank networks,
    "Zero-cost proxies for lightweight NAS" (ICLR 2021): with every parameter replaced by its absolute value and an
    input of ones, R is the sum of the outputs, and the score the sum of theta dR/dtheta over convolutions and linear
    layers. Batch norms in evaluation mode, untrained, change nothing, so that they are as good as gone. In float64:
    sums grow with every layer. Uses the network up: its parameters are absolute values afterwards.
    """
    network.double().eval()
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    device = next(network.parameters()).device
    flow = network(torch.ones(1, *shape, dtype=torch.float64, device=device)).sum()
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    total = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    return math.log(total) if total > 0 else -math.inf


def noise_images(architecture: Architecture) -> int:
    """How many images ``progressivity`` looks at such a network with."""
    last = sites(architecture.genotype.types, architecture.skeleton)[-1]
    return max(IMAGES, -(-PIXELS_A_CHANNEL * last.outputs // (last.size_out[0] * last.size_out[1])))


@torch.no_grad()
def progressivity(network: Network, shape: tuple[int, int, int], seed: int, images: int = IMAGES) -> float:
    """The least growth, from cell to cell, of how many directions the features of noise images take.

    Lee and Ham, "AZ-NAS" (CVPR 2024), section 3: a cell's expressivity is the entropy of its output's principal
    components, each normalised by their sum; progressivity the smallest difference of neighbours, here of cells.
    Weights by He's initialisation.
    """
    network.train()
    chance = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=chance)
    entropies: list[float] = []
    hooks = [cell.register_forward_hook(lambda _, __, out: entropies.append(_entropy(out))) for cell in network.cells]
    try:
        network(torch.randn(images, *shape, generator=chance).to(next(network.parameters()).device))
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
