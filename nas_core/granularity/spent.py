"""What a sub-net of a search by MGAS costs by its committed masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nas_core.architecture import CellType, Skeleton
from nas_core.granularity.layout import base_widths
from nas_core.granularity.masked import Subnet
from nas_core.granularity.measure import Filters, Measure, Published, total
from nas_core.granularity.slots import Slot, family, name_of, slot_of
from nas_core.granularity.widths import widths


def cost_of(measure: Measure, net: Subnet, skeleton: Skeleton, whole: bool, fixed: Sequence[int]) -> float:
    """Of a sub-net by its committed masks: as it is when filters are physically removed, but for the paper's own
    measure of a part of the network (not ``whole``), which counts what masks leave.

    ``skeleton``: the stack of the net's cells with the channels, images and classes to count for; ``fixed``: positions
    of cells that keep their width.
    """
    base = base_widths(net.types, net.skeleton)
    if whole or not isinstance(measure, Published):
        return total(measure, _derived(widths(net, base, fixed)), skeleton, whole)
    now = {net.skeleton.cells[position]: net.alive_edges(position) for position in range(len(net.sites))}
    return total(measure, now, skeleton, whole, filters_left(net))


def _derived(types: Mapping[str, CellType]) -> dict[str, CellType]:
    return {name: replace(cell, pool_norm=True) for name, cell in types.items()}


def filters_left(net: Subnet) -> dict[tuple[str, Slot], Filters]:
    """What the committed masks leave of convolutions that are alive."""
    found = {}
    for position, gates in enumerate(net.gates) if net.levels.filters else ():
        for edge in net.alive_edges(position).edges:
            slot, now = slot_of(edge), net.sites[position].channels
            name, middle = name_of(slot), edge.width or now
            if family(edge.op) in ("sep", "dil"):
                between = int(gates.filters[f"{name}.middle"].sum()) if family(edge.op) == "sep" else middle
                left = int(gates.filters[f"{name}.output"].sum())
                found[net.skeleton.cells[position], slot] = Filters(between, middle, left)
    return found
