"""The cells that a search by MGAS begins with: every op on every edge, at full width, each position a type of its own.
No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from nas_core.architecture import CellType, Edge, Skeleton
from nas_core.errors import IncompatibleSpaceError, InvalidSettingsError
from nas_core.granularity.slots import KNOWN, Table, family
from nas_core.search import Relaxable


@runtime_checkable
class Granular(Relaxable, Protocol):
    """A space whose genotypes may carry widths of cells and of ops, and weight masks."""

    @property
    def filters(self) -> bool: ...
    @property
    def types(self) -> tuple[str, ...]: ...
    def cell(self, cell_type: str, edges: Sequence[Edge] = ()) -> CellType: ...


def tables_of(space: Granular) -> dict[str, Table]:
    """Slots by cell type, ``none`` left out: the absence of every op means no edge.

    Raises IncompatibleSpaceError for a space without widths, InvalidSettingsError for ops without gates of their own.
    """
    if not space.filters:
        raise IncompatibleSpaceError(
            "mgas needs cells with widths of their own, several ops on an edge and a type for each position; "
            "give the space filters: true, with fan_in: free and levels: cell"
        )
    tables = {name: Table(space.edges, tuple(op for op in space.ops(name) if op != "none")) for name in space.types}
    for name, table in tables.items():
        unknown = [op for op in table.ops if family(op) not in KNOWN]
        if unknown:
            raise InvalidSettingsError(
                f"mgas has no gates for op '{unknown[0]}' of cell '{name}'; use skips, pools, sep_conv and dil_conv"
            )
    return tables


def base_widths(types: Mapping[str, CellType], skeleton: Skeleton) -> dict[str, int]:
    """Channels of each cell by the skeleton's rule: twice as many from each reduction cell on."""
    width, found = skeleton.channels, {}
    for name in skeleton.cells:
        width *= 2 if types[name].reduction else 1
        found[name] = width
    return found


def full_types(space: Granular, skeleton: Skeleton) -> dict[str, CellType]:
    """Cells as they are searched: pools have no batch norm, and widths are written down."""
    cells = {name: space.cell(name) for name in skeleton.cells}
    widths = base_widths(cells, skeleton)
    found = {}
    for name, cell in cells.items():
        ops = [op for op in space.ops(name) if op != "none"]
        edges = tuple(Edge(target, source, op) for target, source in space.edges for op in ops)
        found[name] = replace(cell, edges=edges, pool_norm=False, width=widths[name])
    return found


def as_derived(types: Mapping[str, CellType], skeleton: Skeleton) -> dict[str, CellType]:
    """The same cells as they stand in a genotype: an affine batch norm behind pools."""
    return {name: replace(types[name], pool_norm=True) for name in skeleton.cells}


def first_cells(skeleton: Skeleton, end: int) -> Skeleton:
    """The stack up to and with position ``end``."""
    return replace(skeleton, cells=skeleton.cells[: end + 1])


def ends(cells: int, stages: int) -> tuple[int, ...]:
    """The last position of each stage: one before each reduction cell, and the last of all."""
    return (cells - 1,) if stages == 1 else (cells // 3 - 1, 2 * cells // 3 - 1, cells - 1)
