"""The cell space of DARTS (Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055, sections 2.1 and 3.1.1).

Two cell types, ``normal`` and ``reduce``, with 2 inputs and 4 intermediate nodes; every node of a derived cell takes
two ops from two different earlier nodes; the output is the concatenation of the intermediate nodes. Reduction cells
stand at floor(L/3) and floor(2L/3). ``none`` takes part in relaxations but never stands in a genotype.

With ``fan_in: any`` a node takes one op from any of its earlier nodes, from one at least: the cells of TND-NAS (arXiv
2111.03892, end-to-end derivation). With ``fan_in: free`` it may take several from one, each with a coefficient: the
cells of EnTranNAS-DST (arXiv 2101.11342).

In the style of RC-DARTS (arXiv 1912.12814, of which the abstract alone was read; both are reconstructions):
``levels: 3`` cuts the stack at its reduction cells, with a normal cell for each part and a cell of its own for each
reduction; ``levels: cell`` gives every position its own. ``connection`` lets a cell choose what brings each input to
its channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, MinLen
from numpy.typing import NDArray
from pydantic import ConfigDict

from nas_core.architecture import CellType, Edge, Genotype, Skeleton, least_width, parse_json, stem_for
from nas_core.costs import CONNECTIONS, OPS, PRE, CostTable, Resource, cost_table
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.parts import Choices
from nas_core.settings import settings
from nas_core.spaces import spaces

if TYPE_CHECKING:
    from nas_core.supernet import Supernet

DARTS_OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
FAN_IN = 2
INPUTS = 2
TYPES = ("normal", "reduce")
LEVEL_TYPES = ("normal1", "reduce1", "normal2", "reduce2", "normal3")
"""With three levels, in the order in which they stand."""
FEWEST_CELLS = 3
"""Below, a stack has reduction cells alone, and genotypes that differ in the normal cell would be one network."""
FEWEST_OF_LEVELS = 5
"""Below, a level would have no normal cell."""
MUTATION_TRIES = 100


@spaces.register("darts")
@settings
class DartsCells:
    """DARTS cells: two types, four nodes, two inputs a node."""

    cells: Annotated[int, Ge(3), Le(100)] = 8
    """Cells of the searched network."""
    channels: Annotated[int, Ge(2), Le(1024)] = 16
    """Channels of its first cell; doubled at each reduction cell."""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """auto = imagenet from 64 pixels."""
    nodes: Annotated[int, Ge(1), Le(8)] = 4
    """Intermediate nodes of a cell."""
    normal_ops: Annotated[tuple[str, ...], MinLen(1)] = DARTS_OPS
    """Ops of the normal cell; ``none`` only takes part in relaxations."""
    reduce_ops: Annotated[tuple[str, ...], MinLen(1)] = DARTS_OPS
    """Ops of the reduction cell."""
    fan_in: Literal["two", "any", "free"] = "two"
    """Inputs of a node: two, as published; or any number of its earlier nodes, where ``none`` leaves an edge out; or
    freely any number of ops, several from one node with coefficients among them (``entrannas`` with ``dst``)."""
    levels: Literal[1, 3, "cell"] = 1
    """Which cells differ: 1 = normal and reduction cells, as published; 3 = those of each resolution; cell = all."""
    connection: bool = False
    """Whether a cell chooses what brings its inputs to its channels: 1x1, 1x1 in groups, or depthwise 3x3 before it."""
    filters: bool = False
    """Whether cells have widths of their own, from half of the usual channels to all of them (the last cell all), a
    sep_conv from the cell's width to all between its halves, pools a batch norm, and networks weight masks (``mgas``).
    Needs fan_in: free and levels: cell."""

    def __post_init__(self) -> None:
        for field, ops in (("normal_ops", self.normal_ops), ("reduce_ops", self.reduce_ops)):
            unknown = sorted(set(ops) - set(OPS))
            if unknown:
                raise InvalidSettingsError(f"{field}: unknown op '{unknown[0]}'; known: {', '.join(sorted(OPS))}")
            if len(set(ops)) < len(ops) or not set(ops) - {"none"}:
                raise InvalidSettingsError(f"{field}: needs distinct ops, at least one besides 'none'; got {list(ops)}")
        if self.filters and (self.fan_in != "free" or self.levels != "cell" or self.connection):
            raise InvalidSettingsError(
                "filters: cells with widths of their own want fan_in: free and levels: cell, without connection"
            )
        self._stack(self.cells)

    # --- what it is -------------------------------------------------------------------------------------------

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Edges of the relaxed cell as (target, source), in the order of alpha's rows."""
        return tuple((target, source) for target in range(INPUTS, INPUTS + self.nodes) for source in range(target))

    @property
    def types(self) -> tuple[str, ...]:
        """Of the cells, ``normal...`` and ``reduce...``."""
        if self.levels == "cell":
            return self._stack(self.cells)
        return TYPES if self.levels == 1 else LEVEL_TYPES

    @property
    def holds_none(self) -> bool:
        """Whether an edge may end as ``none``, that is, be left out."""
        return self.fan_in != "two"

    @property
    def weighted(self) -> bool:
        """Whether ops may carry coefficients."""
        return self.fan_in == "free"

    def ops(self, cell_type: str) -> tuple[str, ...]:
        """Ops of a cell type, in the order of alpha's columns; with PRE behind its name, of its preprocessing."""
        if cell_type.endswith(PRE):
            return CONNECTIONS
        return self.normal_ops if cell_type.startswith("normal") else self.reduce_ops

    def cell(self, cell_type: str, edges: Sequence[Edge] = (), pre: tuple[str, ...] = CONNECTIONS[:1] * 2) -> CellType:
        concat = tuple(range(INPUTS, INPUTS + self.nodes))
        reduction = cell_type.startswith("reduce")
        return CellType(tuple(edges), INPUTS, self.nodes, reduction, "concat", concat, pre, pool_norm=self.filters)

    def _stack(self, depth: int) -> tuple[str, ...]:
        """Cell types by position. Raises InvalidSettingsError."""
        fewest = FEWEST_OF_LEVELS if self.levels == 3 else FEWEST_CELLS
        if depth < fewest:
            what = "a stack of DARTS cells in three levels" if self.levels == 3 else "a stack of DARTS cells"
            raise InvalidSettingsError(f"cells: {what} has at least {fewest}; got {depth}")
        if self.levels == "cell" and depth != self.cells:
            raise InvalidSettingsError(
                f"cells: with levels: cell each of the {self.cells} searched cells has a type of its own, so that "
                f"networks have as many; got {depth}"
            )
        reductions = [depth // 3, 2 * depth // 3]
        kinds = ["reduce" if position in reductions else "normal" for position in range(depth)]
        if self.levels == "cell":
            return tuple(f"{kind}{position + 1}" for position, kind in enumerate(kinds))
        if self.levels == 3:
            before = [sum(place < position for place in reductions) for position in range(depth)]
            return tuple(f"{kind}{number + 1}" for kind, number in zip(kinds, before, strict=True))
        return tuple(kinds)

    def skeleton(
        self,
        input: tuple[int, int, int],
        classes: int,
        cells: int | None = None,
        channels: int | None = None,
        stem: str | None = None,
    ) -> Skeleton:
        """The searched skeleton for images of ``input`` (C, H, W), or a target that differs from it.

        Raises InvalidSettingsError for a number of cells that the space cannot have: fewer than three, than five with
        three levels, and any other than the searched one where every cell is of its own type.
        """
        stack = self._stack(cells or self.cells)
        return Skeleton(stack, channels or self.channels, stem_for(stem or self.stem, input), input, classes)

    def check(self, genotype: Genotype) -> None:
        """Raises InvalidGenotypeError for a genotype outside the space."""
        if genotype.space != "darts" or set(genotype.types) != set(self.types):
            raise InvalidGenotypeError(
                f"space 'darts' wants the cell types {', '.join(self.types[:-1])} and {self.types[-1]}; got space "
                f"'{genotype.space}' with {', '.join(sorted(genotype.types)) or 'none'}"
            )
        for name in self.types:
            cell = genotype.types[name]
            width = cell.width if self.filters else None
            if replace(cell, edges=(), pre=CONNECTIONS[:1] * INPUTS) != replace(self.cell(name), width=width):
                raise InvalidGenotypeError(f"cell '{name}' is not laid out as a {self.nodes}-node DARTS cell")
            cell.check(name)
            self._check_widths(name, cell)
            allowed_pre = CONNECTIONS if self.connection else CONNECTIONS[:1]
            for op in cell.pre:
                if op not in allowed_pre:
                    raise InvalidGenotypeError(
                        f"cell '{name}': preprocessing '{op}' is not of this space; use {', '.join(allowed_pre)}"
                    )
            for edge in cell.edges:
                if edge.op == "none" or edge.op not in self.ops(name):
                    allowed = ", ".join(op for op in self.ops(name) if op != "none")
                    raise InvalidGenotypeError(f"cell '{name}': op '{edge.op}' is not of this space; use {allowed}")
            for node in range(INPUTS, INPUTS + self.nodes):
                sources = [edge.source for edge in cell.into(node)]
                if self.fan_in == "free":
                    taken = [(edge.source, edge.op) for edge in cell.into(node)]
                    if not taken or len(set(taken)) < len(taken):
                        listed = ", ".join(f"{op} of {source}" for source, op in taken) or "nothing"
                        raise InvalidGenotypeError(
                            f"cell '{name}': node {node} takes {listed}; it needs different (input, op), one at least"
                        )
                elif self.fan_in == "any":
                    if not sources or len(set(sources)) < len(sources):
                        raise InvalidGenotypeError(
                            f"cell '{name}': node {node} takes {sources}; it needs different inputs, one at least"
                        )
                elif len(sources) != FAN_IN or len(set(sources)) != FAN_IN:
                    raise InvalidGenotypeError(
                        f"cell '{name}': node {node} takes {sources}; it needs two different inputs (fan_in: any "
                        "allows any number, fan_in: free several ops of one)"
                    )

    def widths(self, cell_type: str) -> tuple[int, int]:
        """Fewest and most channels of the cell at a position, where widths are searched."""
        reductions = sum(kind.startswith("reduce") for kind in self.types[: self.types.index(cell_type) + 1])
        most = self.channels * 2**reductions
        return most if cell_type == self.types[-1] else least_width(most), most

    def narrowed(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """With even widths drawn uniformly, of cells and between the halves of their separable convolutions."""
        types = {}
        for name, cell in genotype.types.items():
            width, most = _even(*self.widths(name), rng), self.widths(name)[1]
            edges = [
                replace(edge, width=_even(width, most, rng)) if edge.op.startswith("sep_conv_") else edge
                for edge in cell.edges
            ]
            types[name] = replace(cell, edges=tuple(edges), width=width)
        return replace(genotype, types=types)

    def _check_widths(self, name: str, cell: CellType) -> None:
        """Raises InvalidGenotypeError."""
        if not self.filters:
            return
        fewest, most = self.widths(name)
        width = most if cell.width is None else cell.width
        if not fewest <= width <= most:
            raise InvalidGenotypeError(f"cell '{name}': has width {width}; this space has {fewest} to {most} there")
        for edge in cell.edges:
            if edge.width is None:
                continue
            if not edge.op.startswith("sep_conv_") or not width <= (edge.width or 0) <= most:
                raise InvalidGenotypeError(
                    f"cell '{name}': edge {edge.source}->{edge.target} has width {edge.width} for op '{edge.op}'; "
                    f"sep_conv alone takes one, of {width} to {most}"
                )

    # --- chance -----------------------------------------------------------------------------------------------

    def _op(self, cell_type: str, rng: np.random.Generator) -> str:
        choices = [op for op in self.ops(cell_type) if op != "none"]
        return choices[rng.integers(len(choices))]

    def _genotype(
        self, cells: Mapping[str, Sequence[Edge]], pre: Mapping[str, tuple[str, ...]] | None = None
    ) -> Genotype:
        """``pre`` may be left out where it is not searched."""
        ways = pre or dict.fromkeys(self.types, CONNECTIONS[:1] * INPUTS)
        return Genotype("darts", {name: self.cell(name, cells[name], ways[name]) for name in self.types})

    def _pre(self, parent: Genotype) -> dict[str, tuple[str, ...]]:
        return {name: parent.types[name].pre for name in self.types}

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Uniform over pairs of inputs and ops of every node; with any fan-in, over the ops of every edge. A free node
        takes as many ops as it has earlier nodes at most, so that networks are no larger than of any fan-in.
        """
        cells: dict[str, list[Edge]] = {name: [] for name in self.types}
        for name in self.types:
            for node in range(INPUTS, INPUTS + self.nodes):
                if self.fan_in == "any":
                    cells[name] += self._node(name, node, rng)
                    continue
                if self.fan_in == "free":
                    possible = self._possible(name, node)
                    count = min(int(rng.integers(1, node + 1)), len(possible))
                    cells[name] += [possible[place] for place in rng.choice(len(possible), count, replace=False)]
                    continue
                for source in rng.choice(node, FAN_IN, replace=False):
                    cells[name].append(Edge(node, int(source), self._op(name, rng)))
        if not self.connection:
            return self._genotype(cells)
        drawn = {name: rng.integers(len(CONNECTIONS), size=INPUTS) for name in self.types}
        return self._genotype(cells, {name: tuple(CONNECTIONS[c] for c in columns) for name, columns in drawn.items()})

    def _node(self, cell_type: str, node: int, rng: np.random.Generator) -> list[Edge]:
        """The edges into a node: an op of every earlier node, ``none`` among them; one edge at least stays."""
        ops = self.ops(cell_type)
        while True:
            drawn = [ops[rng.integers(len(ops))] for _ in range(node)]
            edges = [Edge(node, source, op) for source, op in enumerate(drawn) if op != "none"]
            if edges:
                return edges

    def _possible(self, cell_type: str, node: int) -> list[Edge]:
        """Everything that may enter a node."""
        ops = [op for op in self.ops(cell_type) if op != "none"]
        return [Edge(node, source, op) for source in range(node) for op in ops]

    def _freed(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """One op of a free cell added, taken away or exchanged."""
        for _ in range(MUTATION_TRIES):
            name = self.types[rng.integers(len(self.types))]
            node = int(rng.integers(INPUTS, INPUTS + self.nodes))
            there = list(parent.types[name].into(node))
            taken = {(edge.source, edge.op) for edge in there}
            others = [edge for edge in self._possible(name, node) if (edge.source, edge.op) not in taken]
            way = ("add", "remove", "exchange")[rng.integers(3)]
            if (way != "remove" and not others) or (way == "remove" and len(there) == 1):
                continue
            if way != "add":
                del there[rng.integers(len(there))]
            if way != "remove":
                there.append(others[rng.integers(len(others))])
            kept = [edge for edge in parent.types[name].edges if edge.target != node]
            cells = {kind: kept + there if kind == name else parent.types[kind].edges for kind in self.types}
            return self._sized(self._genotype(cells, self._pre(parent)), parent)
        return parent

    def _sized(self, genotype: Genotype, parent: Genotype) -> Genotype:
        """With the widths of a parent; a sep_conv that is narrower than its cell is as wide as that."""
        if not self.filters:
            return genotype
        types = {}
        for name, cell in genotype.types.items():
            width = parent.types[name].width
            least = self.widths(name)[1] if width is None else width
            edges = [replace(edge, width=None) if (edge.width or least) < least else edge for edge in cell.edges]
            types[name] = replace(cell, edges=tuple(edges), width=width)
        return replace(genotype, types=types)

    def _changed(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """Another op, ``none`` among them, on one edge of a cell with any fan-in."""
        for _ in range(MUTATION_TRIES):
            name = self.types[rng.integers(len(self.types))]
            target, source = self.edges[rng.integers(len(self.edges))]
            there = [edge for edge in parent.types[name].edges if (edge.target, edge.source) == (target, source)]
            others = [op for op in self.ops(name) if op != (there[0].op if there else "none")]
            if not others:
                continue
            op = others[rng.integers(len(others))]
            edges = [edge for edge in parent.types[name].edges if edge not in there]
            edges += [Edge(target, source, op)] if op != "none" else []
            if any(edge.target == target for edge in edges):
                cells = {kind: edges if kind == name else parent.types[kind].edges for kind in self.types}
                return self._genotype(cells, self._pre(parent))
        return parent

    def _connected(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """Another preprocessing of one input."""
        pre = self._pre(parent)
        name, place = self.types[rng.integers(len(self.types))], int(rng.integers(INPUTS))
        others = [op for op in CONNECTIONS if op != pre[name][place]]
        changed = list(pre[name])
        changed[place] = others[rng.integers(len(others))]
        edges = {kind: parent.types[kind].edges for kind in self.types}
        return self._genotype(edges, pre | {name: tuple(changed)})

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """One change of one edge: another op, or (half of the time, where a node has a choice) another input. Where
        connections are searched, one of those instead in their share of all choices.

        The parent itself where the space has nothing to change.
        """
        if self.connection and rng.random() < INPUTS / (INPUTS + FAN_IN * self.nodes):
            return self._connected(parent, rng)
        if self.fan_in == "any":
            return self._changed(parent, rng)
        if self.fan_in == "free":
            return self._freed(parent, rng)
        cells = {name: list(parent.types[name].edges) for name in self.types}
        for _ in range(MUTATION_TRIES):
            name = self.types[rng.integers(len(self.types))]
            place = int(rng.integers(len(cells[name])))
            edge = cells[name][place]
            if rng.random() < 0.5:
                taken = {other.source for other in cells[name] if other.target == edge.target}
                free = [source for source in range(edge.target) if source not in taken]
                if not free:
                    continue
                cells[name][place] = replace(edge, source=int(free[rng.integers(len(free))]))
            else:
                others = [op for op in self.ops(name) if op not in ("none", edge.op)]
                if not others:
                    continue
                cells[name][place] = replace(edge, op=others[rng.integers(len(others))])
            return self._genotype(cells, self._pre(parent))
        return parent

    def crossover(self, one: Genotype, other: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover by node: a node keeps both of its edges together. By input of what prepares it."""
        cells: dict[str, list[Edge]] = {name: [] for name in self.types}
        for name in self.types:
            for node in range(INPUTS, INPUTS + self.nodes):
                cells[name] += (one if rng.random() < 0.5 else other).types[name].into(node)
        if not self.connection:
            return self._sized(self._genotype(cells), one)
        pairs = {name: zip(one.types[name].pre, other.types[name].pre, strict=True) for name in self.types}
        return self._genotype(
            cells,
            {
                name: tuple(mine if rng.random() < 0.5 else theirs for mine, theirs in several)
                for name, several in pairs.items()
            },
        )

    # --- costs ------------------------------------------------------------------------------------------------

    def layout(self) -> tuple[Mapping[str, CellType], Choices]:
        """The cells, and what may stand on which of their edges in a genotype."""
        types, choices = self._relaxed()
        return types, {name: (rows, [op for op in ops if op != "none"]) for name, (rows, ops) in choices.items()}

    def _relaxed(self) -> tuple[Mapping[str, CellType], Choices]:
        """The same of the relaxed cells: rows and columns of alpha."""
        choices: dict[str, tuple[Sequence[tuple[int, int]], Sequence[str]]] = {
            name: (self.edges, self.ops(name)) for name in self.types
        }
        if self.connection:
            inputs = tuple((place, place) for place in range(INPUTS))
            choices |= {name + PRE: (inputs, CONNECTIONS) for name in self.types}
        return {name: self.cell(name) for name in self.types}, choices

    def cost_table(self, skeleton: Skeleton, resource: Resource) -> CostTable:
        """Entries (edges, ops) of every op, ``none`` included, at ``skeleton``; (inputs, ops) of connections."""
        return cost_table(*self._relaxed(), skeleton, resource)

    def extreme(self, skeleton: Skeleton, resource: Resource, highest: bool) -> Genotype:
        """The genotype of the smallest or largest possible cost at ``skeleton`` (exact: costs are additive, and never
        fall with a width).
        """
        relaxed, choices = self._relaxed()
        if self.filters:
            relaxed = {
                name: replace(cell, width=self._extreme_width(name, skeleton, highest))
                for name, cell in relaxed.items()
            }
        table = cost_table(relaxed, choices, skeleton, resource)
        sign = -1 if highest else 1
        cells: dict[str, list[Edge]] = {}
        for name in self.types:
            usable = [column for column, op in enumerate(self.ops(name)) if op != "none"]
            cells[name] = []
            for node in range(INPUTS, INPUTS + self.nodes):
                best = []
                for row, (target, source) in enumerate(self.edges):
                    if target == node and self.fan_in == "free":
                        costs = table.entries[name][row]
                        best += [(sign * costs[column], source, self.ops(name)[column]) for column in usable]
                    elif target == node:
                        column = min(usable, key=lambda c, row=row: sign * table.entries[name][row, c])  # type: ignore[misc]
                        best.append((sign * table.entries[name][row, column], source, self.ops(name)[column]))
                count = FAN_IN if self.fan_in == "two" else len(best) if highest else 1
                cells[name] += [Edge(node, source, op) for _, source, op in sorted(best)[:count]]
        if not self.connection:
            found = self._genotype(cells)
            return replace(found, types={n: replace(c, width=relaxed[n].width) for n, c in found.types.items()})
        chosen = {name: (sign * table.entries[name + PRE]).argmin(axis=1) for name in self.types}
        return self._genotype(cells, {name: tuple(CONNECTIONS[c] for c in columns) for name, columns in chosen.items()})

    def _extreme_width(self, cell_type: str, skeleton: Skeleton, highest: bool) -> int | None:
        """The least or the most channels that a cell can have; None: those of the skeleton's rule."""
        fewest, most = self.widths(cell_type)
        by_rule = skeleton.channels * most // self.channels
        if highest:
            return most if most > by_rule else None
        return fewest if fewest < by_rule else None

    # --- relaxations ------------------------------------------------------------------------------------------

    def supernet(self, skeleton: Skeleton, *, share_features: bool = False) -> Supernet:
        """The network of all ops on all edges at ``skeleton``."""
        from nas_core.supernet import Supernet

        layout = {name: (self.cell(name), self.edges, self.ops(name)) for name in self.types}
        connections = dict.fromkeys(self.types, CONNECTIONS) if self.connection else None
        return Supernet(layout, skeleton, share_features=share_features, connections=connections)

    def selection(self, genotype: Genotype) -> dict[str, NDArray[np.bool_]]:
        """Which (edges, ops) of the relaxed cells the genotype uses."""
        chosen = {name: np.zeros((len(self.edges), len(self.ops(name))), dtype=bool) for name in self.types}
        for name in self.types:
            for edge in genotype.types[name].edges:
                row = self.edges.index((edge.target, edge.source))
                chosen[name][row, self.ops(name).index(edge.op)] = True
            if self.connection:
                pre = genotype.types[name].pre
                chosen[name + PRE] = np.array([[op == way for way in CONNECTIONS] for op in pre], dtype=bool)
        return chosen

    def derive(self, strengths: Mapping[str, NDArray[np.floating[Any]]]) -> Genotype:
        """DARTS' rule (section 2.4): per node the two inputs whose best op other than ``none`` is strongest. With any
        or free fan-in the strongest op of each edge, ``none`` included (TND-NAS); a node that would be left without
        inputs keeps the edge whose best other op is strongest. An input is prepared by the strongest connection.

        ``strengths``: (edges, ops) by type, softmax weights. Ties go to the smaller index.
        """
        cells: dict[str, list[Edge]] = {}
        for name in self.types:
            ops = self.ops(name)
            weights = np.array(strengths[name], dtype=np.float64)
            if "none" in ops:
                weights[:, ops.index("none")] = -np.inf
            cells[name] = []
            for node in range(INPUTS, INPUTS + self.nodes):
                rows = [row for row, (target, _) in enumerate(self.edges) if target == node]
                rows.sort(key=lambda row: -weights[row].max())  # stable
                if self.holds_none:
                    there = [row for row in rows if int(strengths[name][row].argmax()) == int(weights[row].argmax())]
                    rows = sorted(there or rows[:1])
                else:
                    rows = rows[:FAN_IN]
                for row in rows:
                    cells[name].append(Edge(node, self.edges[row][1], ops[int(weights[row].argmax())]))
        if not self.connection:
            return self._genotype(cells)
        chosen = {name: np.asarray(strengths[name + PRE]).argmax(axis=1) for name in self.types}
        return self._genotype(cells, {name: tuple(CONNECTIONS[c] for c in columns) for name, columns in chosen.items()})

    def keep(self, coefficients: Mapping[str, NDArray[np.floating[Any]]]) -> Genotype:
        """The cell of every op whose coefficient is not 0 (EnTranNAS-DST); one of 1 is not written down.

        ``coefficients``: (edges, ops) by type. Raises InvalidSettingsError where nodes do not take ops freely.
        """
        if not self.weighted:
            raise InvalidSettingsError(
                f"fan_in: '{self.fan_in}' has no cells with any number of ops on an edge; use free"
            )
        cells = {}
        for name in self.types:
            cells[name] = [
                Edge(*self.edges[row], self.ops(name)[column], weight=None if value == 1.0 else float(value))
                for (row, column), value in np.ndenumerate(coefficients[name])
                if value != 0 and self.ops(name)[column] != "none"
            ]
        return self._genotype(cells)


def _even(fewest: int, most: int, rng: np.random.Generator) -> int:
    """From ``fewest`` in steps of two."""
    return int(fewest + 2 * rng.integers((most - fewest) // 2 + 1))


def levels_of(genotype: Genotype) -> dict[str, Any]:
    """Settings of a DARTS space of this genotype's cell types: nothing for the usual two."""
    names = set(genotype.types)
    if names == set(LEVEL_TYPES):
        return {"levels": 3}
    if not names & set(TYPES) and len(names) >= FEWEST_CELLS:
        return {"levels": "cell", "cells": len(names)}
    return {}


@dataclass(frozen=True, slots=True)
class _Published:
    """The usual DARTS form, as in ``cnn/genotypes.py`` of quark0/darts."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    normal: tuple[tuple[str, int], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[str, int], ...]
    reduce_concat: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _ByNode:
    """The same with the ops of each node in a list of their own."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    normal: tuple[tuple[tuple[str, int], ...], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[tuple[str, int], ...], ...]
    reduce_concat: tuple[int, ...]


def from_darts(data: Mapping[str, Any]) -> Genotype:
    """The usual DARTS form: ``{"normal": [[op, source], ...], "normal_concat": [...], "reduce": ..., ...}``.

    The flat list is read in pairs: pair n feeds node n + 2. In groups, ``[[[op, source], ...], ...]``, group n feeds
    node n + 2 with any number of ops. Raises InvalidGenotypeError with the path of the first fault.
    """
    by_node = any(_is_grouped(data.get(name)) for name in TYPES)
    published = parse_json(_ByNode, data) if by_node else parse_json(_Published, data)
    types = {}
    for name in TYPES:
        listed, concat = getattr(published, name), getattr(published, f"{name}_concat")
        groups = listed if by_node else _pairs(listed, name)
        edges = [Edge(INPUTS + n, source, op) for n, group in enumerate(groups) for op, source in group]
        types[name] = CellType(tuple(edges), INPUTS, len(groups), name == "reduce", "concat", concat)
        types[name].check(name)
    return Genotype("darts", types)


def _is_grouped(listed: Any) -> bool:
    """Whether any item is a list of ops, not an op."""
    lists = [item for item in listed if isinstance(item, list | tuple)] if isinstance(listed, list | tuple) else []
    return any(not item or isinstance(item[0], list | tuple) for item in lists)


def _pairs(ops: Sequence[tuple[str, int]], name: str) -> list[Sequence[tuple[str, int]]]:
    """Raises InvalidGenotypeError."""
    if not ops or len(ops) % FAN_IN:
        raise InvalidGenotypeError(
            f"'{name}' lists {len(ops)} ops; two for each node are needed, or a list for each node: "
            "[[[op, source], ...], ...]"
        )
    return [ops[start : start + FAN_IN] for start in range(0, len(ops), FAN_IN)]
