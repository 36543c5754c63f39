"""A faster executor of a supernet's cells: the same weights and the same function, in fewer and cheaper kernels.

The plain ``SupernetCell.forward`` is the truth; this computes the same but for rounding. What several ops of a source
share is made once (its ReLU, its pools). A gate is folded into the last batch norm of its op, which has no affine
parameters of its own, and a node is summed in one go: normalised and weighted maps are never written. ``ways_for``
says which kernels a device gets. There are no gradients of gradients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_core.compiled import Step, chained, fits
from nas_core.ops import DilatedConv, FactorizedReduce, ReluConvNorm, SeparableConv, SplitConv
from nas_core.supernet.kernels import Chains, Halves, Mix, Repeat, Sum, from_phases, to_phases
from nas_core.supernet.network import Supernet, SupernetCell


@dataclass(frozen=True, slots=True)
class Ways:
    """Which kernels are taken where there are several ways to the same; none changes a result but for rounding."""

    windows: bool = True
    """The weight gradient of a wide depthwise convolution from windows that are three columns wide."""
    phases: bool = True
    """A depthwise convolution of dilation 2 as one without, on the four maps of every second row and column."""
    pools: bool = True
    """Average pools as depthwise convolutions."""
    compiled: bool = True
    """Depthwise and pointwise convolutions by kernels of our own, where there is a C compiler; ``windows`` and
    ``phases`` are for those that these do not fit."""


ELSEWHERE = Ways(windows=False, phases=False, pools=False, compiled=False)


def ways_for(device: torch.device) -> Ways:
    """On a CPU those that oneDNN is faster with (docs/decisions/0029); elsewhere nothing was measured: torch's own."""
    return Ways() if device.type == "cpu" else ELSEWHERE


def fuse(supernet: Supernet, ways: Ways | None = None) -> Supernet:
    """The same supernet, whose cells the fused executor runs from now on. ``ways``: by default those of its device."""
    for cell in supernet.cells:
        if isinstance(cell, SupernetCell):
            cell.executor = Fused(ways)
    return supernet


def fuse_where_faster(supernet: Supernet) -> Supernet:
    """``fuse`` on a CPU; elsewhere nothing was measured, and it stays the plain supernet."""
    on_cpu = next(supernet.parameters()).device.type == "cpu"
    return fuse(supernet) if on_cpu else supernet


@dataclass(frozen=True, slots=True)
class Fused:
    """Runs a cell of the plain supernet."""

    ways: Ways | None = None

    def __call__(
        self, cell: SupernetCell, before: Sequence[Tensor], gates: Tensor | None, active: NDArray[np.bool_] | None
    ) -> Tensor:  # inputs, (edges, ops), (edges, ops) -> (N, C', H', W')
        ways = self.ways or ways_for(before[0].device)
        states = [_prepared(pre, x) for pre, x in zip(cell.pre, before, strict=True)]
        places = {node: _places(cell, node, active) for node in cell.rows}
        terms: dict[int, list[Tensor]] = {node: [] for node in places}
        once: dict[int, list[tuple[_Feature, _Place]]] = {node: [] for node in places}
        dropped: dict[str, Tensor] = {}
        done = 0
        for node, here in places.items():
            for source in range(done, node):  # to all nodes behind
                targets = {
                    target: some
                    for target, wanted in places.items()
                    if (some := [place for place in wanted if place.source == source and not place.dropped])
                }
                uses = Counter(place.name for wanted in targets.values() for place in wanted)
                ops = {place.name: cell.ops[place.key] for wanted in targets.values() for place in wanted}
                features = _features(ops, states[source], ways)
                several = {name: feature for name, feature in features.items() if feature.eps is None or uses[name] > 1}
                for target, term in _mixed(several, targets, gates).items():
                    terms[target].append(term)
                for target, wanted in targets.items():
                    once[target] += [(features[place.name], place) for place in wanted if place.name not in several]
            done = node
            for place in here:
                if place.dropped:  # in the order of the plain cell: masks are drawn
                    if place.key not in dropped:
                        dropped[place.key] = cell._feature(cell.ops[place.key], states[place.source])
                    term = dropped[place.key]
                    terms[node].append(term if gates is None else term * gates.flatten()[place.gate])
            state = _node(terms[node], once[node], gates)
            states.append(states[0].new_zeros((len(states[0]), *cell._empty)) if state is None else state)
        return states[-1] if cell.concat is None else torch.cat([states[node] for node in cell.concat], dim=1)


