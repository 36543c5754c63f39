"""How much of a sub-net its masks leave, at each level."""

from __future__ import annotations

from collections.abc import Mapping

from nas_core.granularity.masked import Subnet
from nas_core.granularity.slots import family, is_convolution, name_of, slot_of


def retention(net: Subnet, base: Mapping[str, int]) -> dict[str, float]:
    """Shares, 0 to 1: ``ops_kept`` of all slots; of the convolutions that are alive, ``filters_kept`` of those of full
    width (``base``, by cell type) and ``weights_kept`` of those of the kernels as they are.
    """
    slots = sum(gates.alive.size for gates in net.gates)
    filters = every = kept = weights = 0
    for position, gates in enumerate(net.gates):
        full = base[net.skeleton.cells[position]]
        for place, edge in enumerate(net.cell(position).edges):
            slot = slot_of(edge)
            if not is_convolution(edge.op) or not gates.alive[gates.table.place(slot)]:
                continue
            ends = ("middle", "output") if family(edge.op) == "sep" else ("output",)
            if net.levels.filters:
                filters += sum(int(gates.filters[f"{name_of(slot)}.{end}"].sum()) for end in ends)
                every += full * len(ends)
            if net.levels.weights:
                masks = [net.kept[name] for name in net.kernels(position, place)]
                kept += sum(int(mask.sum()) for mask in masks)
                weights += sum(mask.numel() for mask in masks)
    return {
        "ops_kept": net.ops / slots,
        "filters_kept": filters / every if every else 1.0,
        "weights_kept": kept / weights if weights else 1.0,
    }
