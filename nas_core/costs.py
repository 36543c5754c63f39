"""Params and multiply-adds of architectures, counted from layer descriptions alone (no torch).

Both resources are additive: a constant of the skeleton plus one entry per (position, edge, op), so a table of them is
exact for a discrete network and linear in gates. Layer definitions: DARTS (arXiv 1806.09055), section 3.1.1 and the
tables of its evaluation network; batch norm is affine, the auxiliary head is not counted.

Two counters of multiply-adds: ``macs`` counts convolutions and linear layers; ``macs_counter_b`` adds 2 per batch-norm
output element, 1 per ReLU input element and 1 per pool input element (the behaviour of the ptflops counter, which
published ImageNet tables used).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import Architecture, CellType, Edge, Skeleton
from nas_core.errors import InvalidGenotypeError, UnknownNameError

Resource = Literal["params", "macs"]
RESOURCES: tuple[Resource, ...] = ("params", "macs")


@dataclass(frozen=True, slots=True)
class Cost:
    """Resources of a network or of a part of it."""

    params: int = 0
    macs: int = 0
    macs_counter_b: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs, self.macs_counter_b + other.macs_counter_b)


@dataclass(frozen=True, slots=True)
class Layer:
    """One primitive layer, enough of it to be counted."""

    kind: Literal["conv", "bn", "relu", "pool"]
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1


def conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1, groups: int = 1
) -> Layer:
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    stride = (stride, stride) if isinstance(stride, int) else stride
    return Layer("conv", inputs, outputs, kernel, stride, groups)


def _depthwise(channels: int, kernel: int, stride: int) -> Layer:
    return Layer("conv", channels, channels, (kernel, kernel), (stride, stride), groups=channels)


def _relu(channels: int) -> Layer:
    return Layer("relu", channels, channels)


def _bn(channels: int) -> Layer:
    return Layer("bn", channels, channels)


def groups_for(most: int, *widths: int) -> int:
    """The most groups, ``most`` (a power of 2) halved as often as it takes, that all widths can be cut into with two
    channels or more in each: a group of one would do nothing before a batch norm.
    """
    while most > 1 and any(width % most or width < 2 * most for width in widths):
        most //= 2
    return most


def factorized_reduce(inputs: int, outputs: int, groups: int = 1) -> tuple[Layer, ...]:
    """Two shifted 1x1 convolutions of stride 2, half of the outputs each: counted as one."""
    groups = groups_for(groups, inputs, outputs // 2, outputs - outputs // 2)
    return _relu(inputs), conv(inputs, outputs, 1, 2, groups), _bn(outputs)


def preprocess(inputs: int, outputs: int, stride: int) -> tuple[Layer, ...]:
    """How a cell brings an input to its channels: ReLU, 1x1 convolution, BN; a factorized reduce at stride 2."""
    return factorized_reduce(inputs, outputs) if stride == 2 else _plain_conv(1)(inputs, outputs, stride, None, False)


OpLayers = Callable[[int, int, int, int | None, bool], tuple[Layer, ...]]
"""(channels in, channels out, stride, middle width, batch norm behind pools) -> layers."""


def _sep(kernel: int) -> OpLayers:
    def layers(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
        between = inputs if middle is None else middle
        first = (_relu(inputs), _depthwise(inputs, kernel, stride), conv(inputs, between, 1), _bn(between))
        return (*first, _relu(between), _depthwise(between, kernel, 1), conv(between, outputs, 1), _bn(outputs))

    return layers


def _dil(kernel: int) -> OpLayers:
    def layers(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
        return _relu(inputs), _depthwise(inputs, kernel, stride), conv(inputs, outputs, 1), _bn(outputs)

    return layers


def _plain_conv(kernel: int) -> OpLayers:
    def layers(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
        return _relu(inputs), conv(inputs, outputs, kernel, stride), _bn(outputs)

    return layers


def _group(groups: int) -> OpLayers:
    def layers(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
        if stride == 2:
            return factorized_reduce(inputs, outputs, groups)
        return _relu(inputs), conv(inputs, outputs, 1, stride, groups_for(groups, inputs, outputs)), _bn(outputs)

    return layers


def _depthwise_group(kernel: int, groups: int) -> OpLayers:
    def layers(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
        point = conv(inputs, outputs, 1, 1, groups_for(groups, inputs, outputs))
        return _relu(inputs), _depthwise(inputs, kernel, stride), point, _bn(outputs)

    return layers


def _split_conv(kernel: int) -> OpLayers:
    def layers(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
        wide = conv(inputs, outputs, (1, kernel), (1, stride))
        return _relu(inputs), wide, conv(outputs, outputs, (kernel, 1), (stride, 1)), _bn(outputs)

    return layers


def _pool(kernel: int) -> OpLayers:
    def layers(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
        pool = Layer("pool", inputs, inputs, (kernel, kernel), (stride, stride))
        return (pool, _bn(inputs)) if pool_norm else (pool,)

    return layers


def _skip(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
    return factorized_reduce(inputs, outputs) if stride == 2 else ()


def _none(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
    return ()


def _pool_conv(inputs: int, outputs: int, stride: int, middle: int | None, pool_norm: bool) -> tuple[Layer, ...]:
    point = conv(inputs, outputs, 1)
    return (point,) if stride == 1 else (Layer("pool", inputs, inputs, (stride, stride), (stride, stride)), point)


OPS: Mapping[str, OpLayers] = {
    "none": _none,
    "skip_connect": _skip,
    **{f"max_pool_{k}x{k}": _pool(k) for k in (3, 5, 7)},
    "avg_pool_3x3": _pool(3),
    **{f"sep_conv_{k}x{k}": _sep(k) for k in (3, 5, 7)},
    **{f"dil_conv_{k}x{k}": _dil(k) for k in (3, 5)},
    **{f"conv_{k}x{k}": _plain_conv(k) for k in (1, 3)},
    **{f"conv_{k}x1_1x{k}": _split_conv(k) for k in (3, 7)},
    "pool_conv_1x1": _pool_conv,
    **{f"conv_1x1_g{groups}": _group(groups) for groups in (2, 4, 8)},
    "dw_conv_3x3_g4": _depthwise_group(3, 4),
}
"""Every op with a known cost; an op that is not here cannot be counted."""

FAMILIES: Mapping[str, tuple[str, int]] = {
    "none": ("none", 0),
    "skip_connect": ("skip", 0),
    "avg_pool_3x3": ("avg", 3),
    **{f"max_pool_{k}x{k}": ("max", k) for k in (3, 5, 7)},
    **{f"sep_conv_{k}x{k}": ("sep", k) for k in (3, 5, 7)},
    **{f"dil_conv_{k}x{k}": ("dil", k) for k in (3, 5)},
    **{f"conv_{k}x{k}": ("conv", k) for k in (1, 3)},
    **{f"conv_{k}x1_1x{k}": ("split", k) for k in (3, 7)},
    "pool_conv_1x1": ("poolconv", 1),
    **{f"conv_1x1_g{groups}": ("group", groups) for groups in (2, 4, 8)},
    "dw_conv_3x3_g4": ("dwgroup", 4),
}
"""Op name -> (family, kernel; of convolutions in groups, how many)."""

KEEP_CHANNELS = frozenset({"none", "skip_connect", "avg_pool_3x3", *(f"max_pool_{k}x{k}" for k in (3, 5, 7))})
"""Ops that give as many channels as they take (``skip_connect`` at stride 1 alone)."""


def check_channels(op: str, inputs: int, outputs: int, stride: int) -> None:
    """Raises InvalidGenotypeError for an op that cannot go between nodes of these widths."""
    if inputs != outputs and op in KEEP_CHANNELS and (op != "skip_connect" or stride == 1):
        raise InvalidGenotypeError(
            f"op '{op}' gives as many channels as it takes, but stands between nodes of {inputs} and {outputs}; "
            "use a convolution, or bring the cell's input to its channels ('pre': conv_1x1)"
        )


def op_layers(
    edge: Edge, channels: int, stride: int, pool_norm: bool = False, outputs: int | None = None
) -> tuple[Layer, ...]:
    """Layers of an op from a node of ``channels`` to one of ``outputs`` (default: as many).

    Raises UnknownNameError for an op without a known cost, InvalidGenotypeError for widths that it cannot join.
    """
    if edge.op not in OPS:
        raise UnknownNameError("op", edge.op, OPS)
    outputs = channels if outputs is None else outputs
    check_channels(edge.op, channels, outputs, stride)
    return OPS[edge.op](channels, outputs, stride, edge.width, pool_norm)


Size = tuple[int, int]


def _after(size: Size, stride: tuple[int, int]) -> Size:
    return ceil(size[0] / stride[0]), ceil(size[1] / stride[1])


def count_layers(layers: Sequence[Layer], size: Size) -> Cost:
    """Cost of layers in a row on a map of ``size`` (height, width)."""
    params = macs = extra = 0
    for layer in layers:
        before, size = size, _after(size, layer.stride)
        if layer.kind == "conv":
            weights = layer.inputs // layer.groups * layer.outputs * layer.kernel[0] * layer.kernel[1]
            params += weights
            macs += weights * size[0] * size[1]
        elif layer.kind == "bn":
            params += 2 * layer.outputs
            extra += 2 * layer.outputs * size[0] * size[1]
        else:  # relu, pool
            extra += layer.inputs * before[0] * before[1]
    return Cost(params, macs, macs + extra)


BARE = "identity"
"""The preprocessing that is none."""
CONNECTIONS = ("conv_1x1", "conv_1x1_g2", "conv_1x1_g4", "conv_1x1_g8", "dw_conv_3x3_g4")
"""What can bring a cell's input to its channels: a 1 x 1 convolution as published, or a cheaper map."""
PREPARATIONS = (*CONNECTIONS, BARE)
PRE = ".pre"
"""Behind a cell type's name: the choice of what prepares its inputs. Row n stands for input n."""


