"""What a network is made of as a runtime sees it: parts whose time or energy does not depend on what stands around.

A part is an op between two nodes, what a cell does to an input first, the sum of two maps or the concatenation of a
cell's nodes, the stem or the classifier, each with the shape of what comes in. A network is a multiset of them, so that
a table by part gives the cost of every network whose parts it holds. No torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from nas_core.architecture import Architecture, CellType, Edge, Genotype, Skeleton, even
from nas_core.costs import (
    BARE,
    OPS,
    PRE,
    Layer,
    Site,
    Size,
    count_layers,
    op_layers,
    preprocess,
    sites,
    stem_layers,
)
from nas_core.errors import InvalidGenotypeError, UnknownNameError

ADD, SCALE, CONCAT = "add", "scale", "concat"
PREPROCESS = "preprocess"
STEMS = {"cifar": "stem_cifar", "imagenet": "stem_imagenet"}
CLASSIFIER, NORM_CLASSIFIER = "classifier", "norm_classifier"
OTHERS = (ADD, SCALE, CONCAT, PREPROCESS, *STEMS.values(), CLASSIFIER, NORM_CLASSIFIER)
"""Parts that are no op of an edge."""
NAMES = (*OPS, *OTHERS)
POOLS, SEPARABLE = ("max_pool_", "avg_pool_"), "sep_conv_"
FREE = "skip_connect"
"""At stride 1 it does nothing, and is no part."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a network and the shape it works on."""

    op: str
    """An op of an edge, or one of OTHERS."""
    inputs: int
    """Channels of the map that comes in; of ``concat``, of each of the maps."""
    outputs: int
    """Channels of what goes out; of a classifier, the classes."""
    size: Size
    """Height and width of what comes in."""
    stride: int = 1
    middle: int | None = None
    """Channels between the halves of a sep_conv, where they are not ``inputs``."""
    pool_norm: bool = False
    """Whether a pool has a batch norm behind it."""

    def __str__(self) -> str:
        height, width = self.size
        extra = f", stride {self.stride}" if self.stride > 1 else ""
        extra += f", {self.middle} between" if self.middle is not None else ""
        extra += ", with batch norm" if self.pool_norm else ""
        return f"{self.op} {self.inputs} to {self.outputs} channels at {height}x{width}{extra}"

    def check(self) -> None:
        """Raises InvalidGenotypeError or UnknownNameError for what is no part of any network."""
        if self.op not in NAMES:
            raise UnknownNameError("part", self.op, NAMES)
        if min(self.inputs, self.outputs, *self.size, self.stride, self.middle or 1) < 1:
            raise InvalidGenotypeError(f"a part has channels, a size and a stride of 1 or more; got {self}")
        if self.middle is not None and not self.op.startswith(SEPARABLE):
            raise InvalidGenotypeError(f"a sep_conv alone has a width between its halves; got {self}")
        if self.pool_norm and not self.op.startswith(POOLS):
            raise InvalidGenotypeError(f"a pool alone has a batch norm behind it; got {self}")
        if self.op in OPS:
            op_layers(Edge(1, 0, self.op, self.middle), self.inputs, self.stride, self.pool_norm, self.outputs)
        elif self.op in (ADD, SCALE) and self.inputs != self.outputs:
            raise InvalidGenotypeError(f"'{self.op}' gives as many channels as it takes; got {self}")
        elif self.op == CONCAT and self.outputs % self.inputs:
            raise InvalidGenotypeError(f"'{CONCAT}' gives a multiple of the channels of one map; got {self}")


Choices = Mapping[str, tuple[Sequence[tuple[int, int]], Sequence[str]]]
"""By cell type that is searched: edges as (target, source), and the ops that may stand on them. With PRE behind its
name, the inputs n as (n, n) and what may prepare them."""


@runtime_checkable
class Laid(Protocol):
    """A space that says what may stand where in its genotypes."""

    def layout(self) -> tuple[Mapping[str, CellType], Choices]: ...


@runtime_checkable
class Widthwise(Protocol):
    """A space whose cells may have widths of their own, if ``filters`` says so."""

    @property
    def filters(self) -> bool: ...
    def widths(self, cell_type: str) -> tuple[int, int]: ...
    def narrowed(self, genotype: Genotype, rng: np.random.Generator) -> Genotype: ...


# --- which parts a network has ----------------------------------------------------------------------------------------


