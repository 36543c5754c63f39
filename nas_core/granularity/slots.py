"""Where ops stand in the cells of a search by MGAS, and what of them is searched. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import CellType, Edge
from nas_core.costs import FAMILIES

CONVOLUTIONS = ("sep", "dil")
"""Families of ops whose filters and weights are searched."""
KNOWN = (*CONVOLUTIONS, "skip", "avg", "max")
"""Families of ops that can stand in these cells."""
Slot = tuple[int, int, str]
"""Target, source and op."""


def family(op: str) -> str:
    return FAMILIES[op][0]


def is_convolution(op: str) -> bool:
    """Whether it has filters and weights that are searched."""
    return family(op) in CONVOLUTIONS


def slot_of(edge: Edge) -> Slot:
    return edge.target, edge.source, edge.op


@dataclass(frozen=True)
class Levels:
    """Which of the finer levels are searched; that of ops always is."""

    filters: bool = True
    weights: bool = True


@dataclass(frozen=True)
class Table:
    """The slots of a cell: rows are edges (target, source), columns ops."""

    edges: tuple[tuple[int, int], ...]
    ops: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.edges), len(self.ops)

    def place(self, slot: Slot) -> tuple[int, int]:
        return self.edges.index((slot[0], slot[1])), self.ops.index(slot[2])

    def slot(self, row: int, column: int) -> Slot:
        return (*self.edges[row], self.ops[column])

    def convolutions(self) -> NDArray[np.bool_]:
        """(ops,)"""
        return np.array([is_convolution(op) for op in self.ops])

    def of(self, cell: CellType) -> NDArray[np.bool_]:
        """(edges, ops): which slots the cell uses."""
        used = np.zeros(self.shape, dtype=bool)
        for edge in cell.edges:
            used[self.place(slot_of(edge))] = True
        return used


def filter_names(cell: CellType, strided: bool) -> dict[str, Slot | int]:
    """Sets of filters of a cell by name, with the op or the input they belong to; ``strided``: whether skips from
    inputs have filters.
    """
    names: dict[str, Slot | int] = {f"pre.{place}": place for place in range(cell.inputs)}
    for edge in cell.edges:
        name = name_of(slot_of(edge))
        if family(edge.op) == "sep":
            names[f"{name}.middle"] = slot_of(edge)
        if is_convolution(edge.op) or (family(edge.op) == "skip" and strided and edge.source < cell.inputs):
            names[f"{name}.output"] = slot_of(edge)
    return names


def name_of(slot: Slot) -> str:
    return f"{slot[0]}.{slot[1]}.{slot[2]}"