def prepare_layers(op: str, inputs: int, outputs: int, stride: int) -> tuple[Layer, ...]:
    """What a preprocessing op that is one of CONNECTIONS does to an input."""
    return preprocess(inputs, outputs, stride) if op == "conv_1x1" else OPS[op](inputs, outputs, stride, None, False)


@dataclass(frozen=True, slots=True)
class Site:
    """A cell in its place: what comes in and at which size it works."""

    position: int
    type: str
    inputs: tuple[tuple[int, int], ...]
    """(channels, stride to bring it to the cell's map) of each input."""
    input_sizes: tuple[Size, ...]
    channels: int
    size_in: Size
    size_out: Size
    outputs: int
    """Channels of the cell's output."""

    def stride(self, cell: CellType, source: int) -> int:
        return 2 if cell.reduction and source < cell.inputs else 1

    def width(self, cell: CellType, source: int) -> int:
        """Channels of a node: an input that nothing prepares has those that it came with."""
        return self.inputs[source][0] if source < cell.inputs and cell.pre[source] == BARE else self.channels

    def size_of(self, cell: CellType, source: int) -> Size:
        return self.size_in if source < cell.inputs else self.size_out


def stem_width(skeleton: Skeleton) -> int:
    """Channels of the cifar stem."""
    return skeleton.channels * (3 if skeleton.frame is None else 1)


