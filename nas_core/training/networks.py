"""Training of a stand-alone network by a recipe, an epoch at a time, resumable bit for bit after any epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nas_core.architecture import Architecture
from nas_core.data import Augmentation, Split
from nas_core.errors import DivergedError
from nas_core.events import Glance, unseen
from nas_core.network import Network
from nas_core.recipe import Recipe

EVALUATION_BATCH = 512


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
    """One network from scratch. The seed alone decides weights, order, augmentation and drop path."""

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
    ) -> None:
        self.recipe, self.split, self.device = recipe, split, device
        self.augmentation = replace(augmentation if recipe.augment else Augmentation(), cutout=recipe.cutout)
        self.between_steps, self.glance = between_steps, glance
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(architecture, auxiliary=recipe.auxiliary > 0)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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

    @property
    def finished(self) -> bool:
        return self.done >= self.recipe.epochs

    def epoch(self) -> Epoch:
        """Trains for one epoch. Raises DivergedError when the loss is no longer finite."""
        recipe = self.recipe
        self.network.train()
        self.network.drop_path = recipe.drop_path * self.done / recipe.epochs
        per_epoch = max(1, self.split.size // recipe.batch)
        total = torch.zeros((), device=self.device)
        seen = 0

        def mean_loss() -> float:
            return float(total) / max(1, seen)

        batches = self.split.batches(recipe.batch, self.generator, self.augmentation, self.device)
        for index, (images, labels) in enumerate(batches):
            learn_at(self.optimizer, cosine(self.done * per_epoch + index, recipe.epochs * per_epoch, recipe.lr))
            self.optimizer.zero_grad(set_to_none=True)
            logits, auxiliary = self.network.with_auxiliary(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            if auxiliary is not None:
                extra = F.cross_entropy(auxiliary, labels, label_smoothing=recipe.label_smoothing)
                loss = loss + recipe.auxiliary * extra
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
            self.optimizer.step()
            total += loss.detach() * len(labels)
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

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on: tensors and JSON values only."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "done": self.done,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        self.generator.set_state(state["generator"])
        self.done = int(state["done"])


@torch.no_grad()
def misclassified(network: nn.Module, split: Split, device: torch.device) -> int:
    """How many of the split's images a network gets wrong, in evaluation mode."""
    network.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in split.batches(EVALUATION_BATCH, None, None, device):
        wrong += (network(images).argmax(dim=1) != labels).sum()
    return int(wrong)
