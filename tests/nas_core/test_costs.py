"""Costs: the table without torch equals what the built network has, to the integer."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas_core.architecture import Architecture, Edge, Genotype
from nas_core.costs import OPS, Cost, count, op_layers
from nas_core.errors import UnknownNameError
from nas_core.network import Network
from nas_core.ops import FAMILIES
from nas_core.spaces.darts import DartsCells, from_darts
from tests.nas_core.published import DARTS_V2

SPACE = DartsCells()


@pytest.mark.parametrize(
    ("input", "classes", "cells", "channels", "expected"),
    [
        ((3, 32, 32), 10, 20, 36, Cost(3_349_342, 528_359_040, 547_473_024)),
        ((3, 224, 224), 1000, 14, 48, Cost(4_718_752, 529_911_552, 544_588_032)),
    ],
)
def test_published_network_counts_as_published(
    input: tuple[int, int, int], classes: int, cells: int, channels: int, expected: Cost
) -> None:
    skeleton = SPACE.skeleton(input, classes, cells, channels)
    assert count(Architecture(from_darts(DARTS_V2), skeleton)) == expected


@pytest.mark.parametrize(
    ("resource", "floor", "ceiling"), [("params", 1_370_134, 5_144_086), ("macs", 227_272_320, 817_833_600)]
)
def test_floor_and_ceiling_of_the_darts_space(resource, floor, ceiling) -> None:  # type: ignore[no-untyped-def]
    skeleton = SPACE.skeleton((3, 32, 32), 10, 20, 36)
    low, high = (
        getattr(count(Architecture(SPACE.extreme(skeleton, resource, highest), skeleton)), resource)
        for highest in (False, True)
    )
    assert (low, high) == (floor, ceiling)


WIDE = DartsCells(cells=4, channels=6, normal_ops=tuple(OPS), reduce_ops=tuple(OPS))


def built_count(architecture: Architecture) -> tuple[int, int]:
    """Params and conv + linear MACs of the real network, on the meta device."""
    with torch.device("meta"), torch.no_grad():
        network = Network(architecture).eval()
        image = torch.empty(1, *architecture.skeleton.input)
        with FlopCounterMode(display=False) as counter:
            network(image)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("input", [(3, 32, 32), (1, 28, 28), (3, 64, 64)])
def test_table_equals_the_built_network(seed: int, input: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    genotype = WIDE.sample(rng)
    architecture = Architecture(genotype, WIDE.skeleton(input, 7))
    cost = count(architecture)
    assert (cost.params, cost.macs) == built_count(architecture)
    for resource in ("params", "macs"):
        table = WIDE.cost_table(architecture.skeleton, resource)  # type: ignore[arg-type]
        chosen = WIDE.selection(genotype)
        total = table.of(chosen)
        assert total == getattr(cost, resource)


def test_any_fan_in_and_middle_widths_are_counted() -> None:
    genotype = WIDE.sample(np.random.default_rng(0))
    normal = genotype.types["normal"]
    extra = (Edge(5, 0, "conv_3x3"), Edge(5, 1, "sep_conv_5x5", width=4), Edge(3, 0, "sep_conv_3x3", weight=0.5))
    types = {**genotype.types, "normal": WIDE.cell("normal", (*normal.edges, *extra))}
    architecture = Architecture(Genotype("darts", types), WIDE.skeleton((3, 32, 32), 10))
    cost = count(architecture)
    assert (cost.params, cost.macs) == built_count(architecture)


def test_an_op_without_a_known_cost_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="unknown op 'warp_conv'; known: .*sep_conv_3x3"):
        op_layers(Edge(2, 0, "warp_conv"), 8, 1)


def test_every_op_that_can_be_built_can_be_counted() -> None:
    assert set(OPS) == set(FAMILIES)