def stem_layers(skeleton: Skeleton) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Layers up to the first cell's input k-2, and the further ones up to its input k-1."""
    channels = skeleton.channels
    if skeleton.stem == "cifar":
        width = stem_width(skeleton)
        return (conv(skeleton.input[0], width, 3), _bn(width)), ()
    half = channels // 2
    first = (conv(skeleton.input[0], half, 3, 2), _bn(half), _relu(half), conv(half, channels, 3, 2), _bn(channels))
    return first, (_relu(channels), conv(channels, channels, 3, 2), _bn(channels))


def sites(types: Mapping[str, CellType], skeleton: Skeleton) -> list[Site]:
    """Every cell of the stack in its place.

    Raises InvalidGenotypeError when maps do not fit together, UnknownNameError for a preprocessing that is not known.
    """
    size: Size = skeleton.input[1:]
    states: list[tuple[int, Size]] = []  # (channels, size) of the outputs so far, the stem's two first
    stem0, stem1 = stem_layers(skeleton)
    for layers in (stem0, stem1):
        for layer in layers:
            size = _after(size, layer.stride)
        states.append((layers[-1].outputs if layers else states[-1][0], size))
    channels = skeleton.channels
    found = []
    for position, name in enumerate(skeleton.cells):
        cell = types[name]
        for op in cell.pre:
            if op not in PREPARATIONS:
                raise UnknownNameError("preprocessing op", op, PREPARATIONS)
        if cell.reduction:
            channels *= 2
        width = channels if cell.width is None else cell.width
        taken = states[-cell.inputs :]
        size_in = taken[-1][1]
        size_out = _after(size_in, (2, 2)) if cell.reduction else size_in
        outputs = width * (len(cell.concat) if cell.combine == "concat" else 1)
        inputs = []
        for op, (source_channels, source_size) in zip(cell.pre, taken, strict=True):
            if op == BARE and source_size != size_in:
                raise InvalidGenotypeError(
                    f"cell {position}: an input map of {source_size} cannot be taken as it comes where others have "
                    f"{size_in}; bring it there ('pre': conv_1x1)"
                )
            if source_size != size_in and _after(source_size, (2, 2)) != size_in:
                raise InvalidGenotypeError(
                    f"cell {position}: an input map of {source_size} cannot be brought to {size_in} by stride 2"
                )
            inputs.append((source_channels, 1 if source_size == size_in else 2))
        found.append(
            Site(
                position,
                name,
                tuple(inputs),
                tuple(s for _, s in taken),
                width,
                size_in,
                size_out,
                outputs,
            )
        )
        states.append((outputs, size_out))
    return found


