"""The plain supernet: the truth that faster executors are tested against.

``supernet(x, gates, active)``: ``gates[type]`` is a tensor (edges, ops) of mixing weights, ``active[type]`` a host-side
boolean array of the same shape. What is not active is not computed, and its weights get no gradient (``grad is
None``), so that an optimiser neither decays nor moves them. A gate's value never decides that: an active op with gate
0 is computed and has a gradient. Dense softmax gates make DARTS; one active op per edge without gates a sampled path.
Where cells of one type differ, both are lists with an entry for each position instead: EnTranNAS' few Engine cells are
dense with gates, all others a selection.

Where the preprocessing of a type's inputs is searched (``connections``), ``gates[type + PRE]`` and ``active[type +
PRE]`` say the same of it, (inputs, ops).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_core.architecture import CellType, Skeleton
from nas_core.costs import PRE, Site, sites
from nas_core.devices import moved
from nas_core.network import Cell
from nas_core.ops import SEARCH_NORM, make_op, prepare
from nas_core.stem import Stem, classifier

Layout = Mapping[str, tuple[CellType, Sequence[tuple[int, int]], Sequence[str]]]
"""By cell type: the cell (its edges are ignored), edges as (target, source), ops."""
Selection = Mapping[str, NDArray[np.bool_]]
"""By cell type: (edges, ops), on the host."""
Gates = Mapping[str, Tensor] | Sequence[Tensor | None]
"""(edges, ops) by cell type, or for each position; None: ops are summed as they are."""
Active = Selection | Sequence[NDArray[np.bool_] | None]
"""(edges, ops) by cell type, or for each position; None: every op."""
T = TypeVar("T")


class SupernetCell(nn.Module):
    """A cell with every op on every edge; with shared features one op instance per source instead of per edge."""

    def __init__(
        self,
        site: Site,
        cell: CellType,
        edges: Sequence[tuple[int, int]],
        ops: Sequence[str],
        share_features: bool,
        pool_norm: bool,
        connections: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.cell_type = site.type
        self.inputs, self.nodes = cell.inputs, cell.nodes
        self.concat = cell.concat if cell.combine == "concat" else None
        self.edges, self.names = tuple(edges), tuple(ops)
        self.rows = {
            node: [row for row, (target, _) in enumerate(self.edges) if target == node]
            for node in range(cell.inputs, cell.inputs + cell.nodes)
        }
        self.share_features = share_features
        self.connections = tuple(connections)
        """Ops that may prepare an input; empty: the cell's own do."""
        self.pre = nn.ModuleList(
            nn.ModuleList(prepare(op, channels, site.channels, stride, SEARCH_NORM) for op in connections)
            if connections
            else prepare(op, channels, site.channels, stride, SEARCH_NORM)
            for op, (channels, stride) in zip(cell.pre, site.inputs, strict=True)
        )
        self.ops = nn.ModuleDict()
        for row, (_, source) in enumerate(self.edges):
            for column, name in enumerate(self.names):
                key = self._key(row, column)
                if name != "none" and key not in self.ops:
                    width, stride = site.width(cell, source), site.stride(cell, source)
                    self.ops[key] = make_op(
                        name, width, stride, SEARCH_NORM, pool_norm=pool_norm, outputs=site.channels
                    )
        self._empty = (site.channels, *site.size_out)
        self.skip_dropout = 0.0
        self.generator: torch.Generator | None = None
        self.executor: Executor | None = None
        """Runs the cell instead of ``forward``, with the same result."""

    def _key(self, row: int, column: int) -> str:
        """Where the op of an edge lives in ``ops``."""
        return f"source{self.edges[row][1]}_{column}" if self.share_features else f"edge{row}_{column}"

    def forward(
        self,
        before: Sequence[Tensor],
        gates: Tensor | None,
        active: NDArray[np.bool_] | None,
        pre_gates: Tensor | None = None,
        pre_active: NDArray[np.bool_] | None = None,
    ) -> Tensor:  # inputs, (edges, ops), (edges, ops), (inputs, ops), (inputs, ops) -> (N, C', H', W')
        if self.executor is not None and not self.connections:
            return self.executor(self, before, gates, active)
        if self.connections:
            states = [self._prepared(place, x, pre_gates, pre_active) for place, x in enumerate(before)]
        else:
            states = [pre(x) for pre, x in zip(self.pre, before, strict=True)]
        weights = None if gates is None else gates.flatten().unbind()
        features: dict[str, Tensor] = {}
        for node in range(self.inputs, self.inputs + self.nodes):
            total: Tensor | None = None
            for row in self.rows[node]:
                for column, name in enumerate(self.names):
                    if name == "none" or (active is not None and not active[row, column]):
                        continue
                    key = self._key(row, column)
                    if key not in features:
                        features[key] = self._feature(self.ops[key], states[self.edges[row][1]])
                    out = features[key]
                    if weights is not None:
                        out = out * weights[row * len(self.names) + column]
                    total = out if total is None else total + out
            if total is None:  # no active input
                total = states[0].new_zeros((states[0].shape[0], *self._empty))
            states.append(total)
        return states[-1] if self.concat is None else torch.cat([states[node] for node in self.concat], dim=1)

    def _prepared(self, place: int, x: Tensor, gates: Tensor | None, active: NDArray[np.bool_] | None) -> Tensor:
        """One input, by the mixture of what may prepare it."""
        total: Tensor | None = None
        ways = self.pre[place]
        assert isinstance(ways, nn.ModuleList)
        for column, op in enumerate(ways):
            if active is not None and not active[place, column]:
                continue
            out = op(x) if gates is None else op(x) * gates[place, column]
            total = out if total is None else total + out
        assert total is not None, "an input is prepared in some way"
        return total

    def _feature(self, op: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = op(x)
        if self.skip_dropout > 0 and isinstance(op, nn.Identity):
            keep = 1.0 - self.skip_dropout
            mask = torch.rand(out.shape, generator=self.generator) < keep
            out = out * (moved(mask, out.device, out.dtype) / keep)
        return out


Executor = Callable[[SupernetCell, Sequence[Tensor], Tensor | None, NDArray[np.bool_] | None], Tensor]
"""What ``SupernetCell.forward`` takes and gives, of the cell it is handed."""


class Supernet(nn.Module):
    """Cells of all ops on a skeleton. Batch norm always uses batch statistics; cells have no affine parameters."""

    def __init__(
        self,
        layout: Layout,
        skeleton: Skeleton,
        *,
        share_features: bool = False,
        fixed: Mapping[str, CellType] | None = None,
        pool_norm: bool = True,
        connections: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """``fixed``: cell types of the stack that have nothing to choose. ``pool_norm``: a batch norm behind pools.
        ``connections``: by type, the ops that may prepare an input, where that is searched.
        """
        super().__init__()
        fixed, ways = fixed or {}, connections or {}
        self.skeleton = skeleton
        self.shapes = {name: (len(edges), len(ops)) for name, (_, edges, ops) in layout.items()}
        """(edges, ops) of each type's gates, (inputs, ops) of those of its preprocessing."""
        self.shapes |= {name + PRE: (layout[name][0].inputs, len(ops)) for name, ops in ways.items()}
        where = sites({name: cell for name, (cell, _, _) in layout.items()} | dict(fixed), skeleton)
        self.stem = Stem(skeleton, track=False)
        self.cells = nn.ModuleList(
            Cell(site, fixed[site.type], SEARCH_NORM)
            if site.type in fixed
            else SupernetCell(
                site,
                *layout[site.type],
                share_features=share_features,
                pool_norm=pool_norm,
                connections=ways.get(site.type, ()),
            )
            for site in where
        )
        self.classifier = classifier(skeleton, where[-1].outputs, track=False)

    def drop_skips(self, rate: float, generator: torch.Generator | None = None) -> None:
        """From now on, dropout behind skip connections that are identities (P-DARTS, arXiv 1904.12760, section 3.3);
        ``generator`` is on the host.
        """
        for cell in self.cells:
            if isinstance(cell, SupernetCell):
                cell.skip_dropout, cell.generator = rate, generator

    def by_position(self, given: Mapping[str, T] | Sequence[T | None] | None) -> Sequence[T | None]:
        """What gates or a selection say of each cell; None of those that have nothing to choose."""
        if given is None:
            return [None] * len(self.cells)
        if not isinstance(given, Mapping):
            return given
        return [given[name] if name in self.shapes else None for name in self.skeleton.cells]

    def forward(
        self, x: Tensor, gates: Gates | None = None, active: Active | None = None
    ) -> Tensor:  # (N, C, H, W) -> (N, classes)
        states = self.stem(x)
        for cell, weights, chosen in zip(self.cells, self.by_position(gates), self.by_position(active), strict=True):
            assert isinstance(cell, SupernetCell | Cell)
            before = states[-cell.inputs :]
            if isinstance(cell, Cell):
                out = cell(before, 0.0, None)
            elif cell.connections:
                out = cell(before, weights, chosen, *_prepared_by(cell.cell_type + PRE, gates, active))
            else:
                out = cell(before, weights, chosen)
            states = [states[-1], out]
        logits: Tensor = self.classifier(states[-1])
        return logits


def _prepared_by(
    key: str, gates: Gates | None, active: Active | None
) -> tuple[Tensor | None, NDArray[np.bool_] | None]:
    """Gates and selection of what prepares the inputs of a type. Raises TypeError for those of single positions."""
    if isinstance(gates, Sequence) or isinstance(active, Sequence):
        raise TypeError("connections are chosen by cell type, not by position")
    return None if gates is None else gates[key], None if active is None else active[key]
