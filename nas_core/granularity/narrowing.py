"""Physical removal: the sub-net of smaller, or of more, cells, with all that the old one has learnt.

Every tensor of the new network is a piece of one of the old, by its name, or fresh: weights, batch-norm statistics,
masks, betas and what the optimiser remembers go the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas_core.architecture import CellType, Edge, Skeleton
from nas_core.granularity.masked import Subnet
from nas_core.granularity.slots import family, name_of, slot_of
from nas_core.granularity.widths import Channels, Places
from nas_core.network import Network

Index = tuple[Places | None, ...]
"""What stays of each of the leading dimensions; None: all."""
NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Piece:
    """Which part of a tensor."""

    name: str
    index: Index = ()

    def of(self, tensor: Tensor) -> Tensor:
        """A copy of that part."""
        for dimension, places in enumerate(self.index):
            if places is not None and len(places) < tensor.shape[dimension]:
                tensor = tensor.index_select(dimension, torch.from_numpy(places).to(tensor.device))
        return tensor.detach().clone(memory_format=torch.preserve_format)


def pieces(
    old: Subnet, types: Mapping[str, CellType], skeleton: Skeleton, kept: Sequence[Channels], head: bool
) -> dict[str, Piece]:
    """Where each tensor of the network of ``types`` comes from, by its name there; what is not there is fresh.

    ``head``: whether the classifier goes along.
    """
    found = {name: Piece(name) for name in old.network.state_dict() if name.startswith("stem.")}
    for position in range(min(len(old.sites), len(skeleton.cells))):
        found.update(_cell(old, position, types[skeleton.cells[position]], kept))
    if head:
        last = _output(old, len(old.sites) - 1, kept)
        names = [name for name in old.network.state_dict() if name.startswith("classifier.")]
        found.update({name: Piece(name, (None, last) if name == "classifier.linear.weight" else ()) for name in names})
    return found


def _output(old: Subnet, position: int, kept: Sequence[Channels]) -> Places | None:
    """Channels of a cell's output that stay; of the stem all."""
    if position < 0:
        return None
    width = old.sites[position].channels
    return np.concatenate([place * width + kept[position].cell for place in range(len(old.cell(position).concat))])


def _norm(prefix: str, places: Places, into: str | None = None) -> Iterator[tuple[str, Piece]]:
    for name in NORM:
        yield f"{into or prefix}.{name}", Piece(f"{prefix}.{name}", (places,))
    yield f"{into or prefix}.num_batches_tracked", Piece(f"{prefix}.num_batches_tracked")


def _cell(old: Subnet, position: int, new: CellType, kept: Sequence[Channels]) -> Iterator[tuple[str, Piece]]:
    mine, width = kept[position], old.sites[position].channels
    prefix = f"cells.{position}"
    for place in range(new.inputs):
        comes = _output(old, position - new.inputs + place, kept)
        if old.sites[position].inputs[place][1] == 2:
            yield from _reduced(f"{prefix}.pre.{place}", f"{prefix}.pre.{place}", mine.cell, comes, width)
        else:
            yield f"{prefix}.pre.{place}.1.weight", Piece(f"{prefix}.pre.{place}.1.weight", (mine.cell, comes))
            yield from _norm(f"{prefix}.pre.{place}.2", mine.cell)
    alive = {slot_of(edge) for edge in old.alive_edges(position).edges}
    before = {slot_of(edge): place for place, edge in enumerate(old.cell(position).edges) if slot_of(edge) in alive}
    for place, edge in enumerate(new.edges):
        if slot_of(edge) in before:
            into, source = f"{prefix}.ops.{place}", f"{prefix}.ops.{before[slot_of(edge)]}"
            strided = new.reduction and edge.source < new.inputs
            yield from _op(edge, into, source, mine, width, strided)


def _reduced(into: str, prefix: str, rows: Places, columns: Places | None, width: int) -> Iterator[tuple[str, Piece]]:
    """A factorized reduce: its first half of channels has one kernel, its second another."""
    half = width // 2
    yield f"{into}.straight.weight", Piece(f"{prefix}.straight.weight", (rows[rows < half], columns))
    yield f"{into}.shifted.weight", Piece(f"{prefix}.shifted.weight", (rows[rows >= half] - half, columns))
    yield from _norm(f"{prefix}.norm", rows, f"{into}.norm")


def _op(edge: Edge, into: str, source: str, mine: Channels, width: int, strided: bool) -> Iterator[tuple[str, Piece]]:
    cell, middle = mine.cell, mine.middle.get(slot_of(edge))
    match family(edge.op):
        case "sep":
            assert middle is not None  # every separable convolution that was there has its channels
            kernels: dict[str, Index] = {"1": (cell,), "2": (middle, cell), "5": (middle,), "6": (cell, middle)}
            norms = {"3": middle, "7": cell}
        case "dil":
            kernels, norms = {"1": (cell,), "2": (cell, cell)}, {"3": cell}
        case "skip" if strided:
            yield from _reduced(into, source, cell, cell, width)
            return
        case _:
            return
    for place, index in kernels.items():
        yield f"{into}.{place}.weight", Piece(f"{source}.{place}.weight", index)
    for place, places in norms.items():
        yield from _norm(f"{source}.{place}", places, f"{into}.{place}")


