"""One-level learning (MGAS, arXiv 2310.15074, by its code): weights, scores and thresholds from the same batches, by
one backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.data import Split
from nas_core.errors import DivergedError
from nas_core.granularity.gates import reset_thresholds
from nas_core.granularity.masked import Subnet
from nas_core.granularity.narrowing import Rebuilt
from nas_core.granularity.penalty import ops_term, thresholds_term
from nas_core.supernet.weights import SCORING_BATCH, even_batches
from nas_core.training.room import in_pieces, room_for

MOMENTUM = 0.9


@dataclass(frozen=True)
class Rates:
    """Learning rates, constant, and what belongs to them."""

    weights: float
    weight_decay: float
    scores: float
    """Of alpha and betas."""
    thresholds: float
    """Of ops and filters."""
    weight_thresholds: float
    clip: float = 5.0
    """Largest norm of the gradient of the weights."""


class Learner:
    """SGD on everything that learns of a sub-net."""

    def __init__(self, net: Subnet, rates: Rates, pieces: int = 1) -> None:
        self.net, self.rates, self.pieces = net, rates, pieces
        cells = [gates.every() for gates in net.gates]
        self.gates = [tensor for cell in cells for tensor in cell.values()]
        scores = [tensor for gates in net.gates for tensor in gates.scored().values()]
        coarse = [tensor for gates in net.gates for tensor in gates.coarse().values()]
        fine = [gates.weight for gates in net.gates]
        groups: list[dict[str, Any]] = [
            {"params": list(net.network.parameters()), "lr": rates.weights, "weight_decay": rates.weight_decay},
            {"params": scores, "lr": rates.scores},
            {"params": coarse, "lr": rates.thresholds},
            {"params": fine, "lr": rates.weight_thresholds},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=rates.weights, momentum=MOMENTUM, weight_decay=0.0)
        self.start(True)

    def start(self, gates: bool, thresholds: bool = True) -> None:
        """Begins an epoch, in which ``gates`` learn beside the weights or do not, thresholds among them or not."""
        for cell in self.net.gates:
            for tensor in cell.scored().values():
                tensor.requires_grad_(gates)
            for tensor in (*cell.coarse().values(), cell.weight):
                tensor.requires_grad_(gates and thresholds)
        self.with_gates, self.thresholds = gates, thresholds
        self._loss = self._term = torch.zeros((), device=self.net.gates[0].alpha.device)
        self._seen = self._steps = 0

    def step(
        self,
        images: Tensor,
        labels: Tensor,
        strength: float = 0.0,
        newest: int = 0,
        costs: Sequence[Tensor] = (),
        by_cost: float = 0.0,
    ) -> None:
        """One step of everything. ``strength``: lambda; the term of ops is that of the cells from ``newest`` on.

        Raises NoRoomError when it does not fit into memory.
        """
        net = self.net
        net.train()
        with room_for(len(labels), self.pieces, images.device):
            self.optimizer.zero_grad(set_to_none=True)
            for some, theirs, share in in_pieces(images, labels, self.pieces):
                loss = F.cross_entropy(net(some, provisional=self.with_gates and self.thresholds), theirs) * share
                loss.backward()  # type: ignore[no-untyped-call]
                self._loss = self._loss + loss.detach() * len(labels)
            if strength > 0 and self.with_gates:
                term = ops_term(net.gates[newest:], costs[newest:], by_cost)
                every = term + thresholds_term(net.gates) if self.thresholds else term
                (strength * every).backward()  # type: ignore[no-untyped-call]
                self._term = self._term + term.detach()
            nn.utils.clip_grad_norm_(net.network.parameters(), self.rates.clip)
            self.optimizer.step()
        self._seen += len(labels)
        self._steps += 1

    def loss_so_far(self) -> float:
        """Mean cross entropy of the epoch so far, nats."""
        return float(self._loss) / max(1, self._seen)

    def mean_loss(self) -> float:
        """The same at the end of the epoch. Raises DivergedError when it is not finite."""
        mean = self.loss_so_far()
        if not math.isfinite(mean):
            raise DivergedError(
                f"the search diverged: its loss became {mean} at learning rates of {self.rates.weights} (weights) and "
                f"{self.rates.scores} (gates); try smaller ones"
            )
        return mean

    def mean_term(self) -> float:
        """Mean of the term of ops over the epoch; 0 where it did not count."""
        return float(self._term) / max(1, self._steps)

    def momentum(self, tensor: Tensor) -> Tensor:
        """What the optimiser remembers of a tensor; zeros where it never moved it."""
        buffer = self.optimizer.state[tensor].get("momentum_buffer") if tensor in self.optimizer.state else None
        return torch.zeros_like(tensor) if buffer is None else buffer

    @torch.no_grad()
    def thresholds_anew(self) -> None:
        """At 0, without anything that the optimiser remembers of them, as at the start of every phase."""
        reset_thresholds(self.net.gates)
        for gates in self.net.gates:
            for tensor in (*gates.coarse().values(), gates.weight):
                self.momentum(tensor).zero_()

    @torch.no_grad()
    def rest_gone(self) -> None:
        """Alpha of ops that are gone moves no more, so that one that comes back resumes with what it had."""
        for gates in self.net.gates:
            self.momentum(gates.alpha).mul_(gates.mask)

    def over(self, new: Rebuilt) -> Learner:
        """The learner of what was made of this one's sub-net, which remembers what belongs to it."""
        learner = Learner(new.net, self.rates, self.pieces)
        for tensor, old, piece in new.carried:
            buffer = self.optimizer.state[old].get("momentum_buffer") if old in self.optimizer.state else None
            if buffer is not None:
                learner.optimizer.state[tensor]["momentum_buffer"] = piece.of(buffer)
        return learner

    def state(self) -> dict[str, Any]:
        return {"net": self.net.state(), "optimizer": self.optimizer.state_dict()}

    def resume(self, state: Any) -> None:
        self.net.resume(state["net"])
        self.optimizer.load_state_dict(dict(state["optimizer"]))


@contextmanager
def _statistics_kept(net: Subnet) -> Iterator[None]:
    """Running statistics are afterwards what they were."""
    before = [(buffer, buffer.clone()) for buffer in net.network.buffers()]
    yield
    for buffer, was in before:
        buffer.copy_(was)


@torch.no_grad()
def misclassified(net: Subnet, split: Split, device: torch.device, pieces: int = 1) -> float:
    """The share of a split's images that the network of the committed masks gets wrong, with its gates and with batch
    statistics. Raises NoRoomError.
    """
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    batch = even_batches(split.size, max(2, SCORING_BATCH // pieces))
    net.train()
    with room_for(batch, pieces, device), _statistics_kept(net):
        for images, labels in split.batches(batch, None, None, device):
            wrong += (net(images, provisional=False).argmax(dim=1) != labels).sum()
    return int(wrong) / split.size
