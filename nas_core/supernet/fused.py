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
from torch.autograd.function import once_differentiable

from nas_core.ops import DilatedConv, FactorizedReduce, ReluConvNorm, SeparableConv, SplitConv
from nas_core.supernet.network import Supernet, SupernetCell

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Ways:
    """Which kernels are taken where there are several ways to the same; none changes a result but for rounding."""

    folded: bool = True
    """Last batch norm, gate and sum of a node as one."""
    windows: bool = True
    """The weight gradient of a wide depthwise convolution from windows that are three columns wide."""
    phases: bool = True
    """A depthwise convolution of dilation 2 as one without, on the four maps of every second row and column."""
    pools: bool = True
    """Average pools as depthwise convolutions."""


ELSEWHERE = Ways(windows=False, phases=False, pools=False)


def ways_for(device: torch.device) -> Ways:
    """On a CPU those that oneDNN is faster with (docs/decisions/0029); elsewhere nothing was measured: torch's own."""
    return Ways() if device.type == "cpu" else ELSEWHERE


def fuse(supernet: Supernet, ways: Ways | None = None) -> Supernet:
    """The same supernet, whose cells the fused executor runs from now on. ``ways``: by default those of its device."""
    for cell in supernet.cells:
        if isinstance(cell, SupernetCell):
            cell.executor = Fused(ways)
    return supernet


@dataclass(frozen=True, slots=True)
class Fused:
    """Runs a cell of the plain supernet."""

    ways: Ways | None = None

    def __call__(
        self, cell: SupernetCell, before: Sequence[Tensor], gates: Tensor | None, active: NDArray[np.bool_] | None
    ) -> Tensor:  # inputs, (edges, ops), (edges, ops) -> (N, C', H', W')
        ways = self.ways or ways_for(before[0].device)
        states = [pre(x) for pre, x in zip(cell.pre, before, strict=True)]
        places = {node: _places(cell, node, active) for node in cell.rows}
        uses = Counter(place.name for wanted in places.values() for place in wanted)
        ops = {place.name: (place.source, cell.ops[place.key]) for wanted in places.values() for place in wanted}
        features: dict[str, _Feature] = {}
        made = 0
        for node, wanted in places.items():
            for source in range(made, node):
                its = {name: op for name, (where, op) in ops.items() if where == source}
                for name, feature in _features(its, states[source], ways).items():
                    features[name] = feature if ways.folded and uses[name] == 1 else feature.normed()
            made = node
            for place in wanted:
                if place.name not in features:  # an identity
                    features[place.name] = _Feature(cell._feature(cell.ops[place.key], states[place.source]))
            empty = (len(states[0]), *cell._empty)
            states.append(_node([features[place.name] for place in wanted], _weights(gates, wanted), empty, states[0]))
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


def _places(cell: SupernetCell, node: int, active: NDArray[np.bool_] | None) -> list[_Place]:
    """What a node sums, in the order of the plain cell."""
    found = []
    for row in cell.rows[node]:
        for column, name in enumerate(cell.names):
            if name == "none" or (active is not None and not active[row, column]):
                continue
            key, source = cell._key(row, column), cell.edges[row][1]
            op = cell.ops[key]
            own = isinstance(op, nn.Identity) and cell.skip_dropout > 0 or next(op.parameters(), None) is not None
            found.append(_Place(source, key, key if own else f"{source}_{column}", row * len(cell.names) + column))
    return found


def _weights(gates: Tensor | None, wanted: Sequence[_Place]) -> Tensor | None:  # (edges, ops) -> (places,)
    if gates is None or not wanted:
        return None
    return gates.flatten()[torch.tensor([place.gate for place in wanted], device=gates.device)]


class _Feature(NamedTuple):
    """An op's output, or what its last batch norm takes."""

    map: Tensor
    eps: float | None = None
    """Of the batch norm that is still to come."""
    phased: bool = False
    """Whether the map lies as ``to_phases`` gives it."""

    def normed(self) -> _Feature:
        x = self.map if self.eps is None else F.batch_norm(self.map, None, None, training=True, eps=self.eps)
        return _Feature(from_phases(x) if self.phased else x)


def _node(
    terms: Sequence[_Feature], weights: Tensor | None, empty: Sequence[int], like: Tensor
) -> Tensor:  # (terms,) -> (N, C, H, W)
    """The weighted sum, batch norms that are still to come included."""
    total: Tensor | None = None
    for phased in (False, True):
        chosen = [index for index, term in enumerate(terms) if term.phased == phased]
        chosen.sort(key=lambda index: terms[index].eps is None)
        if not chosen:
            continue
        some = [terms[index] for index in chosen]
        epsilons = tuple(term.eps for term in some if term.eps is not None)
        part: Tensor
        if weights is None and len(some) == 1 and not epsilons:
            part = some[0].map
        else:
            part = _Sum.apply(None if weights is None else weights[chosen], epsilons, *(term.map for term in some))
        part = from_phases(part) if phased else part
        total = part if total is None else total + part
    return like.new_zeros(empty) if total is None else total


