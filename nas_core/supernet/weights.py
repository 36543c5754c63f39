"""Supernet weights: how they learn and how a genotype is scored with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nas_core.architecture import Genotype
from nas_core.data import Split
from nas_core.errors import DivergedError
from nas_core.groups import ALONE, Group
from nas_core.search import Relaxable
from nas_core.supernet.network import Active, Gates, Supernet
from nas_core.training.networks import cosine, learn_at
from nas_core.training.room import in_pieces, room_for

SCORING_BATCH = 256

Choice = tuple[Gates | None, Active | None]
"""Gates and active ops of one step."""


def choice_of(space: Relaxable, genotype: Genotype, device: torch.device) -> Choice:
    """What makes a supernet the network of a genotype: its ops alone, with the coefficients that they carry."""
    active = space.selection(genotype)
    weighted = [
        (name, edge)
        for name in active
        if name in genotype.types
        for edge in genotype.types[name].edges
        if edge.weight is not None
    ]
    if not weighted:
        return None, active
    gates = {name: torch.ones(chosen.shape) for name, chosen in active.items()}
    for name, edge in weighted:
        assert edge.weight is not None
        gates[name][space.edges.index((edge.target, edge.source)), space.ops(name).index(edge.op)] = edge.weight
    return {name: gate.to(device) for name, gate in gates.items()}, active


class WeightLearner:
    """SGD on a supernet's weights: momentum, decay, clip, cosine per epoch (DARTS A.1.1).

    Weights of inactive ops have no gradient, so the optimiser neither decays nor moves them.
    """

    def __init__(
        self,
        supernet: Supernet,
        *,
        epochs: int,
        lr: float,
        lr_min: float = 0.0,
        momentum: float = 0.9,
        weight_decay: float = 3e-4,
        clip: float = 5.0,
        pieces: int = 1,
        group: Group = ALONE,
    ) -> None:
        self.supernet, self.epochs, self.lr, self.lr_min, self.clip = supernet, epochs, lr, lr_min, clip
        self.pieces = pieces
        """In which each batch is taken."""
        self.group = group
        self.optimizer = torch.optim.SGD(supernet.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
        self._total: Tensor | None = None
        self._seen = 0

    def start(self, epoch: int) -> None:
        """Sets the learning rate of an epoch (from 0)."""
        learn_at(self.optimizer, cosine(epoch, self.epochs, self.lr, self.lr_min))
        self._total, self._seen = None, 0

    def step(self, images: Tensor, labels: Tensor, choice: Choice) -> None:
        """One step of the optimiser. Raises NoRoomError when it does not fit into memory."""
        gates, active = choice
        if not self.supernet.training:  # walking through its modules takes milliseconds
            self.supernet.train()
        with room_for(len(labels), self.pieces, images.device):
            self.optimizer.zero_grad(set_to_none=True)
            total = torch.zeros((), device=images.device)
            for some, theirs, share in in_pieces(images, labels, self.pieces, self.group):
                loss = F.cross_entropy(self.supernet(some, gates, active), theirs) * share
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach() * len(labels)
            # asked of the optimiser, for the same reason
            learned = [weight for weight in self.optimizer.param_groups[0]["params"] if weight.grad is not None]
            self.group.add([weight.grad for weight in learned])
            nn.utils.clip_grad_norm_(learned, self.clip)
            self.optimizer.step()
        self._total = total if self._total is None else self._total + total
        self._seen += len(labels)

    def loss_so_far(self) -> float:
        """Mean of the epoch so far, whatever it is; of several processes what this one adds to it."""
        return float(self._total) / self._seen if self._total is not None else 0.0

    def mean_loss(self) -> float:
        """Of the epoch so far. Raises DivergedError when it is not finite."""
        if self._total is not None and self._seen:
            total = self._total.clone()
            self.group.add([total])
            mean = float(total) / self._seen
        else:
            mean = 0.0
        if not math.isfinite(mean):
            raise DivergedError(f"the supernet diverged: its loss became {mean} at a learning rate of {self.lr}")
        return mean

    def state(self) -> dict[str, Any]:
        return {"supernet": self.supernet.state_dict(), "optimizer": self.optimizer.state_dict()}

    def resume(self, state: Mapping[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(dict(state["optimizer"]))


class AveragedWeights:
    """A supernet whose weights are an exponential moving average, over steps, of another's."""

    def __init__(self, supernet: Supernet, decay: float) -> None:
        self.supernet = copy.deepcopy(supernet).requires_grad_(False)
        self._own, self._followed = list(self.supernet.parameters()), list(supernet.parameters())
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def follow(self) -> None:
        """After a step of the other's."""
        self._average(self._own, self._followed, None)


def make_supernet(build: Callable[[], Supernet], seed: int, device: torch.device) -> Supernet:
    """A supernet whose first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = build()
    moved: Supernet = supernet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


@contextmanager
def at_rest(supernet: Supernet) -> Iterator[None]:
    """Weights are constants inside: what asks for gradients by gates alone computes and keeps nothing for theirs."""
    awake = [parameter for parameter in supernet.parameters() if parameter.requires_grad]
    for parameter in awake:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in awake:
            parameter.requires_grad_(True)


def even_batches(size: int, largest: int) -> int:
    """A batch size of which no last batch is much smaller: batch statistics of a few images say little."""
    return math.ceil(size / math.ceil(size / largest))


@torch.no_grad()
def batch_errors(supernet: Supernet, images: Tensor, labels: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """Of the chosen sub-network on one batch, with its statistics: how many images it gets wrong, and the sum of the
    probabilities that it gives to wrong classes; both on the device.
    """
    supernet.train()  # batch norms of the supernet keep no running statistics
    logits = supernet(images, *choice)
    wrong = (logits.argmax(dim=1) != labels).sum()
    return wrong, (1.0 - logits.softmax(dim=1).gather(1, labels[:, None])).sum()


@torch.no_grad()
def supernet_errors(
    supernet: Supernet,
    split: Split,
    choice: Choice,
    device: torch.device,
    pieces: int = 1,
    group: Group = ALONE,
) -> tuple[float, float]:
    """Of the chosen sub-network, with batch statistics: the share of the split's images that it gets wrong, and the
    mean probability that it gives to wrong classes (how often a class drawn from its softmax is wrong).

    ``pieces`` as in training: batches are as much smaller. Raises NoRoomError.
    """
    wrong, expected = torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), device=device)
    batch = even_batches(split.size, SCORING_BATCH // pieces)
    with room_for(batch, pieces, device):
        for images, labels in split.batches(batch, None, None, device):
            some_wrong, some_expected = batch_errors(supernet, *group.part(images, labels), choice)
            wrong += some_wrong
            expected += some_expected
    group.add([wrong])
    group.add([expected])
    return int(wrong) / split.size, float(expected) / split.size


def forever(epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch after another."""
    while True:
        yield from epoch()
