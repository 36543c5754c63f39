"""An architecture is a genotype on a skeleton: frozen values, JSON both ways, one hash over both halves.

A ``Genotype`` holds cell types by name, each a list of edges (target, source, op): any number per node, several
ops per edge allowed. A ``Skeleton`` says which cell type stands at which position, and the channels, stem, input
and classes around them. Nodes of a cell are numbered from its inputs on: with two inputs, 0 and 1 are the outputs
of the cells k-2 and k-1 and 2, 3, ... the intermediate nodes in order (DARTS, arXiv 1806.09055, section 2.1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nas_core.errors import InvalidGenotypeError

_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
T = TypeVar("T")

MOST_INPUTS = 2
FEWEST_CHANNELS = 2
"""Of a cell: what brings a map to half its size makes each half of the channels by itself."""
Stem = Literal["cifar", "imagenet"]
IMAGENET_FROM = 64
"""Pixels from which the stem ``auto`` is the imagenet one."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One op from a source node to a target node."""

    target: int
    source: int
    op: str
    width: int | None = None
    """Channels between the two halves of a sep_conv, where they differ from the cell's (MGAS)."""
    weight: float | None = None
    """Fixed coefficient of the op's output (EnTranNAS-DST); 1 when absent."""

    def sort_key(self) -> tuple[int, int, str, int, float, str]:
        """Equal for equal edges alone: a weight of 1 and none, or 0 and -0, stand in one order, too."""
        weight = 1.0 if self.weight is None else self.weight
        return self.target, self.source, self.op, self.width or 0, weight, repr(self.weight)


@dataclass(frozen=True, slots=True)
class CellType:
    """A small DAG that is repeated; node values are sums of their incoming ops."""

    __pydantic_config__ = _CONFIG
    edges: tuple[Edge, ...]
    inputs: int = 2
    nodes: int = 4
    """Intermediate nodes."""
    reduction: bool = False
    """Ops on edges that leave an input have stride 2 and the cell doubles the channels."""
    combine: Literal["concat", "last"] = "concat"
    concat: tuple[int, ...] = (2, 3, 4, 5)
    """Nodes concatenated on the channel axis to the cell's output."""
    pre: tuple[str, ...] = ("conv_1x1", "conv_1x1")
    """How each input is brought to the cell's channels (a factorized reduce where its map is larger).
    ``identity``: not at all; the ops on its edges take it as it comes."""
    pool_norm: bool = False
    """Whether pools are followed by batch norm in the stand-alone network."""
    width: int | None = None
    """Channels of this cell where they differ from the skeleton's rule (MGAS)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(sorted(self.edges, key=Edge.sort_key)))

    def into(self, node: int) -> tuple[Edge, ...]:
        """The edges that end in a node, in canonical order."""
        return tuple(edge for edge in self.edges if edge.target == node)

    def check(self, name: str) -> None:
        """Raises InvalidGenotypeError when the cell is no forward DAG that reaches its output."""
        first, last = self.inputs, self.inputs + self.nodes - 1
        if self.inputs < 1 or self.nodes < 1:
            raise InvalidGenotypeError(f"cell '{name}': needs at least one input and one node")
        if self.inputs > MOST_INPUTS:
            raise InvalidGenotypeError(
                f"cell '{name}': has {self.inputs} inputs; a cell sees the outputs of at most {MOST_INPUTS} before it"
            )
        if self.width is not None and self.width < FEWEST_CHANNELS:
            raise InvalidGenotypeError(f"cell '{name}': has width {self.width}; at least {FEWEST_CHANNELS} is wanted")
        for edge in self.edges:
            if not first <= edge.target <= last:
                raise InvalidGenotypeError(
                    f"cell '{name}': edge {edge.source}->{edge.target} ends outside the nodes {first}..{last}"
                )
            if not 0 <= edge.source < edge.target:
                raise InvalidGenotypeError(
                    f"cell '{name}': edge {edge.source}->{edge.target} runs backwards; "
                    "an edge goes from a lower node to a higher one"
                )
            if edge.width is not None and edge.width < 1:
                raise InvalidGenotypeError(f"cell '{name}': edge {edge.source}->{edge.target} has width {edge.width}")
        reached = {edge.target for edge in self.edges}
        for node in range(first, last + 1):
            if node not in reached:
                raise InvalidGenotypeError(f"cell '{name}': node {node} has no input; give it at least one edge")
        if len(self.pre) != self.inputs:
            raise InvalidGenotypeError(f"cell '{name}': {self.inputs} inputs need {self.inputs} entries in 'pre'")
        outside = [node for node in self.concat if not first <= node <= last]
        if self.combine == "concat" and (outside or not self.concat or len(set(self.concat)) < len(self.concat)):
            raise InvalidGenotypeError(
                f"cell '{name}': concat {list(self.concat)} must name distinct nodes of {first}..{last}"
            )


@dataclass(frozen=True, slots=True)
class Genotype:
    """The searched half of an architecture: cell types by name."""

    space: str
    types: Mapping[str, CellType] = field(hash=False)
    masks: str | None = None
    """SHA-256 of a weight-mask artefact (MGAS)."""

    def key(self) -> str:
        """Canonical JSON: equal for equal genotypes, whatever order they were written in."""
        return _canonical(self)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The given half of an architecture: what the cells are stacked into."""

    cells: tuple[str, ...]
    """Cell type by position."""
    channels: int
    """Channels of the first cell; doubled at each reduction cell."""
    stem: Stem
    input: tuple[int, int, int]
    """Channels, height, width of an image."""
    classes: int
    frame: Literal["residual"] | None = None
    """What stands around the cells, where it is not DARTS': ``residual`` (NAS-Bench-201) has a stem as wide as the
    first cell, and a batch norm with ReLU before the global pooling."""