@dataclass(frozen=True)
class Rebuilt:
    """A new sub-net, and which of its learnt tensors are pieces of learnt ones of the old."""

    net: Subnet
    carried: Sequence[tuple[Tensor, Tensor, Piece]]
    """(new, old, which piece)"""


@torch.no_grad()
def rebuilt(
    old: Subnet,
    types: Mapping[str, CellType],
    skeleton: Skeleton,
    kept: Sequence[Channels],
    seed: int,
    stage: int | None,
) -> Rebuilt:
    """The sub-net of ``types`` on ``skeleton``; cells and ops that ``old`` has not are fresh, by ``seed`` alone."""
    device = old.gates[0].alpha.device
    net = Subnet(types, skeleton, old.tables, old.levels, seed, device, stage)
    carried: list[tuple[Tensor, Tensor, Piece]] = []
    found = pieces(old, net.types, skeleton, kept, head=stage == old.stage)
    before, parameters = old.network.state_dict(), dict(old.network.named_parameters())
    fresh = dict(net.network.named_parameters())
    for name, tensor in net.network.state_dict().items():
        if name in found:
            tensor.copy_(found[name].of(before[found[name].name]))
            if name in fresh:
                carried.append((fresh[name], parameters[found[name].name], found[name]))
    for name, mask in net.kept.items():
        if name in found:
            mask.copy_(found[name].of(old.kept[found[name].name]))
    for position, gates in enumerate(net.gates[: len(old.gates)]):
        earlier, mine = old.gates[position], kept[position]
        alive = {slot_of(edge) for edge in old.alive_edges(position).edges}
        for name, tensor in gates.every().items():
            piece = Piece(name)
            if name.startswith("beta."):
                belongs = gates.names[name.removeprefix("beta.")]
                if not isinstance(belongs, int) and belongs not in alive:
                    continue  # of an op that has just been regrown
                middle = not isinstance(belongs, int) and name.endswith(".middle")
                piece = Piece(name, (mine.middle[belongs] if middle else mine.cell,))  # type: ignore[index]
            tensor.copy_(piece.of(earlier.every()[name]))
            carried.append((tensor, earlier.every()[name], piece))
    return Rebuilt(net, carried)


# --- what is handed on ------------------------------------------------------------------------------------------------


@torch.no_grad()
def inherited(net: Subnet, architecture_network: Network) -> dict[str, Tensor]:
    """Weights of the derived network (built of the same cells with a norm behind pools), gates folded in where a batch
    norm can take them: all but those of skips that do nothing. State by name, on the device of ``net``.

    The net's filters are those of the network: after physical removal. In evaluation mode a pool's norm scales by the
    pool's gate and does nothing else.
    """
    device = net.gates[0].alpha.device
    state = {name: tensor.detach().clone().to(device) for name, tensor in architecture_network.state_dict().items()}
    own = net.network.state_dict()
    for name in state:
        if name in own:
            state[name] = (own[name] * net.kept[name] if name in net.kept else own[name]).detach().clone()
    for position, gates in enumerate(net.gates):
        cell, prefix = net.cell(position), f"cells.{position}"
        for place in range(cell.inputs):
            strided = net.sites[position].inputs[place][1] == 2
            _fold(state, f"{prefix}.pre.{place}.{'norm' if strided else '2'}", _gate(net, position, f"pre.{place}"))
        for place, edge in enumerate(cell.edges):
            slot = slot_of(edge)
            gate = gates.alpha[gates.table.place(slot)].sigmoid()
            strided = cell.reduction and edge.source < cell.inputs
            ends, name = f"{prefix}.ops.{place}", name_of(slot)
            match family(edge.op):
                case "sep":
                    _fold(state, f"{ends}.3", _gate(net, position, f"{name}.middle"))
                    _fold(state, f"{ends}.7", gate * _gate(net, position, f"{name}.output"))
                case "dil":
                    _fold(state, f"{ends}.3", gate * _gate(net, position, f"{name}.output"))
                case "skip" if strided:
                    _fold(state, f"{ends}.norm", gate * _gate(net, position, f"{name}.output"))
                case "avg" | "max":
                    norm = architecture_network.get_submodule(f"{ends}.1")
                    assert isinstance(norm, torch.nn.BatchNorm2d)
                    state[f"{ends}.1.running_var"].fill_(1 - norm.eps)
                    _fold(state, f"{ends}.1", gate)
    return state


def _gate(net: Subnet, position: int, filters: str) -> Tensor:
    """Factor of a set of filters; 1 where they are not searched."""
    gates = net.gates[position]
    if not net.levels.filters:
        return torch.ones((), device=gates.alpha.device)
    return gates.beta[filters].sigmoid() * gates.filters[filters]


def _fold(state: dict[str, Tensor], norm: str, factor: Tensor) -> None:
    state[f"{norm}.weight"] *= factor
    state[f"{norm}.bias"] *= factor
