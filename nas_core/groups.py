"""Processes that search together, each with a part of every batch. This group is one process alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class Group:
    """What one process does by itself; ``nas_core.parallel.Processes`` does the same with others."""

    size: int = 1
    """Processes."""

    def part(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """This process's share of a batch that all of them have."""
        return images, labels

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Each becomes the sum over the processes."""

    def any(self, flag: bool) -> bool:
        """Whether it is so in one of them."""
        return flag

    def join(self, module: nn.Module) -> None:
        """Makes a network's batch norms see the batches of all."""


ALONE = Group()
