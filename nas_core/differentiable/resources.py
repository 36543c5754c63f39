"""Costs that are sums over the ops of a network, as tables that can be differentiated through.

Every exact objective is asked for networks that differ by one op: so parameters, multiply-adds and what a device's
profile predicts give tables of one shape, at the target's width and depth. Whether the sum holds is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_core.architecture import Architecture, Edge, Genotype, Skeleton
from nas_core.errors import InvalidSettingsError
from nas_core.parts import Laid
from nas_core.search import Objective, Problem, Relaxable
from nas_core.training import seed_of
from nas_core.valuing import exact_value

CHECKED = 8
"""Random networks on which a table must agree with its objective."""
TOLERANCE = 1e-6
"""Relative."""


@dataclass(frozen=True)
class AdditiveTable:
    """An objective of every network on one skeleton: ``constant + sum of entries`` of its edges, in its unit."""

    constant: float
    entries: Mapping[str, NDArray[np.float64]]
    """By cell type, (edges, ops): of all positions where the type stands."""

    def of(self, selection: Mapping[str, NDArray[np.bool_]]) -> float:
        """Of the network of the chosen ops."""
        return self.constant + sum(float(self.entries[name][chosen].sum()) for name, chosen in selection.items())


def additive_table(
    space: Relaxable, skeleton: Skeleton, key: str, objective: Objective, rng: np.random.Generator
) -> AdditiveTable:
    """Of an exact objective, by the difference that each op makes to a random network of the space.

    ``none`` costs nothing where a space's cells do not hold it. Raises InvalidSettingsError for an objective that is no
    sum over ops, MissingPartError for a profile that lacks one of them.
    """
    base = space.sample(rng)
    total = exact_value(key, objective, Architecture(base, skeleton)).value
    chosen = space.selection(base)
    entries = {name: np.zeros(there.shape) for name, there in chosen.items()}
    for name, differences in entries.items():
        written = space.layout()[1][name][1] if isinstance(space, Laid) else set(space.ops(name)) - {"none"}
        for row, (target, source) in enumerate(space.edges):
            for column, op in enumerate(space.ops(name)):
                if op in written:
                    more = _with(base, name, Edge(target, source, op))
                    value = exact_value(key, objective, Architecture(more, skeleton)).value
                    differences[row, column] = value - total
    table = AdditiveTable(total - sum(float(entries[name][there].sum()) for name, there in chosen.items()), entries)
    for _ in range(CHECKED):
        genotype = space.sample(rng)
        value = exact_value(key, objective, Architecture(genotype, skeleton)).value
        if abs(table.of(space.selection(genotype)) - value) > TOLERANCE * abs(value):
            raise InvalidSettingsError(
                f"resource: '{key}' is no sum over the ops of a network, so that it cannot be differentiated; use "
                "params, macs, or a predicted latency or energy"
            )
    return table


def _with(genotype: Genotype, cell_type: str, edge: Edge) -> Genotype:
    cell = genotype.types[cell_type]
    return replace(genotype, types={**genotype.types, cell_type: replace(cell, edges=(*cell.edges, edge))})


def resource_of(problem: Problem[Relaxable], key: str | None) -> str:
    """The objective of this key, or the first that follows from the architecture alone. Raises InvalidSettingsError."""
    exact = [name for name, objective in problem.axes.objectives.items() if objective.source == "exact"]
    if not exact or (key is not None and key not in exact):
        wanted = "none of the objectives" if key is None else f"'{key}' not one that"
        listed = ", ".join(exact) or "none"
        raise InvalidSettingsError(
            f"resource: {wanted} follows from the architecture alone, as params, macs and predicted costs do; this job "
            f"has of these: {listed}"
        )
    return exact[0] if key is None else key


class ExpectedCost:
    """What a network costs that has each op with the probability of its gate, at the first target.

    Only what the gates decide counts, as a multiple of what the even mixture costs: R(p) = sum(p * c) / sum(u * c) with
    table entries c and even gates u, over all edges. Where no edge ends as ``none``, the others' gates are scaled up to
    sum to 1: else raising ``none`` would lower the expectation and change nothing that is derived.
    """

    def __init__(self, problem: Problem[Relaxable], key: str) -> None:
        """Raises InvalidSettingsError for an objective that is no sum over ops."""
        space, objective = problem.space, problem.axes.objectives[key]
        rng = np.random.default_rng(seed_of(problem.seed, "cost table"))
        self.table = additive_table(space, problem.targets[0], key, objective, rng)
        self.counted: dict[str, Tensor] = {}
        """By cell type, (ops,): 0 for ``none`` where no edge ends so."""
        holds_none = getattr(space, "holds_none", False)
        even = 0.0
        for name, entries in self.table.entries.items():
            counted = np.array([op != "none" or holds_none for op in space.ops(name)], dtype=np.float64)
            even += float(entries.sum(axis=1).sum() / counted.sum())
            self.counted[name] = torch.tensor(counted, dtype=torch.float32, device=problem.device)
        if even <= 0:
            raise InvalidSettingsError(f"resource: '{key}' is the same for all networks of the space")
        self.entries = {
            name: torch.tensor(entries / even, dtype=torch.float32, device=problem.device)
            for name, entries in self.table.entries.items()
        }

    def __call__(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Of gates (edges, ops) by cell type; differentiable."""
        total = torch.zeros((), device=next(iter(gates.values())).device)
        for name, given in gates.items():
            counted = given * self.counted[name]
            total = total + (counted / counted.sum(dim=1, keepdim=True) * self.entries[name]).sum()
        return total
