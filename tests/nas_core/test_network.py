"""Stand-alone networks: shapes, auxiliary heads, drop path."""

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.network import Network, drop_path
from nas_core.spaces.darts import DartsCells, from_darts
from tests.nas_core.published import DARTS_V2

SPACE = DartsCells(cells=5, channels=4)


def network(input: tuple[int, int, int], auxiliary: bool = False, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    genotype = SPACE.sample(np.random.default_rng(seed))
    return Network(Architecture(genotype, SPACE.skeleton(input, 7)), auxiliary)


@pytest.mark.parametrize("input", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 31), (3, 64, 64), (3, 65, 97)])
def test_logits_for_odd_and_even_sizes_and_both_stems(input: tuple[int, int, int]) -> None:
    assert network(input)(torch.randn(2, *input)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("input", "classes", "cells", "channels", "weights", "maps"),
    [((3, 32, 32), 10, 20, 36, 476_426, 8), ((3, 224, 224), 1000, 14, 48, 1_260_776, 7)],
)
def test_published_auxiliary_heads(input, classes, cells, channels, weights, maps) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        net = Network(Architecture(from_darts(DARTS_V2), SPACE.skeleton(input, classes, cells, channels)), True)
        assert net.auxiliary is not None
        logits, auxiliary = net.with_auxiliary(torch.empty(2, *input))
    assert sum(parameter.numel() for parameter in net.auxiliary.parameters()) == weights
    assert logits.shape == (2, classes)
    assert auxiliary is not None and auxiliary.shape == (2, classes)


def test_auxiliary_logits_only_in_training_and_only_where_maps_are_large_enough() -> None:
    net = network((3, 32, 32), auxiliary=True)
    assert net.with_auxiliary(torch.randn(2, 3, 32, 32))[1] is not None
    assert net.eval().with_auxiliary(torch.randn(2, 3, 32, 32))[1] is None
    assert network((1, 8, 8), auxiliary=True).auxiliary is None


def test_auxiliary_heads_of_maps_that_are_not_square() -> None:
    net = network((1, 32, 64), auxiliary=True)
    logits, auxiliary = net.with_auxiliary(torch.randn(2, 1, 32, 64))
    assert auxiliary is not None and auxiliary.shape == logits.shape


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    """DARTS property 9."""
    generator = torch.Generator().manual_seed(0)
    x = torch.full((20_000, 2, 1, 1), 3.0)
    out = drop_path(x, 0.3, generator)
    per_sample = out[:, :, 0, 0]
    assert torch.equal(per_sample[:, 0], per_sample[:, 1])
    standard_error = 3.0 * (0.3 / 0.7) ** 0.5 / 20_000**0.5
    assert abs(per_sample[:, 0].mean() - 3.0) < 3 * standard_error


def test_identity_is_never_dropped_and_evaluation_is_deterministic() -> None:
    genotype = SPACE.extreme(SPACE.skeleton((3, 32, 32), 7), "params", False)
    only_skips = DartsCells(cells=5, channels=4, normal_ops=("skip_connect",), reduce_ops=("skip_connect",))
    genotype = only_skips.extreme(only_skips.skeleton((3, 32, 32), 7), "params", False)
    net = Network(Architecture(genotype, only_skips.skeleton((3, 32, 32), 7)))
    net.drop_path, net.drop_path_generator = 0.9, torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    dropped = []
    for cell in net.cells:
        for op in cell.ops:  # type: ignore[union-attr]
            if not isinstance(op, nn.Identity):
                dropped.append(op)
    net.eval()
    assert torch.equal(net(x), net(x))
    net.train()
    normal = net.cells[0]
    states = [torch.randn(4, 12, 32, 32), torch.randn(4, 12, 32, 32)]
    assert torch.equal(normal(states, 0.9, net.drop_path_generator), normal(states, 0.0, None))
    assert dropped  # the reduction cells' factorized reduces are not identities


def test_pools_have_norms_in_the_supernet_alone() -> None:
    """DARTS property 8, the evaluation half."""
    pools = DartsCells(cells=3, channels=4, normal_ops=("avg_pool_3x3",), reduce_ops=("max_pool_3x3",))
    genotype = pools.sample(np.random.default_rng(0))
    net = Network(Architecture(genotype, pools.skeleton((3, 32, 32), 7)))
    inside = [module for cell in net.cells for module in cell.ops.modules()]  # type: ignore[union-attr]
    assert any(isinstance(module, nn.MaxPool2d) for module in inside)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in inside)
    assert all(norm.affine for norm in net.modules() if isinstance(norm, nn.BatchNorm2d))