def parts_of(architecture: Architecture) -> Counter[Part]:
    """How often each part stands in a network. Raises InvalidGenotypeError or UnknownNameError."""
    architecture.check()
    types, skeleton = architecture.genotype.types, architecture.skeleton
    where = sites(types, skeleton)
    found: Counter[Part] = Counter(_around(skeleton, where[-1]))
    for site in where:
        cell = types[site.type]
        found.update(_before(site, cell))
        for edge in cell.edges:
            found.update(_edge(site, cell, edge))
        for node in range(cell.inputs, cell.inputs + cell.nodes):
            found[Part(ADD, site.channels, site.channels, site.size_out)] += len(cell.into(node)) - 1
        found.update(_behind(site, cell))
    return +found


Widths = Literal["rule", "full", "all"]
"""Of cells that may have widths of their own: those of the skeleton's rule, written down in full, or any."""
SHARES: Mapping[Widths, Sequence[float]] = {"full": (1.0,), "all": (0.0, 0.5, 1.0)}
"""Which are listed, from the fewest channels to the most."""


def parts_on(space: Laid, skeleton: Skeleton, widths: Widths = "all") -> set[Part]:
    """Every part that a network of the space can have on a skeleton. Of cells of any width those of the narrowest, the
    widest and the middle one: a profile that has these predicts the others.
    """
    types, choices = space.layout()
    if widths == "rule" or not (isinstance(space, Widthwise) and space.filters):
        return _laid(space, types, choices, skeleton)
    found: set[Part] = set()
    for share in SHARES[widths]:
        sized = {name: replace(cell, width=_between(space.widths(name), share)) for name, cell in types.items()}
        found |= _laid(space, sized, choices, skeleton)
    return found


def parts_beside(space: Laid, skeleton: Skeleton, genotype: Genotype) -> set[Part]:
    """Every part of the networks of the space whose cells are as wide as those of ``genotype``, and its own."""
    types, choices = space.layout()
    sized = {name: replace(cell, width=genotype.types[name].width) for name, cell in types.items()}
    return _laid(space, sized, choices, skeleton) | set(parts_of(Architecture(genotype, skeleton)))


def _between(ends: tuple[int, int], share: float) -> int:
    """Even, but for the upper end."""
    fewest, most = ends
    return min(most, even(fewest + share * (most - fewest)))


def _laid(space: Laid, types: Mapping[str, CellType], choices: Choices, skeleton: Skeleton) -> set[Part]:
    """With cells of these widths."""
    where = sites(types, skeleton)
    found = set(_around(skeleton, where[-1]))
    for site in where:
        cell = types[site.type]
        edges: Sequence[Edge] = cell.edges
        if site.type in choices:
            places, ops = choices[site.type]
            edges = [Edge(target, source, op) for target, source in places for op in ops]
            if cell.width is not None and isinstance(space, Widthwise):  # as wide as can be between the halves
                most = space.widths(site.type)[1]
                edges += [replace(edge, width=most) for edge in edges if edge.op.startswith(SEPARABLE)]
        if site.type + PRE in choices:
            inputs, ops = choices[site.type + PRE]
            found.update(prepare_part(site, op, place) for _, place in inputs for op in ops)
        else:
            found.update(_before(site, cell))
        found.update(*(_edge(site, cell, edge) for edge in edges), _behind(site, cell))
        targets = [edge.target for edge in edges]
        if len(set(targets)) < len(targets):
            found.add(Part(ADD, site.channels, site.channels, site.size_out))
        if site.type in choices and getattr(space, "weighted", False):
            found.add(Part(SCALE, site.channels, site.channels, site.size_out))
    return found


def _around(skeleton: Skeleton, last: Site) -> Iterator[Part]:
    layers = sum(stem_layers(skeleton), start=())
    yield Part(STEMS[skeleton.stem], skeleton.input[0], layers[-1].outputs, skeleton.input[1:])
    classifier = CLASSIFIER if skeleton.frame is None else NORM_CLASSIFIER
    yield Part(classifier, last.outputs, skeleton.classes, last.size_out)


def _before(site: Site, cell: CellType) -> Iterator[Part]:
    yield from (prepare_part(site, op, place) for place, op in enumerate(cell.pre) if op != BARE)


def prepare_part(site: Site, op: str, place: int) -> Part:
    """What brings one input to the cell's channels."""
    (channels, stride), size = site.inputs[place], site.input_sizes[place]
    return Part(PREPROCESS if op == "conv_1x1" else op, channels, site.channels, size, stride)


