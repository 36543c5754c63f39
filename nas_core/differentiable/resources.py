"""What a mixture of ops is expected to cost, differentiable, at the target's width and depth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nas_core.additive import AdditiveTable, additive_table, summed
from nas_core.architecture import Skeleton
from nas_core.errors import InvalidSettingsError
from nas_core.search import Objective, Problem, Relaxable, derivable
from nas_core.training import seed_of
from nas_core.valuing import exact_value


def table_of(
    space: Relaxable, skeleton: Skeleton, key: str, objective: Objective, rng: np.random.Generator
) -> AdditiveTable:
    """Of an exact objective. Raises InvalidSettingsError for one that is no sum over ops, MissingPartError for a
    profile that lacks one of them.
    """
    return additive_table(
        space, skeleton, key, objective, lambda network: exact_value(key, objective, network).value, rng
    )


def resource_of(problem: Problem[Relaxable], key: str | None) -> str:
    """The objective of this key, or the first that is a sum over ops. Raises InvalidSettingsError."""
    costs = summed(problem.axes.objectives)
    if not costs or (key is not None and key not in costs):
        wanted = "none of the objectives is" if key is None else f"'{key}' is not"
        listed = ", ".join(costs) or "none"
        raise InvalidSettingsError(
            f"resource: {wanted} a cost that adds up over ops, as params, macs and predicted costs do; this job has of "
            f"these: {listed}"
        )
    return costs[0] if key is None else key


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
        self.table = table_of(space, problem.targets[0], key, objective, rng)
        self.counted: dict[str, Tensor] = {}
        """By cell type, (ops,): 0 for ``none`` where no edge ends so."""
        even = 0.0
        for name, entries in self.table.entries.items():
            counted = derivable(space, name).astype(np.float64)
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