def cell_constant(site: Site, cell: CellType) -> Cost:
    """What a cell costs whatever its edges are: its preprocessing."""
    return sum((prepare_cost(site, op, place) for place, op in enumerate(cell.pre) if op != BARE), start=Cost())


def prepare_cost(site: Site, op: str, place: int) -> Cost:
    """Of bringing one input to the cell's channels."""
    channels, stride = site.inputs[place]
    return count_layers(prepare_layers(op, channels, site.channels, stride), site.input_sizes[place])


def edge_cost(site: Site, cell: CellType, edge: Edge) -> Cost:
    stride, size = site.stride(cell, edge.source), site.size_of(cell, edge.source)
    inputs = site.width(cell, edge.source)
    return _op_cost(edge.op, edge.width, inputs, site.channels, stride, cell.pool_norm, size)


@lru_cache(maxsize=65536)
def _op_cost(op: str, width: int | None, inputs: int, outputs: int, stride: int, pool_norm: bool, size: Size) -> Cost:
    """Few of an op's costs differ over the edges and positions of a deep network."""
    return count_layers(op_layers(Edge(1, 0, op, width), inputs, stride, pool_norm, outputs), size)


def stem_cost(skeleton: Skeleton) -> Cost:
    """Everything before the first cell."""
    stem0, stem1 = stem_layers(skeleton)
    return count_layers(stem0 + stem1, skeleton.input[1:])


def classifier_cost(skeleton: Skeleton, last: Site) -> Cost:
    """Global pooling and linear layer behind a stack that ends in ``last``, and what the frame puts before them."""
    linear = last.outputs * skeleton.classes
    pooling = last.outputs * last.size_out[0] * last.size_out[1]
    before = () if skeleton.frame is None else (_bn(last.outputs), _relu(last.outputs))
    return count_layers(before, last.size_out) + Cost(linear + skeleton.classes, linear, linear + pooling)