class _Source:
    """A state and what its ops take of it, each made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._repeated: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def rectified(self) -> Tensor:
        return F.relu(self.x)

    @cached_property
    def even(self) -> Tensor:  # (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))
        """Every second row and column, from the first."""
        return _dense(self.rectified[:, :, ::2, ::2])

    @cached_property
    def odd(self) -> Tensor:  # (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))
        """Every second row and column, from the second; the map ends in zeros if need be."""
        return _dense(_to_even(self.rectified)[:, :, 1::2, 1::2])

    @cached_property
    def phases(self) -> Tensor:
        return to_phases(self.rectified)

    def repeated(self, x: Tensor, times: int) -> Tensor:
        """One of the others, for as many ops side by side."""
        if times == 1:
            return x
        key = id(x), times
        if key not in self._repeated:
            self._repeated[key] = _Repeat.apply(x, times)
        return self._repeated[key]


def _features(ops: Mapping[str, nn.Module], x: Tensor, ways: Ways) -> dict[str, _Feature]:
    """Of one source, all that stand on it but identities."""
    source = _Source(x)
    found: dict[str, _Feature] = {}
    chains: dict[tuple[Any, ...], list[str]] = {}
    for name, op in ops.items():
        match op:
            case nn.Identity():
                continue
            case SeparableConv() | DilatedConv():
                chains.setdefault((type(op), op[1].kernel_size, op[1].stride), []).append(name)
            case FactorizedReduce():
                halves = F.conv2d(source.even, op.straight.weight), F.conv2d(source.odd, op.shifted.weight)
                found[name] = _Feature(torch.cat(halves, dim=1), op.norm.eps)
            case ReluConvNorm() | SplitConv():
                found[name] = _Feature(op[1:-1](source.rectified), op[-1].eps)
            case nn.Sequential() if len(op) == 2 and isinstance(op[1], nn.BatchNorm2d):
                found[name] = _Feature(_pool(op[0], x, ways), op[1].eps)
            case _:
                found[name] = _Feature(_pool(op, x, ways))
    for names in chains.values():
        found |= zip(names, _chains([ops[name] for name in names], source, ways), strict=True)
    return found


def _pool(pool: nn.Module, x: Tensor, ways: Ways) -> Tensor:
    if not ways.pools or not isinstance(pool, nn.AvgPool2d) or pool.kernel_size != 3:
        out: Tensor = pool(x)
        return out
    ones = x.new_ones((x.shape[1], 1, 3, 3))
    there = F.conv2d(x.new_ones((1, 1, *x.shape[2:])), ones[:1], None, pool.stride, 1)  # pixels under the window
    return F.conv2d(x, ones, None, pool.stride, 1, groups=len(ones)) * there.reciprocal()


@dataclass(frozen=True, slots=True)
class _Step:
    """A depthwise convolution; a pointwise one follows."""

    stride: int
    padding: int
    dilation: int


def _chains(ops: Sequence[nn.Module], source: _Source, ways: Ways) -> list[_Feature]:
    """Separable or dilated convolutions of one kind on one source, up to their last batch norm."""
    layers = [[layer for layer in op.children() if isinstance(layer, nn.Conv2d)] for op in ops]
    steps = [_Step(layer.stride[0], int(layer.padding[0]), layer.dilation[0]) for layer in layers[0][::2]]
    x, (height, width) = source.rectified, source.x.shape[2:]
    phased = False
    if ways.phases and steps[0].dilation == 2:
        phased = steps[0].stride == 1
        x = source.phases if phased else source.even  # with a stride nothing but even pixels is under the kernel
        steps = [_Step(1, steps[0].padding // 2, 1)]
    norm = list(ops[0].children())[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    weights = [layer.weight for some in layers for layer in some]
    maps = _Chains.apply(source.repeated(x, len(ops)), tuple(steps), norm.eps, ways.windows, *weights)
    if phased and (height % 2 or width % 2):  # there is more than the map: the batch norm may not see it
        return [_Feature(from_phases(y)[:, :, :height, :width], norm.eps) for y in maps]
    return [_Feature(y, norm.eps, phased) for y in maps]


# --- how maps lie ---------------------------------------------------------------------------------------------------


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.dot(_rows(x).flatten(), _rows(y).flatten())


def _rows(x: Tensor) -> Tensor:  # (N, C, H, W) -> (N * H * W, C)
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:  # (N * H * W, C), (N, *, H, W) -> (N, C, H, W)
    n, _, height, width = like.shape
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)


def _to_even(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x


def to_phases(x: Tensor) -> Tensor:  # (N, C, H, W) -> (4N, C, ceil(H / 2), ceil(W / 2))
    """Four maps of every second row and column, in channels-last order; odd sizes end in zeros."""
    n, c, height, width = (x := _to_even(x)).shape
    rows = x.permute(0, 2, 3, 1).reshape(n, height // 2, 2, width // 2, 2, c)
    return rows.permute(2, 4, 0, 1, 3, 5).reshape(4 * n, height // 2, width // 2, c).permute(0, 3, 1, 2)


def from_phases(x: Tensor) -> Tensor:  # (4N, C, H, W) -> (N, C, 2H, 2W)
    n, c, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(2, 2, n // 4, height, width, c)
    return rows.permute(2, 3, 0, 4, 1, 5).reshape(n // 4, 2 * height, 2 * width, c).permute(0, 3, 1, 2)


# --- kernels with gradients of their own ----------------------------------------------------------------------------


def _depthwise(x: Tensor, weight: Tensor, step: _Step) -> Tensor:
    return F.conv2d(x, weight, None, step.stride, step.padding, step.dilation, groups=len(weight))


def _backward(g: Tensor, x: Tensor, weight: Tensor, step: _Step, wanted: tuple[bool, bool]) -> Any:
    """Gradients by a depthwise convolution's input and weight, None for what is not wanted."""
    return _convolved(g, x, weight, step, (step.padding, step.padding), wanted)


