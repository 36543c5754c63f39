"""Costs that are sums over the ops of a network, as tables of one shape: parameters, multiply-adds, and what a device's
profile predicts of time or energy. No torch.

A table is taken at the target's width and depth. What counts a resource has its table from the space; of any other
objective, networks that differ by one op are asked for, and random ones tell whether the sum holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import Architecture, Edge, Genotype, Skeleton
from nas_core.costs import PRE
from nas_core.errors import InvalidSettingsError
from nas_core.parts import Laid
from nas_core.search import Objective, Relaxable

Logits = Mapping[str, NDArray[np.float64]]
"""(edges, ops) by cell type, (inputs, ops) of what prepares its inputs."""
Selection = Mapping[str, NDArray[np.bool_]]
CHECKED = 8
"""Random networks on which a table must agree with its objective."""
TOLERANCE = 1e-6
"""Relative."""


@dataclass(frozen=True)
class AdditiveTable:
    """An objective of every network on one skeleton: ``constant + sum of entries`` of its ops, in its unit."""

    constant: float
    entries: Logits
    """Of all positions where the type stands; of ops that stand in no genotype 0."""

    def of(self, selection: Selection) -> float:
        """Of the network of the chosen ops."""
        return self.constant + sum(float(self.entries[name][chosen].sum()) for name, chosen in selection.items())


def additive_table(
    space: Relaxable,
    skeleton: Skeleton,
    key: str,
    objective: Objective,
    value: Callable[[Architecture], float],
    rng: np.random.Generator,
) -> AdditiveTable:
    """Of an exact objective, whose ``value`` of a network is asked for where the space's own table does not do.

    Raises InvalidSettingsError for an objective that is no sum over ops, MissingPartError for a profile that lacks one
    of them.
    """
    resource, scale = getattr(objective, "resource", None), getattr(objective, "scale", None)
    if resource is not None and scale is not None:
        counted = space.cost_table(skeleton, resource)
        entries = {name: scale * costs.astype(np.float64) for name, costs in counted.entries.items()}
        table = AdditiveTable(float(scale * counted.constant), entries)
    else:
        table = _by_differences(space, skeleton, value, rng)
    for _ in range(CHECKED):
        genotype = space.sample(rng)
        found = value(Architecture(genotype, skeleton))
        if abs(table.of(space.selection(genotype)) - found) > TOLERANCE * abs(found):
            raise InvalidSettingsError(
                f"'{key}' is no sum over the ops of a network, so that a search cannot look ahead to it; use "
                "params, macs, or a predicted latency or energy"
            )
    return table


def summed(objectives: Mapping[str, Objective]) -> list[str]:
    """Keys of those that may have a table: exact, and none that says it is no sum over ops."""
    return [key for key, each in objectives.items() if each.source == "exact" and getattr(each, "additive", True)]


def _by_differences(
    space: Relaxable, skeleton: Skeleton, value: Callable[[Architecture], float], rng: np.random.Generator
) -> AdditiveTable:
    """By what each op changes in one network; of several ways to prepare an input, over the cheapest."""
    base = space.sample(rng)
    chosen = space.selection(base)
    total = value(Architecture(base, skeleton))
    entries = {name: np.zeros(there.shape) for name, there in chosen.items()}
    for name, differences in entries.items():
        for row, column, other in _variants(space, base, name):
            differences[row, column] = value(Architecture(other, skeleton)) - total
        if name.endswith(PRE):
            np.subtract(differences, differences.min(axis=1, keepdims=True), out=differences)
    return AdditiveTable(total - sum(float(entries[name][there].sum()) for name, there in chosen.items()), entries)


def _variants(space: Relaxable, base: Genotype, name: str) -> list[tuple[int, int, Genotype]]:
    """The network with one op more, or an input prepared in another way: (row, column, network)."""
    kind = name.removesuffix(PRE)
    cell = base.types[kind]
    if name.endswith(PRE):
        pairs = ((place, column, op) for place in range(cell.inputs) for column, op in enumerate(space.ops(name)))
        return [
            (place, column, _with(base, kind, pre=(*cell.pre[:place], op, *cell.pre[place + 1 :])))
            for place, column, op in pairs
        ]
    written = space.layout()[1][name][1] if isinstance(space, Laid) else set(space.ops(name)) - {"none"}
    return [
        (row, column, _with(base, kind, edges=(*cell.edges, Edge(target, source, op))))
        for row, (target, source) in enumerate(space.edges)
        for column, op in enumerate(space.ops(name))
        if op in written
    ]


def _with(genotype: Genotype, cell_type: str, **changed: Any) -> Genotype:
    return replace(genotype, types={**genotype.types, cell_type: replace(genotype.types[cell_type], **changed)})
