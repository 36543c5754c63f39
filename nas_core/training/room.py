"""Steps that do not fit into a device's memory: said in words, and taken again in two pieces.

Gradients of the pieces, weighed by their shares of the batch, add up to those of the batch. Batch norms see each piece
alone, so values differ a little from those of whole batches; what was trained so says so.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nas_core.devices import describe, memory_mb
from nas_core.errors import NoRoomError
from nas_core.groups import ALONE, Group

SIGNS = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
"""In messages of libraries beside PyTorch's own allocator."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was what it lacked."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def room_for(batch: int, pieces: int, device: torch.device) -> Iterator[None]:
    """Raises NoRoomError when what happens within runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        memory = memory_mb(device)
        size = "the memory" if memory is None else f"the {memory / 1024:.1f} GiB"
        raise NoRoomError(batch, pieces, f"{size} of {describe(device)}") from error


def release() -> None:
    """Gives back what nobody holds any more; to be called when the failed step's frames are gone."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def in_pieces(images: Tensor, labels: Tensor, pieces: int, group: Group = ALONE) -> list[tuple[Tensor, Tensor, float]]:
    """What this process has of a batch, in pieces of two images at least, each with its share of the whole batch."""
    whole = len(labels)
    images, labels = group.part(images, labels)
    count = max(1, min(pieces, whole // group.size // 2))  # the same in all processes: their norms wait for each other
    parts = zip(images.tensor_split(count), labels.tensor_split(count), strict=True)
    return [(some, theirs, len(theirs) / whole) for some, theirs in parts]
