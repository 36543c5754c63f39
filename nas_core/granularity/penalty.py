"""What is added to the loss of a search by MGAS (arXiv 2310.15074, by its code): a term of the ops that are alive and
one that raises thresholds (exp(-t), Dynamic Sparse Training).

The code counts a node's ops at the wrong edges for the last two nodes; here they are those that enter it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas_core.granularity.gates import CellGates


def ops_term(cells: Sequence[CellGates], costs: Sequence[Tensor] = (), by_cost: float = 0.0) -> Tensor:
    """The sum over alive ops of ``log(1 + n score / S) (1 + by_cost cost)``; n: how many enter the node, S: the sum of
    their scores. ``costs``: (edges, ops) of each cell.
    """
    total = torch.zeros((), device=cells[0].alpha.device)
    for place, cell in enumerate(cells):
        scores = cell.scores()
        sums = cell.together @ scores.sum(dim=1, keepdim=True)
        count = cell.together @ cell.mask.sum(dim=1, keepdim=True)
        term = torch.log1p(count * scores / sums) * cell.mask
        total = total + (term if not by_cost else term * (1 + by_cost * costs[place])).sum()
    return total


def thresholds_term(cells: Sequence[CellGates]) -> Tensor:
    """The sum of exp(-t) over the thresholds of alive ops, of convolutions those of filters and weights too, and over
    those of what brings the inputs to a cell's channels."""
    total = torch.zeros((), device=cells[0].alpha.device)
    for cell in cells:
        total = total + (torch.exp(-cell.operation) * cell.mask).sum()
        if cell.levels.filters:
            total = total + (torch.exp(-cell.filter) * cell.convolutions).sum() + torch.exp(-cell.inputs).sum()
        if cell.levels.weights:
            total = total + (torch.exp(-cell.weight) * cell.convolutions).sum()
    return total
