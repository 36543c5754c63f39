"""Small sub-nets for the tests of MGAS."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nas_core.granularity.layout import first_cells, full_types
from nas_core.granularity.masked import Subnet
from nas_core.granularity.slots import Levels, Table
from nas_core.spaces.darts import DARTS_OPS, DartsCells

OPS = DARTS_OPS[1:]
SPACE = DartsCells(cells=3, channels=4, nodes=2, fan_in="free", levels="cell", filters=True)
LEVELS = Levels()
CPU = torch.device("cpu")


def space_of(ops: tuple[str, ...] = OPS, cells: int = 3, channels: int = 4, nodes: int = 2) -> DartsCells:
    return replace(SPACE, cells=cells, channels=channels, nodes=nodes, normal_ops=ops, reduce_ops=ops)


def subnet(
    space: DartsCells = SPACE,
    end: int | None = None,
    stage: int | None = None,
    levels: Levels = LEVELS,
    seed: int = 0,
    side: int = 8,
) -> Subnet:
    """The full one of cells 0 to ``end``."""
    skeleton = space.skeleton((3, side, side), 3)
    tables = {name: Table(space.edges, tuple(op for op in space.ops(name) if op != "none")) for name in space.types}
    shorter = skeleton if end is None else first_cells(skeleton, end)
    return Subnet(full_types(space, skeleton), shorter, tables, levels, seed, CPU, stage)


def images(count: int = 6, side: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomised(net: Subnet, seed: int = 0, spread: float = 1.0) -> Subnet:
    """With scores drawn at random, and batch norms that have seen images."""
    chance = torch.Generator().manual_seed(seed)
    for gates in net.gates:
        for tensor in gates.scored().values():
            tensor.copy_(spread * torch.randn(tensor.shape, generator=chance))
    for module in net.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.copy_(1 + 0.3 * torch.randn(module.weight.shape, generator=chance))
            module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=chance))
    net.train()
    for _ in range(3):
        net(images(16, net.skeleton.input[1], seed))
    return net
