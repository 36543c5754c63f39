"""The width rule of MGAS (arXiv 2310.15074, by its code): how many channels of a cell stay when filters are physically
removed, and which.

How many is published: one width for all of a cell, so that skips and pools fit, never below half of the stage's. Which
is ours: the code lets every convolution keep channels of its own and adds what no longer belongs together; here a cell
keeps one set, those that carry most over all its convolutions. What is masked everywhere goes without any change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import FEWEST_CHANNELS, CellType, even
from nas_core.granularity.gates import CellGates
from nas_core.granularity.masked import Subnet
from nas_core.granularity.slots import Slot, family, is_convolution, name_of, slot_of
from nas_core.network import Cell
from nas_core.ops import FactorizedReduce

Places = NDArray[np.int64]
"""Channels that stay, ascending."""


@dataclass(frozen=True)
class Channels:
    """Which channels of a cell stay."""

    cell: Places
    middle: Mapping[Slot, Places]
    """Of each separable convolution that is alive, between its halves."""


def common_width(surviving: list[int], base: int, now: int) -> int:
    """Channels of a cell: the mean of how many survive in its two inputs and its nodes (even), their maximum where the
    mean lies below half of ``base``, that half where both do; never more than ``now``.
    """
    counts = [even(count) for count in surviving]
    half, mean, most = base / 2, sum(counts) / len(counts), max(counts)
    wanted = even(mean) if mean >= half else most if most >= half else even(half)
    return min(now, max(FEWEST_CHANNELS, wanted))


def surviving(cell: CellType, masks: Mapping[str, NDArray[np.bool_]]) -> list[int]:
    """Of the inputs and of each node, as many as its widest convolution has; a node without one as many as the one
    before it."""
    counts = [int(masks[f"pre.{place}"].sum()) for place in range(cell.inputs)]
    for node in range(cell.inputs, cell.inputs + cell.nodes):
        found = [
            int(masks[f"{name_of(slot_of(edge))}.output"].sum()) for edge in cell.into(node) if is_convolution(edge.op)
        ]
        counts.append(max(found) if found else counts[-1])
    return counts


def _masks(gates: CellGates) -> dict[str, NDArray[np.bool_]]:
    return {name: mask.cpu().numpy() for name, mask in gates.filters.items()}


def widths(net: Subnet, base: Mapping[str, int], whole: Collection[int] = ()) -> dict[str, CellType]:
    """The cells of what is alive at the widths that they would have; those at positions ``whole`` keep theirs."""
    return {
        net.skeleton.cells[position]: _width(net, position, base[net.skeleton.cells[position]], position in whole)
        for position in range(len(net.sites))
    }


def _width(net: Subnet, position: int, base: int, whole: bool) -> CellType:
    cell, now = net.alive_edges(position), net.sites[position].channels
    if not net.levels.filters:
        return cell
    masks = _masks(net.gates[position])
    width = now if whole else common_width(surviving(cell, masks), base, now)
    edges = []
    for edge in cell.edges:
        if family(edge.op) == "sep":
            between = edge.width or now
            left = int(masks[f"{name_of(slot_of(edge))}.middle"].sum())
            middle = min(between, max(even(left), width))
            edges.append(replace(edge, width=None if middle == width else middle))
        else:
            edges.append(edge)
    return replace(cell, edges=tuple(edges), width=width)


def channels(net: Subnet, types: Mapping[str, CellType]) -> list[Channels]:
    """Which channels of what is alive stay where cells get the widths of ``types``, which may hold regrown ops, too."""
    return [_channels(net, position, types[net.skeleton.cells[position]]) for position in range(len(net.sites))]


def _channels(net: Subnet, position: int, cell: CellType) -> Channels:
    gates, now = net.gates[position], net.sites[position].channels
    alive = {slot_of(edge) for edge in net.alive_edges(position).edges}
    sep = [edge for edge in cell.edges if family(edge.op) == "sep" and slot_of(edge) in alive]
    between = {slot_of(edge): edge.width or now for edge in net.cell(position).edges}
    width = cell.width or now
    if not net.levels.filters:
        return Channels(np.arange(now), {slot_of(edge): np.arange(between[slot_of(edge)]) for edge in sep})
    masks = _masks(gates)
    scores = {name: beta.detach().sigmoid().cpu().numpy() for name, beta in gates.beta.items()}
    there = [
        name
        for name, belongs in gates.names.items()
        if not name.endswith(".middle") and (isinstance(belongs, int) or belongs in alive)
    ]
    carried = sum((masks[name] * scores[name] for name in there), start=np.zeros(now))
    by_score = sum((scores[name] for name in there), start=np.zeros(now))
    order = np.lexsort((np.arange(now), -by_score, -carried))
    kept = order[:width]
    if width < now and _strides(net, position, cell):  # each half of a factorized reduce keeps its own
        half = now // 2
        kept = np.concatenate([order[order < half][: width // 2], order[order >= half][: width - width // 2]])
    middle = {}
    for edge in sep:
        slot = slot_of(edge)
        name = f"{name_of(slot)}.middle"
        order = np.lexsort((np.arange(len(masks[name])), -scores[name], ~masks[name]))
        middle[slot] = np.sort(order[: edge.width or width])
    return Channels(np.sort(kept), middle)


def _strides(net: Subnet, position: int, cell: CellType) -> bool:
    """Whether anything of the cell makes its channels in two halves."""
    module = net.network.cells[position]
    assert isinstance(module, Cell)
    skips = cell.reduction and any(family(edge.op) == "skip" and edge.source < cell.inputs for edge in cell.edges)
    return skips or any(isinstance(prepare, FactorizedReduce) for prepare in module.pre)
