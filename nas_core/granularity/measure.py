"""What a search by MGAS holds its network to: parameters or multiply-adds of the network that would be exported now,
the paper's own measure, what is predicted by parts (latency and energy), or an additive table.

All are sums over the ops of a network. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from nas_core.additive import AdditiveTable
from nas_core.architecture import CellType, Edge, Skeleton, least_width
from nas_core.costs import (
    FAMILIES,
    RESOURCES,
    Cost,
    Resource,
    Site,
    cell_constant,
    classifier_cost,
    edge_cost,
    sites,
    stem_cost,
)
from nas_core.granularity.layout import Granular, as_derived, full_types
from nas_core.granularity.slots import Slot, Table, slot_of
from nas_core.parts import ADD, Part, around_parts, cell_parts, op_parts
from nas_core.predicted import Predicted
from nas_core.search import Objective


@dataclass(frozen=True)
class Filters:
    """Of a convolution: how many filters its masks leave, and how many there are."""

    middle: int
    middle_all: int
    output: int


class Measure(Protocol):
    """``op`` of each op, ``cell`` of each cell and ``around`` of what stands around them add up to a network's."""

    def op(self, site: Site, cell: CellType, edge: Edge, filters: Filters) -> float: ...
    def cell(self, site: Site, cell: CellType) -> float: ...
    def around(self, skeleton: Skeleton, last: Site) -> float: ...


@dataclass(frozen=True)
class Published:
    """The paper's own (its code calls it FLOPs): weights of separable and dilated convolutions by the filters that
    their masks leave. Not counted: norms, stem, preprocessing, classifier, weight masks, and (here) strided skips.
    """

    def op(self, site: Site, cell: CellType, edge: Edge, filters: Filters) -> float:
        kind, kernel = FAMILIES[edge.op]
        width, area = site.channels, kernel**2
        if kind == "sep":
            return float(width * (area + filters.middle) + area * filters.middle + filters.middle_all * filters.output)
        return float(width * (area + filters.output)) if kind == "dil" else 0.0

    def cell(self, site: Site, cell: CellType) -> float:
        return 0.0

    def around(self, skeleton: Skeleton, last: Site) -> float:
        return 0.0


@dataclass(frozen=True)
class Counted:
    """Exactly what the exported network has, in one resource or a whole multiple of it."""

    resource: Resource
    scale: int = 1

    def _of(self, cost: Cost) -> float:
        return float(self.scale * getattr(cost, self.resource))

    def op(self, site: Site, cell: CellType, edge: Edge, filters: Filters) -> float:
        return self._of(edge_cost(site, cell, edge))

    def cell(self, site: Site, cell: CellType) -> float:
        return self._of(cell_constant(site, cell))

    def around(self, skeleton: Skeleton, last: Site) -> float:
        return self._of(stem_cost(skeleton) + classifier_cost(skeleton, last))


@dataclass(frozen=True)
class Tabled:
    """An additive table of full widths. An op of fewer filters has its entry's share: that of its multiply-adds, or of
    its channels where it has none.
    """

    table: AdditiveTable
    tables: Mapping[str, Table]
    columns: Mapping[str, Sequence[str]]
    """Ops of the table's columns by cell type."""
    base: Mapping[str, int]
    """Full widths by cell type."""

    def op(self, site: Site, cell: CellType, edge: Edge, filters: Filters) -> float:
        row = self.tables[site.type].edges.index((edge.target, edge.source))
        entry = float(self.table.entries[site.type][row, self.columns[site.type].index(edge.op)])
        full = self.base[site.type]
        if site.channels == full and edge.width in (None, full):
            return entry
        before = edge_cost(replace(site, channels=full), replace(cell, width=full), replace(edge, width=None)).macs
        now = edge_cost(site, cell, edge).macs
        return entry * (now / before if before else site.channels / full)

    def cell(self, site: Site, cell: CellType) -> float:
        return 0.0

    def around(self, skeleton: Skeleton, last: Site) -> float:
        return self.table.constant


@dataclass(frozen=True)
class ByParts:
    """What is predicted of the network that would be exported now, part by part."""

    objective: Predicted

    def op(self, site: Site, cell: CellType, edge: Edge, filters: Filters) -> float:
        return self.objective.of_parts(op_parts(site, cell, edge))

    def cell(self, site: Site, cell: CellType) -> float:
        first = Part(ADD, site.channels, site.channels, site.size_out)  # nothing to add it to
        return self.objective.of_parts(cell_parts(site, cell)) - cell.nodes * self.objective.of_parts([first])

    def around(self, skeleton: Skeleton, last: Site) -> float:
        return self.objective.of_parts(around_parts(skeleton, last)) + self.objective.constant


Kept = Mapping[tuple[str, Slot], Filters]
"""By cell type and op; what is not there has all the filters of its width."""


def total(
    measure: Measure, types: Mapping[str, CellType], skeleton: Skeleton, whole: bool, kept: Kept | None = None
) -> float:
    """Of the cells of ``types`` on ``skeleton``; ``whole``: with what stands around them."""
    where = sites(types, skeleton)
    cost = measure.around(skeleton, where[-1]) if whole else 0.0
    for site in where:
        cell = types[site.type]
        cost += measure.cell(site, cell)
        for edge in cell.edges:
            filters = (kept or {}).get((site.type, slot_of(edge)))
            cost += measure.op(site, cell, edge, filters or all_filters(site, edge))
    return cost


def all_filters(site: Site, edge: Edge) -> Filters:
    """Of an op that keeps them all."""
    middle = edge.width or site.channels
    return Filters(middle, middle, site.channels)


def smallest(measure: Measure, full: Mapping[str, CellType], skeleton: Skeleton, filters: bool) -> dict[str, CellType]:
    """The cells of least cost that pruning can come to: one op a node, and where filters go half of the width in all
    cells but the last.
    """
    halved = {
        name: replace(
            cell, width=least_width(cell.width or 0) if filters and name != skeleton.cells[-1] else cell.width
        )
        for name, cell in full.items()
    }
    found = {}
    for site in sites(halved, skeleton):
        cell = halved[site.type]
        costs = {edge: measure.op(site, cell, edge, all_filters(site, edge)) for edge in cell.edges}
        cheapest = [
            min(cell.into(node), key=costs.__getitem__) for node in range(cell.inputs, cell.inputs + cell.nodes)
        ]
        found[site.type] = replace(cell, edges=tuple(cheapest))
    return found


PUBLISHED = "published"
"""By its name in jobs."""


BY_NAME: Mapping[str, Measure] = {**{resource: Counted(resource) for resource in RESOURCES}, PUBLISHED: Published()}
"""Those that need no objective."""


def measure_of(objective: Objective) -> Measure | None:
    """What counts a resource, or predicts by parts; None of others."""
    if isinstance(objective, Predicted):
        return ByParts(objective)
    resource, scale = getattr(objective, "resource", None), getattr(objective, "scale", None)
    return None if resource is None or scale is None else Counted(resource, scale)


def reachable(
    measure: Measure, space: Granular, skeleton: Skeleton, target: Skeleton, filters: bool
) -> tuple[float, float]:
    """Costs on ``target`` of the smallest network that pruning can come to, and of the full one, of cells as wide as
    those of ``skeleton``. Raises MissingPartError where a profile does not know one of them.
    """
    full = as_derived(full_types(space, skeleton), skeleton)
    least = smallest(measure, full, target, filters)
    return total(measure, least, target, whole=True), total(measure, full, target, whole=True)
