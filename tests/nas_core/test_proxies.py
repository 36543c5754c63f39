"""Scores of untrained networks, and how several signals become one ranking."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.network import Network
from nas_core.proxies import Untrained, noise_images, progressivity, synflow
from nas_core.ranking import Blend, agreed
from nas_core.spaces.darts import DartsCells
from nas_core.spaces.nasbench201 import NasBench201, from_arch

SPACE = NasBench201(cells=8, channels=8)
pytestmark = pytest.mark.usefixtures("one_thread")

ONES = np.ones(2)
SKELETON = SPACE.skeleton((3, 8, 8), 10)


def test_synflow_of_two_linear_layers_is_the_closed_form() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)
    flow = float((second.weight.abs() @ first.weight.abs()).detach().sum())  # of an input of ones
    score = synflow(nn.Sequential(nn.Flatten(), first, nn.ReLU(), second), (3, 1, 1))
    assert score == pytest.approx(math.log(2 * flow), rel=1e-6)  # each layer conserves the whole flow


RESIDUAL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
POOLS = "|avg_pool_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|"


def made_by(seed: int, architecture: Architecture) -> Network:
    torch.manual_seed(seed)
    return Network(architecture)


def test_progressivity_is_the_least_step_of_the_cells_entropies() -> None:
    """By hand: what the cells put out is caught from outside, and its principal components taken by another way."""
    arch = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    made = made_by(0, Architecture(from_arch(arch), SKELETON))
    caught: list[torch.Tensor] = []
    for cell in made.cells:
        cell.register_forward_hook(lambda _, __, out: caught.append(out))
    score = progressivity(made, torch.randn(32, *SKELETON.input))
    entropies = []
    for out in caught:
        rows = out.permute(0, 2, 3, 1).reshape(-1, out.shape[1]).double()
        singular = torch.linalg.svdvals(rows - rows.mean(dim=0)) ** 2
        shares = singular / singular.sum()
        entropies.append(float(-(shares * shares.log()).sum()))
    assert len(entropies) == 8
    assert score == pytest.approx(min(np.diff(entropies)), abs=1e-4)


@pytest.mark.parametrize("space", [SPACE, DartsCells(cells=3, channels=4)])
def test_a_network_drawn_anew_is_the_one_made_by_that_seed(space: NasBench201 | DartsCells) -> None:
    skeleton = space.skeleton((3, 8, 8), 10)
    architecture = Architecture(space.sample(np.random.default_rng(0)), skeleton)
    used, chance = Untrained(architecture), torch.get_rng_state()
    used.progressivity(1)
    used.synflow(1)
    fresh = made_by(2, architecture)
    torch.set_rng_state(chance)
    assert used.synflow(2) == synflow(fresh, skeleton.input), "whatever was drawn before"
    assert torch.equal(torch.get_rng_state(), chance), "nobody else's chance is used"
    drawn = used.network(2).state_dict()
    assert all(torch.equal(value, drawn[name]) for name, value in fresh.state_dict().items())
    assert used.progressivity(1) == Untrained(architecture).progressivity(1)


def test_he_initialisation_and_noise_come_from_one_seed() -> None:
    architecture = Architecture(from_arch(RESIDUAL), SKELETON)
    made, chance = made_by(7, architecture).train(), torch.Generator().manual_seed(3)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=chance)
    noise = torch.randn(noise_images(architecture), *SKELETON.input, generator=chance)
    assert Untrained(architecture).progressivity(3, len(noise)) == pytest.approx(progressivity(made, noise), abs=1e-5)


def test_progressivity_is_the_same_for_a_seed_and_prefers_a_residual_cell() -> None:
    residual, pools = (Untrained(Architecture(from_arch(arch), SKELETON)) for arch in (RESIDUAL, POOLS))
    assert residual.progressivity(1) == residual.progressivity(1) != residual.progressivity(2)
    assert all(residual.progressivity(seed) > pools.progressivity(seed) for seed in range(5))


def test_agreement_is_the_sum_of_logarithms_of_ranks() -> None:
    signals = np.array([[0.1, 7.0], [0.3, 5.0], [0.2, 5.0]])
    thirds = np.array([[1, 3], [3, 1.5], [2, 1.5]]) / 3
    assert agreed(signals, ONES) == pytest.approx(np.log(thirds).sum(axis=1))
    assert agreed(signals, np.array([0.5, 2.0])) == pytest.approx(np.log(thirds) @ [0.5, 2.0])
    assert agreed(signals[:, :1], ONES[:1]).argsort().tolist() == [0, 2, 1], "one signal keeps its order"


def test_what_one_signal_finds_bad_is_not_made_good_by_the_others() -> None:
    rng = np.random.default_rng(0)
    signals = rng.random((100, 3))
    signals[0] = (2.0, 2.0, -1.0)
    signals[1] = np.quantile(signals, 0.7, axis=0)
    assert agreed(signals, np.ones(3))[1] > agreed(signals, np.ones(3))[0]


def test_a_blend_gives_accuracies_in_the_order_of_agreement() -> None:
    rng = np.random.default_rng(1)
    signals = rng.normal(size=(50, 2))
    signals[:, 0] = 60 + 10 * signals[:, 0]
    blend = Blend(signals, ONES)
    seen = blend(signals)
    assert spearman(seen, agreed(signals, ONES)) > 0.99
    assert seen.min() >= signals[:, 0].min() and seen.max() <= signals[:, 0].max()
    alone = Blend(signals[:, :1], ONES[:1])
    assert (alone(signals[:, :1]) == signals[:, 0]).all(), "the first signal alone stays what it is"
    assert blend(np.array([[999.0, 99.0]])) == [signals[:, 0].max()]


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [values.argsort().argsort() for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])
