"""A policy over one op for each edge, learnt from rewards alone (REINFORCE, Williams 1992).

As in TND-NAS (arXiv 2111.03892, and its first author's code): architectures are drawn straight from the softmax of
alpha, without a controller; the gradient is the mean over a step's samples of (reward - baseline) * (p - onehot), which
on each edge is the gradient of -log p; it is clipped, and Adam steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Columns = Mapping[str, NDArray[np.intp]]
"""By cell type, (edges,): the op of each edge."""
Shapes = Mapping[str, tuple[int, int]]

START = 1e-3
"""Standard deviation of alpha's first values."""
CLIP = 5.0
NEW_SHARE = 0.95
"""Of the mean reward of a step in the baseline; what was there before keeps the rest."""


def strongest(
    strengths: Mapping[str, NDArray[np.float64]],
    left: Mapping[str, NDArray[np.bool_]],
    keep: Mapping[str, int],
    derivable: Mapping[str, NDArray[np.bool_]],
) -> dict[str, NDArray[np.bool_]]:
    """Of the ops ``left`` on each edge (edges, ops) the strongest, as many as ``keep`` says for the cell type; ties go
    to the first.

    ``derivable`` (ops,) by type: what a derived cell may have on an edge. Where none of the strongest is among that,
    the strongest that is takes the place of the last of them: an edge whose only op is never derived would have one
    that it has dropped.
    """
    found = {}
    for name, weights in strengths.items():
        found[name] = np.zeros_like(left[name])
        for row, usable in enumerate(map(np.flatnonzero, left[name])):
            order = usable[np.argsort(-weights[row, usable], kind="stable")]
            best = order[: keep[name]]
            of_use = order[derivable[name][order]]
            if len(of_use) and not derivable[name][best].any():
                best[-1] = of_use[0]
            found[name][row, best] = True
    return found


class Policy:
    """Alpha by cell type, (edges, ops), over the ops that are left on each edge; its optimiser and baseline.

    On the host: tables of a few hundred numbers are no work for a device, and samples are drawn there.
    """

    def __init__(
        self, shapes: Shapes, left: Mapping[str, NDArray[np.bool_]], lr: float, weight_decay: float, seed: int
    ) -> None:
        """``left`` (edges, ops) by type: what may be drawn, one op of each edge at least."""
        self.left = {name: mask.copy() for name, mask in left.items()}
        start = torch.Generator().manual_seed(seed)
        self.alpha = {name: START * torch.randn(shape, generator=start) for name, shape in shapes.items()}
        self.optimizer = torch.optim.Adam(self.alpha.values(), lr=lr, betas=(0.5, 0.999), weight_decay=weight_decay)
        self.baseline: float | None = None

    def probabilities(self, kept: Mapping[str, NDArray[np.bool_]] | None = None) -> dict[str, Tensor]:
        """Softmax over the ops left on each edge, or over those of them that are ``kept``, (edges, ops) by type; 0
        elsewhere.
        """
        left = self.left if kept is None else kept
        return {
            name: alpha.masked_fill(~torch.from_numpy(left[name]), -torch.inf).softmax(dim=1)
            for name, alpha in self.alpha.items()
        }

    def strengths(self) -> dict[str, NDArray[np.float64]]:
        """The same on arrays."""
        return {name: p.double().numpy() for name, p in self.probabilities().items()}

    def draw(self, rng: np.random.Generator, explore: float = 0.0) -> dict[str, NDArray[np.intp]]:
        """One op for each edge, independently; with probability ``explore`` an edge draws uniformly."""
        found = {}
        for name, p in self.strengths().items():
            left = self.left[name]
            mixed = (1.0 - explore) * p + explore * left / left.sum(axis=1, keepdims=True)
            thresholds = np.cumsum(mixed, axis=1)
            drawn = (rng.random((len(p), 1)) * thresholds[:, -1:] >= thresholds).sum(axis=1)
            found[name] = np.minimum(drawn, p.shape[1] - 1)
        return found

    def likelihood(self, columns: Columns) -> float:
        """Natural logarithm of the probability of these ops; minus infinity where one has left."""
        with np.errstate(divide="ignore"):
            return float(sum(np.log(p[np.arange(len(p)), columns[name]]).sum() for name, p in self.strengths().items()))

    def gradient(self, samples: Sequence[Columns], advantages: Sequence[float]) -> dict[str, Tensor]:
        """Of minus the expected reward, by type (edges, ops): the mean of advantage * (p - onehot)."""
        weights = torch.tensor(advantages, dtype=torch.float64)
        found = {}
        for name, p in self.probabilities().items():
            chosen = torch.from_numpy(np.stack([columns[name] for columns in samples], axis=1))  # (edges, samples)
            drawn = torch.zeros(p.shape, dtype=torch.float64).scatter_add_(1, chosen, weights.expand(len(p), -1))
            found[name] = (weights.sum() * p.double() - drawn) / len(samples)
        return found

    def step(
        self, samples: Sequence[Columns], rewards: Sequence[float], weights: NDArray[np.float64] | None = None
    ) -> None:
        """One step of Adam up the expected reward; the baseline is updated before it is subtracted.

        ``weights`` (samples,), where another policy drew them: how much each counts, in the baseline and in the
        gradient; left out, all alike.
        """
        shares = np.ones(len(samples)) if weights is None else weights * (len(weights) / weights.sum())
        mean = float(np.mean(shares * rewards))
        self.baseline = mean if self.baseline is None else self.baseline + NEW_SHARE * (mean - self.baseline)
        self._descend(self.gradient(samples, (shares * (np.array(rewards) - self.baseline)).tolist()))

    def imitate(self, frequencies: Mapping[str, NDArray[np.float64]]) -> None:
        """One step of Adam up the mean log-likelihood of networks that have each op on each edge so often, (edges, ops)
        by type, 1 an edge at most: what they have on no edge teaches nothing, nor do ops that have left.
        """
        found = {}
        for name, p in self.probabilities().items():
            wanted = torch.from_numpy(frequencies[name] * self.left[name])
            found[name] = wanted.sum(dim=1, keepdim=True) * p.double() - wanted
        self._descend(found)

    def _descend(self, gradients: Mapping[str, Tensor]) -> None:
        for name, alpha in self.alpha.items():
            alpha.grad = gradients[name].to(alpha.dtype)
        nn.utils.clip_grad_norm_(self.alpha.values(), CLIP)
        self.optimizer.step()

    def shrink(self, keep: Mapping[str, int], derivable: Mapping[str, NDArray[np.bool_]]) -> None:
        """Of each edge's ops keeps the likeliest, as ``strongest`` does, as many as ``keep`` says for the cell type."""
        self.left = strongest(self.strengths(), self.left, keep, derivable)

    def entropy(self) -> float:
        """Mean over the edges with more than one op left, nats: high while undecided."""
        rows = np.concatenate([p[self.left[name].sum(axis=1) > 1] for name, p in self.strengths().items()], axis=None)
        open_edges = sum(int((left.sum(axis=1) > 1).sum()) for left in self.left.values())
        return float(-(rows * np.log(np.maximum(rows, 1e-12))).sum() / max(1, open_edges))

    def state(self) -> dict[str, Any]:
        return {
            "alpha": {name: alpha.clone() for name, alpha in self.alpha.items()},
            "left": {name: torch.from_numpy(mask.copy()) for name, mask in self.left.items()},
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        for name, alpha in self.alpha.items():
            alpha.copy_(state["alpha"][name])
            self.left[name] = state["left"][name].numpy().copy()
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        self.baseline = state["baseline"]