def _convolved(
    g: Tensor, x: Tensor, weight: Tensor, step: _Step, padding: tuple[int, int], wanted: tuple[bool, bool]
) -> Any:
    stride, dilation, groups = [step.stride] * 2, [step.dilation] * 2, x.shape[1] // weight.shape[1]
    return aten.convolution_backward(
        g, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [*wanted, False]
    )[:2]


class _Windows:
    """A map, moved sideways as windows on it ask for; each move is made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.moved: dict[int, Tensor] = {0: x}

    def __getitem__(self, columns: int) -> Tensor:
        if columns not in self.moved:
            width = self.x.shape[3]
            by = min(abs(columns), width)  # farther there is nothing but zeros
            out, kept = torch.empty_like(self.x), slice(by, width) if columns < 0 else slice(0, width - by)
            out[..., kept] = self.x[..., : width - by] if columns < 0 else self.x[..., by:]
            out[..., slice(0, by) if columns < 0 else slice(width - by, width)] = 0.0
            self.moved[columns] = out
        return self.moved[columns]


def _weight_gradient(g: Tensor, x: _Windows, weight: Tensor, step: _Step, windows: bool) -> Tensor:
    """Of a depthwise convolution, (C, 1, k, k). oneDNN has a fast gradient for three columns, not for more."""
    size, half = weight.shape[-1], weight.shape[-1] // 2
    if not windows or half < 2 or step.dilation > 1:
        whole: Tensor = _backward(g, x.x, weight, step, (False, True))[1]
        return whole
    if step.stride == 1 and x.x.shape[2] < size:  # nor for maps that are lower than the kernel
        below = 0, 0, 0, size - x.x.shape[2]
        g, x = _dense(F.pad(g, below)), _Windows(F.pad(x.x, below))
    found = torch.empty_like(weight)
    for centre in (0, *range(2, half + 1), *range(-half, -1)):
        reach = 0 if centre else 1  # three columns in the middle, one at a time beside them
        columns = slice(half + centre - reach, half + centre + reach + 1)
        padding = step.padding, reach
        found[..., columns] = _convolved(g, x[centre], weight[..., columns], step, padding, (False, True))[1]
    return found


class _Repeat(torch.autograd.Function):
    """The same map several times, side by side in channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, times: int) -> Tensor:  # (N, C, H, W) -> (N, times * C, H, W)
        ctx.times = times
        return torch.cat([x] * times, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        rows = _rows(g)
        return _maps(rows.view(len(rows), ctx.times, -1).sum(dim=1), g), None


class _Chains(torch.autograd.Function):
    """Depthwise and pointwise convolutions, batch norm and ReLU between two such pairs, of several ops side by side."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, steps: tuple[_Step, ...], eps: float, windows: bool, *weights: Tensor
    ) -> tuple[Tensor, ...]:  # (N, ops * C, H, W), ..., by op (C, 1, k, k), (C', C, 1, 1), ... -> (N, C', H', W') by op
        depths = [torch.cat(weights[2 * index :: 2 * len(steps)]) for index in range(len(steps))]
        points = [[weight.flatten(1) for weight in weights[2 * index + 1 :: 2 * len(steps)]] for index in range(len(steps))]
        kept = [x]
        for index, step in enumerate(steps):
            if index:
                z, mean, inverse = torch.native_batch_norm(x, None, None, None, None, True, 0.0, eps)
                kept += [x, mean, inverse, F.relu_(z)]
                x = z
            between = _dense(_depthwise(x, depths[index], step))
            kept.append(between)
            rows, by_op = _rows(between).unflatten(1, (len(points[index]), -1)), points[index]
            if step is steps[-1]:
                outputs = tuple(_maps(rows[:, op] @ point.t(), between) for op, point in enumerate(by_op))
            else:
                wide = rows.new_empty((len(rows), len(by_op), len(by_op[0])))
                for op, point in enumerate(by_op):
                    torch.mm(rows[:, op], point.t(), out=wide[:, op])
                x = _maps(wide.flatten(1), between)
        ctx.save_for_backward(*weights, *kept)
        ctx.steps, ctx.eps, ctx.windows, ctx.count = steps, eps, windows, len(weights)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, weights, kept = ctx.steps, ctx.saved_tensors[: ctx.count], list(ctx.saved_tensors[ctx.count :])
        learn = any(ctx.needs_input_grad[4:])
        found: list[Tensor | None] = [None] * ctx.count
        rows = [_rows(g) for g in gradients]  # (N * H' * W', C') by op
        ops = len(rows)
        g = gradients[0]
        for index in reversed(range(len(steps))):
            between, step = kept.pop(), steps[index]
            those, wide = _rows(between).unflatten(1, (ops, -1)), torch.empty_like(between)
            into = _rows(wide).unflatten(1, (ops, -1))
            for op, some in enumerate(rows):
                place = 2 * (op * len(steps) + index) + 1
                torch.mm(some, weights[place].flatten(1), out=into[:, op])
                if learn:
                    found[place] = (some.t() @ those[:, op]).view_as(weights[place])
            x, depth = kept[-1], torch.cat(weights[2 * index :: 2 * len(steps)])
            if learn:
                found[2 * index :: 2 * len(steps)] = _weight_gradient(wide, _Windows(x), depth, step, ctx.windows).chunk(ops)
            if not index and not ctx.needs_input_grad[0]:
                return None, None, None, None, *found
            g = _backward(wide, x, depth, step, (True, False))[0]
            if index:
                y, mean, inverse, z = kept[-4:]
                del kept[-4:]
                g = aten.threshold_backward.grad_input(g, z, 0, grad_input=g)
                norm = None, None, None, mean, inverse, True, ctx.eps, [True, False, False]
                g = aten.native_batch_norm_backward(g, y, *norm)[0]
                rows = list(_rows(g).unflatten(1, (ops, -1)).unbind(1))
        return g, None, None, None, *found


class _Sum(torch.autograd.Function):
    """The weighted sum of maps, the first of which are batch-normed (statistics of the batch, not affine)."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor | None, epsilons: tuple[float, ...], *maps: Tensor
    ) -> Tensor:  # (terms,), (normed,), (N, C, H, W) each -> (N, C, H, W)
        normed, total = len(epsilons), torch.empty_like(maps[0])
        means = inverses = maps[0].new_empty(0)
        if normed:
            statistics = [aten.batch_norm_update_stats(x, None, None, 0.0) for x in maps[:normed]]
            means = torch.stack([mean for mean, _ in statistics])
            inverses = (torch.stack([variance for _, variance in statistics]) + means.new_tensor(epsilons)[:, None]).rsqrt()
            scales = inverses if weights is None else inverses * weights[:normed, None]
            total.copy_(-(means * scales).sum(dim=0)[:, None, None])
            for x, scale in zip(maps, scales, strict=False):
                total.addcmul_(x, scale[:, None, None])
        else:
            total.zero_()
        for index, x in enumerate(maps[normed:], start=normed):
            total = total.add_(x) if weights is None else total.addcmul_(x, weights[index])
        ctx.save_for_backward(weights, means, inverses, *maps)
        ctx.epsilons = epsilons
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, means, inverses, *maps = ctx.saved_tensors
        g, normed = _dense(g), len(ctx.epsilons)
        learn = ctx.needs_input_grad[0]
        found: list[Tensor | None] = []
        by_gate: list[Tensor] = []
        for index, x in enumerate(maps):
            if index < normed:
                weight = None if weights is None else weights[index].expand(x.shape[1]).contiguous()
                statistics = means[index], inverses[index], True, ctx.epsilons[index]
                gradient, by_scale, _ = aten.native_batch_norm_backward(
                    g, x, weight, None, None, *statistics, [True, learn, False]
                )
                found.append(gradient)
                by_gate += [by_scale.sum()] if learn else []
            else:
                found.append(g if weights is None else g * weights[index])
                by_gate += [_dot(g, x)] if learn else []
        return torch.stack(by_gate) if learn else None, None, *found