def stem_for(wanted: str, input: tuple[int, int, int]) -> Stem:
    """The stem for images of ``input`` (C, H, W): ``auto`` decides by their size."""
    if wanted == "auto":
        wanted = "imagenet" if min(input[1:]) >= IMAGENET_FROM else "cifar"
    return "imagenet" if wanted == "imagenet" else "cifar"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A genotype on a skeleton. The same cell at three widths is three architectures."""

    genotype: Genotype
    skeleton: Skeleton

    def check(self) -> None:
        """Raises InvalidGenotypeError when the two halves do not make a network."""
        for name, cell in self.genotype.types.items():
            cell.check(name)
        missing = sorted(set(self.skeleton.cells) - set(self.genotype.types))
        if missing:
            raise InvalidGenotypeError(
                f"the skeleton stacks cells of type {', '.join(missing)}, but the genotype has "
                f"{', '.join(sorted(self.genotype.types))}; depth can only be changed where types are shared"
            )
        shape, fewest = self.skeleton.input, FEWEST_CHANNELS
        if not self.skeleton.cells or self.skeleton.channels < fewest or self.skeleton.classes < 2 or min(shape) < 1:
            raise InvalidGenotypeError(
                f"a skeleton needs cells, channels >= {fewest}, classes >= 2 and an input of positive sizes; got "
                f"{len(self.skeleton.cells)} cells, {self.skeleton.channels} channels, "
                f"{self.skeleton.classes} classes, input {shape}"
            )

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON of both halves."""
        return _digest(self)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(_canonical(self))
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Architecture:
        """Parses and checks. Raises InvalidGenotypeError with the path of the first fault."""
        architecture = parse_json(cls, data)
        architecture.check()
        return architecture

    def on(self, skeleton: Skeleton) -> Architecture:
        """The same genotype on another skeleton.

        Raises InvalidGenotypeError where that wants cell types that the genotype has not, or has no place for those
        that stand here: a network whose positions have types of their own cannot be made deeper or shallower.
        """
        moved = replace(self, skeleton=skeleton)
        moved.check()
        homeless = sorted(set(self.skeleton.cells) - set(skeleton.cells))
        if homeless:
            raise InvalidGenotypeError(
                f"a skeleton of {len(skeleton.cells)} cells has no place for cells of type {', '.join(homeless)}, "
                f"which this network of {len(self.skeleton.cells)} cells is made of; "
                "depth can only be changed where types are shared"
            )
        return moved


def genotype_from_json(data: Mapping[str, Any] | str) -> Genotype:
    """Raises InvalidGenotypeError with the path of the first fault."""
    genotype = parse_json(Genotype, data)
    for name, cell in genotype.types.items():
        cell.check(name)
    return genotype


def genotype_to_json(genotype: Genotype) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_canonical(genotype))
    return data


def skeleton_from_json(data: Mapping[str, Any] | str) -> Skeleton:
    return parse_json(Skeleton, data)


def skeleton_to_json(skeleton: Skeleton) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_canonical(skeleton))
    return data


for _cls in (Edge, Genotype, Skeleton, Architecture):
    _cls.__pydantic_config__ = _CONFIG  # type: ignore[union-attr]


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Made at first use: it takes a while, and who only imports needs none."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _canonical(value: Genotype | Skeleton | Architecture) -> str:
    plain = _adapter(type(value)).dump_python(value, mode="json")
    halves = plain if isinstance(value, Architecture) else {"genotype": plain}
    for cell in halves.get("genotype", {}).get("types", {}).values():
        for edge in cell["edges"]:
            for optional in ("width", "weight"):
                if edge[optional] is None:
                    del edge[optional]
    skeleton = plain if isinstance(value, Skeleton) else plain.get("skeleton")
    if skeleton is not None and skeleton["frame"] is None:  # hashes are older than frames
        del skeleton["frame"]
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=65536)
def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(architecture: Architecture) -> str:
    return _digest_of(_canonical(architecture))


def even(number: float) -> int:
    """The next even number."""
    return 2 * ceil(number / 2)


def least_width(full: int) -> int:
    """Fewest channels of a cell that has ``full`` where widths are searched: half of them, even."""
    return min(full, max(FEWEST_CHANNELS, even(full / 2)))


def parse_json(cls: type[T], data: Mapping[str, Any] | str) -> T:
    """A frozen dataclass out of JSON. Raises InvalidGenotypeError with the path of the first fault."""
    try:
        value: T = _adapter(cls).validate_json(data if isinstance(data, str) else json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        path = "/" + "/".join(str(part) for part in first["loc"])
        raise InvalidGenotypeError(f"{path}: {first['msg']} (got {_shown(first['input'])})") from error
    except (ValueError, TypeError, RecursionError) as error:  # what JSON cannot say, or nobody can read
        raise InvalidGenotypeError(f"this is no JSON document: {str(error)[:200]}") from error
    return value


def _shown(value: Any) -> str:
    try:
        return str(value)[:80]
    except ValueError:
        return "a number of thousands of digits"
