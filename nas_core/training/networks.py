"""Training of a stand-alone network by a recipe, an epoch at a time, resumable bit for bit after any epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core import checkpoint
from nas_core.architecture import Architecture
from nas_core.data import Augmentation, Split
from nas_core.errors import DivergedError, NoRoomError
from nas_core.events import Glance, unseen
from nas_core.inherited import begin
from nas_core.masks import Masks, require
from nas_core.network import Network
from nas_core.quick import quicken
from nas_core.recipe import Recipe
from nas_core.training.room import in_pieces, is_out_of_memory, release, room_for

EVALUATION_BATCH, SMALL_BATCH = 512, 64


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch did."""

    number: int
    """From 1."""
    loss: float
    """Mean training loss."""


def cosine(step: int, steps: int, start: float, end: float = 0.0) -> float:
    """Learning rate of a step, from ``start`` at step 0 towards ``end`` at ``steps``."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * step / steps))


def learn_at(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


class Training:
    """One network, from scratch or from inherited ``weights`` on; what ``masks`` mask is zero throughout.

    The seed alone decides the rest: fresh weights, order, augmentation and drop path.

    Raises InvalidGenotypeError where masks or weights are not those of the architecture.
    """

    def __init__(
        self,
        architecture: Architecture,
        recipe: Recipe,
        split: Split,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        between_steps: Callable[[], None] = lambda: None,
        glance: Glance = unseen,
        masks: Masks | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        require(architecture, masks)
        self.recipe, self.split, self.device = recipe, split, device
        self.augmentation = replace(augmentation if recipe.augment else Augmentation(), cutout=recipe.cutout)
        self.between_steps, self.glance = between_steps, glance
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(architecture, auxiliary=recipe.auxiliary > 0)
        self.fresh = [] if weights is None else begin(network, weights)
        """Of inherited weights, those that do not fit these images and are fresh."""
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        quicken(self.network)
        if masks is not None:
            masks.hold(self.network)
        self.generator = torch.Generator().manual_seed(seed)
        self.network.drop_path_generator = self.generator
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.done = 0
        """Epochs finished."""
        self.pieces = 1
        """In which each batch is taken."""
        self.no_room: NoRoomError | None = None
        """Why that is no longer one."""

    @property
    def finished(self) -> bool:
        return self.done >= self.recipe.epochs

    @property
    def micro_batch(self) -> int | None:
        """Images of a piece; None while batches are taken whole."""
        return None if self.pieces == 1 else -(-self.recipe.batch // self.pieces)

    def epoch(self) -> Epoch | None:
        """Trains for one epoch. None: its steps did not fit into memory (``no_room`` says so); all is as before, and
        the next call takes them in pieces.

        Raises NoRoomError when the pieces do not fit either, DivergedError when the loss is no longer finite.
        """
        before = checkpoint.copied(self.state())
        try:
            with room_for(self.recipe.batch, self.pieces, self.device):
                return self._epoch()
        except NoRoomError as error:
            if not error.can_be_halved:
                raise
            self.no_room = error.with_traceback(None)
        self.no_room.__cause__ = self.no_room.__context__ = None  # their frames hold the tensors of the failed step
        self.optimizer.zero_grad(set_to_none=True)
        self.resume(before)
        self.pieces = 2
        release()
        return None

    def _epoch(self) -> Epoch:
        recipe = self.recipe
        self.network.train()
        self.network.drop_path = recipe.drop_path * self.done / recipe.epochs
        learned = list(self.network.parameters())
        per_epoch = max(1, self.split.size // recipe.batch)
        total = torch.zeros((), device=self.device)
        seen = 0

        def mean_loss() -> float:
            return float(total) / max(1, seen)

        batches = self.split.batches(recipe.batch, self.generator, self.augmentation, self.device)
        for index, (images, labels) in enumerate(batches):
            learn_at(self.optimizer, cosine(self.done * per_epoch + index, recipe.epochs * per_epoch, recipe.lr))
            self.optimizer.zero_grad(set_to_none=True)
            for some, theirs, share in in_pieces(images, labels, self.pieces):
                loss = self._loss(some, theirs) * share
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach() * len(labels)
            nn.utils.clip_grad_norm_(learned, recipe.clip)
            self.optimizer.step()
            seen += len(labels)
            self.between_steps()
            self.glance(self.done * per_epoch + index + 1, recipe.epochs * per_epoch, mean_loss)
        self.done += 1
        mean = mean_loss()  # the epoch's only wait for the device
        if not math.isfinite(mean):
            raise DivergedError(
                f"training diverged: the loss became {mean} in epoch {self.done} of {recipe.epochs} "
                f"at a learning rate of {recipe.lr}; try a smaller one"
            )
        return Epoch(self.done, mean)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        recipe = self.recipe
        logits, auxiliary = self.network.with_auxiliary(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if auxiliary is not None:
            extra = F.cross_entropy(auxiliary, labels, label_smoothing=recipe.label_smoothing)
            loss = loss + recipe.auxiliary * extra
        return loss

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on: tensors and JSON values only."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "done": self.done,
            "pieces": self.pieces,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        self.generator.set_state(state["generator"])
        self.done = int(state["done"])
        self.pieces = int(state.get("pieces", 1))


@torch.no_grad()
def misclassified(network: nn.Module, split: Split, device: torch.device) -> int:
    """How many of the split's images a network gets wrong, in evaluation mode, where the batch does not matter.

    Raises NoRoomError when not even small batches fit into memory.
    """
    network.eval()
    try:
        return _wrong(network, split, device, EVALUATION_BATCH)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    release()
    with room_for(SMALL_BATCH, 1, device):
        return _wrong(network, split, device, SMALL_BATCH)


def _wrong(network: nn.Module, split: Split, device: torch.device, batch: int) -> int:
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in split.batches(batch, None, None, device):
        wrong += (network(images).argmax(dim=1) != labels).sum()
    return int(wrong)
