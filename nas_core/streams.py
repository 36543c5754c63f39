"""Images that are too many for memory: read from the disk batch by batch, by processes beside the training.

Processes only read. Order and augmentation are drawn by the generator in the training's own process, so that neither
their number nor their speed changes a single bit.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas_core.data import Augmentation, Indices, in_order
from nas_core.devices import moved
from nas_core.errors import DatasetError

AHEAD = 2
"""Batches that each process reads ahead."""
PR_SET_PDEATHSIG = 1


class Reader(Protocol):
    """Reads images; has to be picklable where processes are not forked."""

    def __call__(self, places: Sequence[int]) -> NDArray[np.uint8]:
        """(N, H, W, C) of the images at these places. Raises DatasetError."""
        ...


class StreamedSplit:
    """A split (nas_core.data.Split) that holds labels and places alone. Parts of it share the reader."""

    def __init__(
        self,
        read: Reader,
        labels: NDArray[np.int64],
        mean: Sequence[float],
        std: Sequence[float],
        workers: int,
    ) -> None:
        """``labels``: (N,); ``mean`` and ``std`` by channel, in the units of the images; ``workers``: processes that
        read, at most as many as there are cores; 0 reads in this one.
        """
        self._read, self._labels = read, torch.from_numpy(labels).to(torch.int64)
        self._mean = torch.tensor(mean, dtype=torch.float32)
        self._scale = 1 / torch.tensor(std, dtype=torch.float32)
        self._workers = workers
        self._places = torch.arange(len(labels))

    @property
    def size(self) -> int:
        return len(self._places)

    @property
    def labels(self) -> Tensor:
        """(N,), int64, on the CPU."""
        return self._labels[self._places]

    def part(self, indices: Indices) -> StreamedSplit:
        """The images at these places, in this order."""
        piece = object.__new__(StreamedSplit)
        piece.__dict__.update(self.__dict__)
        piece._places = self._places[torch.as_tensor(indices, dtype=torch.int64)]
        return piece

    def batches(
        self, batch: int, generator: torch.Generator | None, augment: Augmentation | None, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As Split says. Raises DatasetError, naming the file, for an image that cannot be read."""
        if batch < 1:
            raise ValueError(f"a batch holds at least one image; got {batch}")
        if augment is not None and generator is None:
            raise ValueError("augmentation draws from the generator; without one, augment must be None")
        order, stop = in_order(self.size, batch, generator)
        chosen = [self._places[order[start : min(start + batch, stop)]] for start in range(0, stop, batch)]
        mean, scale = self._mean.to(device), self._scale.to(device)
        for places, images in zip(chosen, read_ahead(self._read, chosen, self._workers), strict=True):
            pixels = moved(torch.from_numpy(images), device, torch.float32)
            pixels = (pixels - mean) * scale
            if augment is not None and generator is not None:
                pixels = augment(pixels, generator)
            # (N, H, W, C) seen as (N, C, H, W) is channels last without a copy.
            yield pixels.permute(0, 3, 1, 2), moved(self._labels[places], device)


def read_ahead(read: Reader, batches: Sequence[Tensor], workers: int) -> Iterator[NDArray[np.uint8]]:
    """The images of each batch of places, in order, read by up to ``workers`` processes that end with the iterator."""
    workers = min(workers, len(batches), _cores())
    loader: DataLoader[Any] = DataLoader(
        _Batches(read),
        sampler=[places.tolist() for places in batches],  # an item is a whole batch
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=partial(_settle, os.getpid()),
        generator=torch.Generator().manual_seed(0),  # else it would draw from the process' own
    )
    for images in loader:
        if isinstance(images, str):
            raise DatasetError(images)
        yield images


class _Batches(Dataset[Any]):
    """Images by lists of places. An error is a value, which travels between processes as it is."""

    def __init__(self, read: Reader) -> None:
        self._read = read

    def __getitem__(self, places: list[int]) -> NDArray[np.uint8] | str:
        try:
            return self._read(places)
        except DatasetError as error:
            return str(error)


def _as_it_is(item: Any) -> Any:
    """Arrays go through a pipe. Tensors would lie in shared memory, of which containers have little."""
    return item


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle(parent: int, worker: int) -> None:
    """A reading process leaves its parent's group, so that a signal to stop reaches the training alone, which may want
    another batch before its next checkpoint. On Linux it dies with its parent; elsewhere it notices within seconds.
    """
    with suppress(OSError):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we could ask
        os.kill(os.getpid(), signal.SIGKILL)