class _Place(NamedTuple):
    """An op that a node takes."""

    source: int
    key: str
    """In the cell's ``ops``."""
    name: str
    """Of the feature: what has no weights is the same for all targets of a source."""
    gate: int
    """Of the flattened gates."""
    dropped: bool
    """Whether it is an identity with dropout."""


def _places(cell: SupernetCell, node: int, active: NDArray[np.bool_] | None) -> list[_Place]:
    """What a node sums, in the order of the plain cell."""
    found = []
    for row in cell.rows[node]:
        for column, op_name in enumerate(cell.names):
            if op_name == "none" or (active is not None and not active[row, column]):
                continue
            key, source, gate = cell._key(row, column), cell.edges[row][1], row * len(cell.names) + column
            op = cell.ops[key]
            name = f"{source}_{column}" if next(op.parameters(), None) is None else key
            found.append(_Place(source, key, name, gate, cell.skip_dropout > 0 and isinstance(op, nn.Identity)))
    return found


class _Feature(NamedTuple):
    """An op's output, or what its last batch norm takes."""

    map: Tensor
    eps: float | None = None
    """Of the batch norm that is still to come."""
    phased: bool = False
    """Whether the map lies as ``to_phases`` gives it."""


def _mixed(
    features: Mapping[str, _Feature], targets: Mapping[int, Sequence[_Place]], gates: Tensor | None
) -> dict[int, Tensor]:
    """What a source gives to each target, of features that several of them share or that have no batch norm."""
    chosen = {
        node: {place.name: place.gate for place in wanted if place.name in features} for node, wanted in targets.items()
    }
    chosen = {node: names for node, names in chosen.items() if names}
    if gates is None and len(features) == 1:
        (only,) = features.values()
        if only.eps is None:
            return dict.fromkeys(chosen, only.map)
    if not chosen:
        return {}
    some = sorted(features, key=lambda name: features[name].eps is None)
    none = -1  # of a gate that is always 0
    index = [[names.get(name, none) for name in some] for names in chosen.values()]
    maps = [from_phases(features[name].map) if features[name].phased else features[name].map for name in some]
    if gates is None:
        weights = maps[0].new_tensor([[float(place != none) for place in row] for row in index])
    else:
        weights = torch.cat([gates.flatten(), gates.new_zeros(1)])[torch.tensor(index, device=gates.device)]
    epsilons = tuple(eps for name in some if (eps := features[name].eps) is not None)
    return dict(zip(chosen, Mix.apply(weights, epsilons, *maps), strict=True))  # type: ignore[no-untyped-call]


def _node(
    terms: Sequence[Tensor], once: Sequence[tuple[_Feature, _Place]], gates: Tensor | None
) -> Tensor | None:  # -> (N, C, H, W)
    """The sum of ``terms`` and of features that are still to be batch-normed and weighted."""
    total: Tensor | None = None
    for phased in (False, True):
        chosen = [(feature, place.gate) for feature, place in once if feature.phased == phased]
        others = [] if phased else terms
        if not chosen and not others:
            continue
        if not chosen and len(others) == 1:
            part = others[0]
        else:
            index = [gate for _, gate in chosen]
            weights = (
                None if gates is None else gates.flatten()[torch.tensor(index, device=gates.device, dtype=torch.long)]
            )
            epsilons = tuple(feature.eps for feature, _ in chosen)
            maps = [feature.map for feature, _ in chosen]
            part = Sum.apply(weights, epsilons, *maps, *others)  # type: ignore[no-untyped-call]
        part = from_phases(part) if phased else part
        total = part if total is None else total + part
    return total


