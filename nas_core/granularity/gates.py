"""Gates, thresholds and committed masks of a network, at three levels: ops, filters, weights (MGAS, arXiv 2310.15074).

A unit's score q (sigmoid of alpha for an op, of beta for a filter; the magnitude of a weight) stands against a learned
threshold t: the unit takes part where q > t and its committed mask is 1. What falls below between two commits may come
back; a commit makes it final. Alpha and thresholds are tables (edges, ops) of every slot a cell has, used or not; betas
and masks are by name, of what is there alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_core.architecture import CellType
from nas_core.granularity.slots import Levels, Slot, Table, filter_names, is_convolution
from nas_core.granularity.step import step


class CellGates:
    """Of one cell. Everything that learns is a leaf tensor on the device."""

    def __init__(
        self,
        cell: CellType,
        table: Table,
        widths: Mapping[str, int],
        levels: Levels,
        device: torch.device,
    ) -> None:
        """``widths``: number of filters by the names of ``filter_names``. All scores begin at a half, all thresholds at
        0.
        """
        self.cell, self.table, self.levels = cell, table, levels
        self.names = filter_names(cell, cell.reduction)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=device, requires_grad=True)

        self.alpha = zeros(*table.shape)
        self.operation, self.filter, self.weight = (zeros(*table.shape) for _ in range(3))
        """Thresholds of slots."""
        self.inputs = zeros(cell.inputs)
        """Thresholds of the filters that bring the inputs to the cell's channels."""
        self.beta: dict[str, Tensor] = {}
        self.filters: dict[str, Tensor] = {}
        """Committed masks of filters, (channels,), by the same names."""
        if levels.filters:
            self.beta = {name: zeros(widths[name]) for name in self.names}
            self.filters = {name: torch.ones(widths[name], dtype=torch.bool, device=device) for name in self.names}
            self.sizes = [widths[name] for name in self.names]
            counts = torch.tensor(self.sizes, device=device)
            free = torch.tensor([0.0 if self.asked(name) else 1.0 for name in self.names], device=device)
            self.free = free.repeat_interleave(counts)
            """1 for filters without a threshold."""
            places = torch.tensor([self._place(name) for name in self.names], device=device)
            self.places = places.repeat_interleave(counts)
        self.commit_ops(table.of(cell))

    # --- ops ----------------------------------------------------------------------------------------------------

    def commit_ops(self, alive: NDArray[np.bool_]) -> None:
        """Takes these (edges, ops) for the committed mask of ops."""
        device = self.alpha.device
        self.alive = alive
        targets = np.array([target for target, _ in self.table.edges])
        last = np.zeros(self.table.shape, dtype=bool)
        for target in np.unique(targets):
            there = np.argwhere(alive & (targets == target)[:, None])
            if len(there):
                last[tuple(there[-1])] = True
        same = targets[:, None] == targets[None, :]
        self.mask = torch.from_numpy(alive.astype(np.float32)).to(device)
        """The same on the device, float32."""
        self.last = torch.from_numpy(last.astype(np.float32)).to(device)
        """Of each node the op that is asked last."""
        self.together = torch.from_numpy(same.astype(np.float32)).to(device)
        """(edges, edges): whether they end in one node."""
        self.convolutions = self.mask * torch.from_numpy(self.table.convolutions().astype(np.float32)).to(device)

    def is_convolution(self, column: int) -> bool:
        return is_convolution(self.table.ops[column])

    def scores(self) -> Tensor:
        """(edges, ops): of ops; 0 of those that are gone."""
        return self.alpha.sigmoid() * self.mask

    def operations(self) -> Tensor:
        """(edges, ops): provisional mask of ops. They are asked in turn; one that would be the last of its node stays
        whatever its score.
        """
        kept = step(self.alpha.sigmoid() - self.operation) * self.mask
        with torch.no_grad():
            alone = (self.together @ kept.sum(dim=1) == 0).to(kept.dtype)
            spared = self.last * alone[:, None]
        return kept + spared

    # --- filters and weights ------------------------------------------------------------------------------------

    def asked(self, name: str) -> bool:
        """Whether a set of filters has a threshold. Those of skips that stride have none: the code of MGAS takes their
        committed masks alone.
        """
        belongs = self.names[name]
        return isinstance(belongs, int) or is_convolution(belongs[2])

    def _thresholds(self) -> Tensor:
        """Of every filter of the cell, in the order of ``beta``."""
        return torch.cat([self.inputs, self.filter.flatten()])[self.places]

    def _place(self, name: str) -> int:
        """Where the threshold of a set of filters stands: those of inputs before those of slots."""
        belongs = self.names[name]
        if isinstance(belongs, int):
            return belongs
        row, column = self.table.place(belongs)
        return len(self.inputs) + row * len(self.table.ops) + column

    def factors(self, provisional: bool) -> dict[str, Tensor]:
        """By name, (channels,): soft gate times mask; nothing where filters are not searched."""
        if not self.levels.filters:
            return {}
        scores = torch.cat(list(self.beta.values())).sigmoid()
        mask = torch.cat(list(self.filters.values())).to(scores.dtype)
        if provisional:
            free = self.free
            mask = mask * (free + (1 - free) * step(scores - self._thresholds()))
        return dict(zip(self.beta, torch.split(scores * mask, self.sizes), strict=True))

    def filter_masks(self) -> dict[str, Tensor]:
        """By name, (channels,), bool: provisional masks."""
        scores = torch.cat(list(self.beta.values())).sigmoid()
        alive = (self.free > 0) | (scores > self._thresholds())
        masks = zip(self.filters.items(), torch.split(alive, self.sizes), strict=True)
        return {name: mask & above for (name, mask), above in masks}

    def weight_mask(self, weight: Tensor, slot: Slot) -> Tensor:
        """Provisional, bool, of a kernel of a convolution, without its committed mask."""
        return weight.abs() > self.weight[self.table.place(slot)]

    # --- what learns --------------------------------------------------------------------------------------------

    def scored(self) -> dict[str, Tensor]:
        """Alpha and betas, by name."""
        return {"alpha": self.alpha, **{f"beta.{name}": beta for name, beta in self.beta.items()}}

    def coarse(self) -> dict[str, Tensor]:
        """Thresholds of ops and filters."""
        return {"operation": self.operation, "filter": self.filter, "inputs": self.inputs}

    def every(self) -> dict[str, Tensor]:
        return {**self.scored(), **self.coarse(), "weight": self.weight}

    # --- safe points --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "learnt": {name: tensor.detach() for name, tensor in self.every().items()},
            "filters": dict(self.filters),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self.every().items():
                tensor.copy_(state["learnt"][name])
            for name, mask in self.filters.items():
                mask.copy_(state["filters"][name])


def reset_thresholds(gates: Sequence[CellGates]) -> None:
    """To 0, as at the start of every phase."""
    with torch.no_grad():
        for cell in gates:
            for threshold in (cell.operation, cell.filter, cell.inputs, cell.weight):
                threshold.zero_()
