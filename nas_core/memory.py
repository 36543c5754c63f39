"""The most memory that one inference of a network takes at once: its weights, and the largest sum of live tensors.

The real network runs on the meta device, so that shapes are worked out and nothing is allocated or computed. Every
storage counts from the operation that makes it until the last tensor that looks at it is gone.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas_core.architecture import Architecture
from nas_core.network import Network


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in float32."""

    state: int
    """Weights, biases and batch-norm statistics."""
    activations: int
    """Most bytes of input, output and everything between that live at once."""

    @property
    def peak(self) -> int:
        return self.state + self.activations


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, adds up the storages that operations make, and subtracts those that go."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.hold(leaf)
        return out

    def hold(self, tensor: torch.Tensor) -> None:
        """Counts the tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        weakref.finalize(storage, self._drop, size).atexit = False
        self.live += size
        self.most = max(self.most, self.live)

    def _drop(self, size: int) -> None:
        self.live -= size


def inference_memory(architecture: Architecture, batch: int) -> Memory:
    """Of one inference of ``batch`` images in eager PyTorch; a runtime that fuses operations takes less.

    Raises InvalidGenotypeError or UnknownNameError for what cannot be built.
    """
    with torch.device("meta"), torch.inference_mode():
        network = Network(architecture).eval()
        state = sum(each.numel() * each.element_size() for each in (*network.parameters(), *network.buffers()))
        counting = LiveTensors()
        for held in (*network.parameters(), *network.buffers()):
            counting.known.add(held.untyped_storage())
        images = torch.empty(batch, *architecture.skeleton.input)
        counting.hold(images)
        with counting:
            network(images)
    return Memory(state, counting.most)
