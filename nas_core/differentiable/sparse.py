"""Differentiable sparse topology: EnTranNAS-DST (arXiv 2101.11342) as a survey restates it (arXiv 2304.05405)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 1 - 1e-6
"""Of a threshold: in float32 the sigmoid rounds to 1 from about 17 on, and a node would lose all inputs."""


def thresholds(beta: Tensor) -> Tensor:  # (nodes,) -> (nodes,), inside (0, 1)
    """t = sigmoid(beta), never 1."""
    return beta.sigmoid().clamp(max=LARGEST)


def sparse_gates(gates: Tensor, beta: Tensor, nodes: Sequence[Sequence[int]]) -> Tensor:
    """Equations 21 and 22: q = ReLU(p / max p - t), where the maximum is of all edges into a node, then divided by the
    sum over an edge's ops. (edges, ops), (nodes,) -> (edges, ops); ``nodes``: rows of the edges into each node.

    Every node keeps its strongest op; an edge's rows sum to 1, or to 0 where none is left; an edge with one op left has
    exactly 1 there.
    """
    t = thresholds(beta)
    rows: list[Tensor] = [gates[0]] * len(gates)
    for place, edges in enumerate(nodes):
        strongest = gates[list(edges)].amax()
        for row in edges:
            rows[row] = F.relu(gates[row] / strongest - t[place])
    q = torch.stack(rows)
    total = q.sum(dim=1, keepdim=True)
    return q / torch.where(total > 0, total, torch.ones_like(total))


def sparsity(betas: Sequence[Tensor]) -> Tensor:
    """-(1 / m) * sum of log sigmoid(beta) over all m thresholds: what raises all of them, ever less (inferred)."""
    return -torch.cat([F.logsigmoid(beta) for beta in betas]).mean()