def skeleton_constant(skeleton: Skeleton, last: Site) -> Cost:
    """Stem and classifier around a stack that ends in ``last``."""
    return stem_cost(skeleton) + classifier_cost(skeleton, last)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a network's cost is made of."""

    stem: Cost
    cells: tuple[Cost, ...]
    """By position, preprocessing included."""
    classifier: Cost

    @property
    def total(self) -> Cost:
        return sum(self.cells, start=self.stem) + self.classifier


def parts(architecture: Architecture) -> Parts:
    """Exact cost of a network, part by part.

    Raises InvalidGenotypeError or UnknownNameError for what cannot be built.
    """
    architecture.check()
    types, skeleton = architecture.genotype.types, architecture.skeleton
    where = sites(types, skeleton)
    cells = []
    for site in where:
        cell = types[site.type]
        cells.append(sum((edge_cost(site, cell, edge) for edge in cell.edges), start=cell_constant(site, cell)))
    return Parts(stem_cost(skeleton), tuple(cells), classifier_cost(skeleton, where[-1]))


def count(architecture: Architecture) -> Cost:
    """Exact cost of a network. Raises InvalidGenotypeError or UnknownNameError for what cannot be built."""
    return parts(architecture).total


@dataclass(frozen=True)
class CostTable:
    """A resource of every network on one skeleton: ``constant + sum of entries`` of its edges."""

    constant: int
    entries: Mapping[str, NDArray[np.int64]]
    """By cell type, (edges, ops): summed over the positions where the type stands. With PRE behind its name, (inputs,
    ops) of what prepares its inputs, where that is searched."""

    def of(self, selection: Mapping[str, NDArray[np.bool_]]) -> int:
        """Of the network of the chosen ops; ``selection`` is by cell type, (edges, ops)."""
        return self.constant + sum(int(self.entries[name][chosen].sum()) for name, chosen in selection.items())


def cost_table(
    types: Mapping[str, CellType],
    choices: Mapping[str, tuple[Sequence[tuple[int, int]], Sequence[str]]],
    skeleton: Skeleton,
    resource: Resource,
) -> CostTable:
    """The table for cells ``types`` with ``choices`` (edges as (target, source), ops).

    A type without choices costs what its own edges do; edges of the others are ignored. So are preprocessings where
    there are choices of them (PRE behind a type's name).
    """
    where = sites(types, skeleton)
    constant = getattr(skeleton_constant(skeleton, where[-1]), resource)
    entries = {name: np.zeros((len(edges), len(ops)), dtype=np.int64) for name, (edges, ops) in choices.items()}
    alike: dict[tuple[Any, ...], list[Site]] = {}  # a deep stack has few kinds of place
    for site in where:
        cell = types[site.type]
        if site.type + PRE in choices:
            inputs, ops = choices[site.type + PRE]
            for row, (_, place) in enumerate(inputs):
                for column, op in enumerate(ops):
                    entries[site.type + PRE][row, column] += getattr(prepare_cost(site, op, place), resource)
        else:
            constant += getattr(cell_constant(site, cell), resource)
        if site.type in choices:
            widths = tuple(site.width(cell, source) for source in range(cell.inputs))
            alike.setdefault((site.type, widths, site.channels, site.size_in, site.size_out), []).append(site)
        else:
            constant += sum(getattr(edge_cost(site, cell, edge), resource) for edge in cell.edges)
    for (name, *_), places in alike.items():
        edges, ops = choices[name]
        for row, (target, source) in enumerate(edges):
            for column, op in enumerate(ops):
                cost = edge_cost(places[0], types[name], Edge(target, source, op))
                entries[name][row, column] += len(places) * getattr(cost, resource)
    return CostTable(constant, entries)