def _edge(site: Site, cell: CellType, edge: Edge) -> Iterator[Part]:
    stride, size = site.stride(cell, edge.source), site.size_of(cell, edge.source)
    inputs = site.width(cell, edge.source)
    if edge.op not in OPS:
        raise UnknownNameError("op", edge.op, OPS)
    if edge.op != FREE or stride > 1:
        pool = cell.pool_norm and edge.op.startswith(POOLS)
        middle = edge.width if edge.op.startswith(SEPARABLE) and edge.width != inputs else None
        yield Part(edge.op, inputs, site.channels, size, stride, middle, pool)
    if edge.weight is not None:
        yield Part(SCALE, site.channels, site.channels, site.size_out)


def _behind(site: Site, cell: CellType) -> Iterator[Part]:
    if cell.combine == "concat":
        yield Part(CONCAT, site.channels, site.outputs, site.size_out)


def op_parts(site: Site, cell: CellType, edge: Edge) -> list[Part]:
    """An op, with the sum that brings it to what came into its node before: a node has one of those too many."""
    return [*_edge(site, cell, edge), Part(ADD, site.channels, site.channels, site.size_out)]


def cell_parts(site: Site, cell: CellType) -> list[Part]:
    """What a cell does but for the ops on its edges."""
    return [*_before(site, cell), *_behind(site, cell)]


def around_parts(skeleton: Skeleton, last: Site) -> list[Part]:
    """Stem and classifier."""
    return list(_around(skeleton, last))


# --- what a part does -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """What a network, or a part of one, does for one image."""

    macs: int = 0
    """Multiply-adds of convolutions and linear layers."""
    weights: int = 0
    """Numbers that are read once for a whole batch: weights, batch-norm statistics."""
    activations: int = 0
    """Numbers that layers read and write, each layer its input once and its output once."""

    def __add__(self, other: Work) -> Work:
        return Work(self.macs + other.macs, self.weights + other.weights, self.activations + other.activations)

    def times(self, count: int) -> Work:
        return Work(self.macs * count, self.weights * count, self.activations * count)


def work_of(architecture: Architecture) -> Work:
    """Of a whole network, layer by layer as an eager runtime does it: nothing is fused."""
    return sum((part_work(part).times(count) for part, count in parts_of(architecture).items()), start=Work())


def part_work(part: Part) -> Work:
    """Of one part."""
    area = part.size[0] * part.size[1]
    if part.op == ADD:
        return Work(activations=3 * part.inputs * area)
    if part.op == SCALE:
        return Work(activations=2 * part.inputs * area)
    if part.op == CONCAT:
        return Work(activations=2 * part.outputs * area)
    if part.op == "none":
        return Work(activations=part.outputs * ceil(part.size[0] / part.stride) * ceil(part.size[1] / part.stride))
    if part.op in (CLASSIFIER, NORM_CLASSIFIER):
        linear = part.inputs * part.outputs
        done = Work(linear, linear + part.outputs, part.inputs * area + 2 * part.inputs + part.outputs)
        norm = (Layer("bn", part.inputs, part.inputs), Layer("relu", part.inputs, part.inputs))
        return done + _layers(norm, part.size) if part.op == NORM_CLASSIFIER else done
    return _layers(_part_layers(part), part.size)


def _part_layers(part: Part) -> tuple[Layer, ...]:
    if part.op == PREPROCESS:
        return preprocess(part.inputs, part.outputs, part.stride)
    for stem, name in STEMS.items():
        if part.op == name:
            images = (part.inputs, *part.size)
            on = Skeleton((), part.outputs, "imagenet" if stem == "imagenet" else "cifar", images, 2, "residual")
            return sum(stem_layers(on), start=())
    return op_layers(Edge(1, 0, part.op, part.middle), part.inputs, part.stride, part.pool_norm, part.outputs)


def _layers(layers: Sequence[Layer], size: Size) -> Work:
    done = Work()
    for layer in layers:
        before = layer.inputs * size[0] * size[1]
        cost = count_layers((layer,), size)
        size = ceil(size[0] / layer.stride[0]), ceil(size[1] / layer.stride[1])
        after = layer.outputs * size[0] * size[1]
        weights = 2 * cost.params if layer.kind == "bn" else cost.params  # beside scale and shift, mean and variance
        done += Work(cost.macs, weights, before + after)
    return done