class _Source:
    """A state and what its ops take of it, each made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._repeated: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def rectified(self) -> Tensor:
        return F.relu(self.x)

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> twice (N, C, ceil(H / 2), ceil(W / 2))
        """Of the rectified map every second row and column, from the first and from the second."""
        even, odd = Halves.apply(self.x)  # type: ignore[no-untyped-call]
        return even, odd

    @cached_property
    def phases(self) -> Tensor:
        return to_phases(self.rectified)

    def repeated(self, x: Tensor, times: int) -> Tensor:
        """One of the others, for as many ops side by side."""
        if times == 1:
            return x
        key = id(x), times
        if key not in self._repeated:
            self._repeated[key] = Repeat.apply(x, times)  # type: ignore[no-untyped-call]
        return self._repeated[key]


def _reduced(op: FactorizedReduce, source: _Source) -> Tensor:  # -> (N, C', ceil(H / 2), ceil(W / 2))
    """A factorized reduce up to its batch norm."""
    convolutions = op.straight, op.shifted
    return torch.cat(
        [F.conv2d(x, conv.weight, groups=conv.groups) for conv, x in zip(convolutions, source.halves, strict=True)],
        dim=1,
    )


def _prepared(pre: nn.Module, x: Tensor) -> Tensor:
    """An input of a cell, brought to its channels."""
    match pre:
        case FactorizedReduce():
            out: Tensor = pre.norm(_reduced(pre, _Source(x)))
        case ReluConvNorm():
            out = nn.Sequential(*list(pre)[1:])(_rectified(x))
        case _:
            out = pre(x)
    return out


def _rectified(x: Tensor) -> Tensor:
    """ReLU of a cell's output, which two cells take: made once and kept with the map, which it does not hold."""
    kept = x.__dict__
    if "rectified" not in kept:
        kept["rectified"] = F.relu(x)
    found: Tensor = kept["rectified"]
    return found


def _features(ops: Mapping[str, nn.Module], x: Tensor, ways: Ways) -> dict[str, _Feature]:
    """Of one source, all that stand on it."""
    source = _Source(x)
    found: dict[str, _Feature] = {}
    chains: dict[tuple[Any, ...], list[str]] = {}
    for name, op in ops.items():
        match op:
            case nn.Identity():
                found[name] = _Feature(x)
            case SeparableConv() | DilatedConv():
                chains.setdefault((type(op), op[1].kernel_size, op[1].stride), []).append(name)
            case FactorizedReduce():
                found[name] = _Feature(_reduced(op, source), op.norm.eps)
            case ReluConvNorm() | SplitConv():
                found[name] = _Feature(nn.Sequential(*list(op)[1:-1])(source.rectified), _eps(op))
            case nn.Sequential() if len(op) == 2 and isinstance(op[1], nn.BatchNorm2d):
                found[name] = _Feature(_pool(op[0], x, ways), _eps(op))
            case _:
                found[name] = _Feature(_pool(op, x, ways))
    for names in chains.values():
        found |= zip(names, _chains([ops[name] for name in names], source, ways), strict=True)
    return found


def _eps(op: nn.Module) -> float:
    """Of the batch norm that an op ends in."""
    norm = list(op.children())[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    return norm.eps


def _pool(pool: nn.Module, x: Tensor, ways: Ways) -> Tensor:
    if not ways.pools or not isinstance(pool, nn.AvgPool2d) or pool.kernel_size != 3:
        out: Tensor = pool(x)
        return out
    ones = x.new_ones((x.shape[1], 1, 3, 3))
    there = F.conv2d(x.new_ones((1, 1, *x.shape[2:])), ones[:1], None, pool.stride, 1)  # pixels under the window
    return F.conv2d(x, ones, None, pool.stride, 1, groups=len(ones)) * there.reciprocal()


def _chains(ops: Sequence[nn.Module], source: _Source, ways: Ways) -> list[_Feature]:
    """Separable or dilated convolutions of one kind on one source, up to their last batch norm."""
    layers = [[layer for layer in op.children() if isinstance(layer, nn.Conv2d)] for op in ops]
    steps = [Step.of(layer) for layer in layers[0][::2]]
    weights = [layer.weight for some in layers for layer in some]
    eps = _eps(ops[0])
    x, (height, width) = source.rectified, source.x.shape[2:]
    phased = False
    if ways.compiled and fits(x, weights):
        return [_Feature(y, eps) for y in chained(x, steps, eps, weights)]
    if ways.phases and steps[0].dilation == 2:
        phased = steps[0].stride == 1
        x = source.phases if phased else source.halves[0]  # with a stride nothing but even pixels is under the kernel
        steps = [Step(1, steps[0].padding // 2, 1)]
    maps = Chains.apply(source.repeated(x, len(ops)), tuple(steps), eps, ways.windows, *weights)  # type: ignore[no-untyped-call]
    if phased and (height % 2 or width % 2):  # there is more than the map: the batch norm may not see it
        return [_Feature(from_phases(y)[:, :, :height, :width], eps) for y in maps]
    return [_Feature(y, eps, phased) for y in maps]
