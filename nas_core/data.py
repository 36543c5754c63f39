"""Images as the search sees them: four disjoint parts of a data set, read in batches on a device.

``train`` teaches weights; ``validation`` teaches alpha and gives the values a search sees; ``select`` decides about the
final front; ``test`` is opened once, for the report. Small sets are tensors (TensorSplit); whatever else offers the
methods of Split can stand in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_core.cuts import Cut, drawn_by_class, split_by_class
from nas_core.devices import moved

Indices = Sequence[int] | NDArray[np.integer[Any]] | Tensor
RESIDENT_BYTES = 2**30
"""Larger image tensors stay on the CPU and travel batch by batch."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of training images, drawn for each image of a batch."""

    padding: int = 0
    """Zeros put around the normalised image before a crop of its old size is taken, pixels."""
    flip: bool = False
    """Mirror left to right, every second time."""
    cutout: int = 0
    """Side of a square set to zero around a random pixel (arXiv 1708.04552), pixels; 0: none."""

    def shrunk(self, factor: int) -> Augmentation:
        """What does the same to images with sides ``factor`` times smaller, in whole pixels."""
        return replace(self, padding=self.padding // factor, cutout=self.cutout // factor)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:  # (N, H, W, C) -> the same
        """Draws on the CPU, so that the generator alone decides, and changes the batch on its device."""
        count, height, width, _ = images.shape
        device = images.device

        def draw(below: int) -> Tensor:
            return moved(torch.randint(below, (count, 1), generator=generator), device)

        if self.padding or self.flip:
            rows = torch.arange(height, device=device).expand(count, height)
            columns = torch.arange(width, device=device).expand(count, width)
            if self.flip:
                columns = torch.where(draw(2) == 1, width - 1 - columns, columns)
            if self.padding:
                edge = self.padding
                images = torch.nn.functional.pad(images, (0, 0, edge, edge, edge, edge))
                rows, columns = rows + draw(2 * edge + 1), columns + draw(2 * edge + 1)
            which = torch.arange(count, device=device)
            images = images[which[:, None, None], rows[:, :, None], columns[:, None, :]]
        if self.cutout:
            top, left = draw(height) - self.cutout // 2, draw(width) - self.cutout // 2
            rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
            in_rows = (rows >= top) & (rows < top + self.cutout)
            in_columns = (columns >= left) & (columns < left + self.cutout)
            images = images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[..., None], 0.0)
        return images


class Split(Protocol):
    """Labelled images that can be gone through again and again."""

    @property
    def size(self) -> int:
        """Images in it."""
        ...

    @property
    def labels(self) -> Tensor:
        """(N,), int64, on the CPU."""
        ...

    def batches(
        self, batch: int, generator: torch.Generator | None, augment: Augmentation | None, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images (N, C, H, W), float32, channels last, and labels (N,), int64, on the device.

        With a ``generator`` (on the CPU) the images are shuffled and augmented by it alone, and an incomplete last
        batch is left out unless it is the only one. Without one, all images come in order, and none can be augmented.
        """
        ...

    def part(self, indices: Indices) -> Split:
        """The images at these places of this split, in this order."""
        ...


def first_drawn(split: Split, count: int | None, seed: int) -> Split:
    """``count`` images of a split, drawn by the seed alone; all of them where that is None or more than there are."""
    if count is None or count >= split.size:
        return split
    order = torch.randperm(split.size, generator=torch.Generator().manual_seed(seed))
    return split.part(order[:count])


def share_of(split: Split, share: float, seed: int) -> Split:
    """This share of a split's images, of each class its part, drawn by the seed alone."""
    return split if share >= 1 else split.part(drawn_by_class(split.labels.numpy(), share, seed))


def shrunk(split: Split, factor: int) -> Split:
    """The same images with sides ``factor`` times smaller: each pixel is the mean of ``factor`` x ``factor``. What does
    not fill a pixel at the right and at the foot is left out.
    """
    if factor == 1:
        return split
    return split.shrunk(factor) if isinstance(split, TensorSplit) else _Shrunk(split, factor)


class _Shrunk:
    """A split that is read from elsewhere: each batch is shrunk when it comes, after its augmentation."""

    def __init__(self, split: Split, factor: int) -> None:
        self.split, self.factor = split, factor

    @property
    def size(self) -> int:
        return self.split.size

    @property
    def labels(self) -> Tensor:
        return self.split.labels

    def part(self, indices: Indices) -> Split:
        return _Shrunk(self.split.part(indices), self.factor)

    def batches(
        self, batch: int, generator: torch.Generator | None, augment: Augmentation | None, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As Split says; ``augment`` is that of small images."""
        large = augment and replace(augment, padding=augment.padding * self.factor, cutout=augment.cutout * self.factor)
        for images, labels in self.split.batches(batch, generator, large, device):
            yield torch.nn.functional.avg_pool2d(images, self.factor), labels


def in_order(size: int, batch: int, generator: torch.Generator | None) -> tuple[Tensor, int]:
    """The order of an epoch, (size,), and how many of it are used: what Split.batches says about shuffling and the
    last batch.
    """
    if generator is None:
        return torch.arange(size), size
    return torch.randperm(size, generator=generator), size - size % batch or size


class _Images:
    """All images of one source with their labels; copied to a device when they are first asked for there."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
        self.resident = images.numel() * images.element_size() <= RESIDENT_BYTES
        self._copies: dict[torch.device, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and labels (on the device if they are resident), mean and 1 / std (always on the device)."""
        if device not in self._copies:
            place = device if self.resident else torch.device("cpu")
            scale = (1 / self.std).to(device)
            self._copies[device] = self.images.to(place), self.labels.to(place), self.mean.to(device), scale
        return self._copies[device]


class TensorSplit:
    """A split held in memory. Parts of it share the images, also the copy on a device."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        """``images``: (N, H, W, C), uint8 or float32; ``mean`` and ``std`` by channel, in the units of the images."""
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(f"images (N, H, W, C) and labels (N,) are wanted; got {images.shape} and {labels.shape}")
        if len(mean) != images.shape[3] or len(std) != images.shape[3]:
            raise ValueError(f"{images.shape[3]} channels, but {len(mean)} means and {len(std)} standard deviations")
        self._source = _Images(images.contiguous(), labels.to(torch.int64), mean, std)
        self._places = torch.arange(len(labels))

    @property
    def size(self) -> int:
        return len(self._places)

    @property
    def labels(self) -> Tensor:
        """(N,), int64, on the CPU."""
        return self._source.labels[self._places]

    def part(self, indices: Indices) -> TensorSplit:
        """The images at these places, in this order."""
        piece = object.__new__(TensorSplit)
        piece._source = self._source
        piece._places = self._places[torch.as_tensor(indices, dtype=torch.int64)]
        return piece

    def shrunk(self, factor: int) -> TensorSplit:
        """As the function of that name, in float32."""
        source = self._source
        small = torch.cat(
            [self._averaged(self._places[start : start + 1024], factor) for start in range(0, self.size, 1024)]
        )
        return TensorSplit(small, self.labels, source.mean.tolist(), source.std.tolist())

    def _averaged(self, places: Tensor, factor: int) -> Tensor:  # (n,) -> (n, h, w, C)
        images = self._source.images[places].to(torch.float32).permute(0, 3, 1, 2)
        return torch.nn.functional.avg_pool2d(images, factor).permute(0, 2, 3, 1)

    def batches(
        self, batch: int, generator: torch.Generator | None, augment: Augmentation | None, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As Split says."""
        if batch < 1:
            raise ValueError(f"a batch holds at least one image; got {batch}")
        if augment is not None and generator is None:
            raise ValueError("augmentation draws from the generator; without one, augment must be None")
        images, labels, mean, scale = self._source.on(device)
        order, stop = in_order(self.size, batch, generator)
        places = moved(self._places[order], images.device)
        for start in range(0, stop, batch):
            chosen = places[start : start + batch]
            pixels = moved(images[chosen], device, torch.float32)
            pixels = (pixels - mean) * scale
            if augment is not None and generator is not None:
                pixels = augment(pixels, generator)
            # (N, H, W, C) seen as (N, C, H, W) is channels last without a copy.
            yield pixels.permute(0, 3, 1, 2), moved(labels[chosen], device)


@dataclass(frozen=True)
class Splits:
    """A data set cut into its parts; no image is in two of train, validation, select and test."""

    train: Split
    validation: Split
    select: Split
    test: Split
    train_and_validation: Split
    input: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    augmentation: Augmentation
    """What suits these images when they are trained on."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """By channel, in the units of the files' pixels: whoever runs a network later must normalise in the same way."""


def tensor_splits(
    training: tuple[NDArray[Any], NDArray[np.int64]],
    test: tuple[NDArray[Any], NDArray[np.int64]],
    classes: int,
    seed: int,
    fraction: float,
    augmentation: Augmentation,
) -> Splits:
    """Splits of arrays: images (N, H, W, C) uint8 or float32, and labels (N,).

    Mean and standard deviation are those of all training images, whatever the seed and the fraction, so that every
    network of a data set is fed alike. Raises DatasetError when a class has too few images to be cut.
    """
    mean, std = channel_statistics(training[0])
    whole = TensorSplit(torch.from_numpy(training[0]), torch.from_numpy(training[1]), mean, std)
    held = TensorSplit(torch.from_numpy(test[0]), torch.from_numpy(test[1]), mean, std)
    height, width, channels = training[0].shape[1:]
    cut = split_by_class(training[1], seed, fraction=fraction)
    return cut_splits(whole, held, cut, (channels, height, width), classes, augmentation, mean, std)


def cut_splits(
    whole: Split,
    test: Split,
    cut: Cut,
    input: tuple[int, int, int],
    classes: int,
    augmentation: Augmentation,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Splits:
    """The parts of the training images ``whole`` as ``cut`` says, and the test images; ``input`` is (C, H, W)."""
    return Splits(
        train=whole.part(cut.train),
        validation=whole.part(cut.validation),
        select=whole.part(cut.select),
        test=test,
        train_and_validation=whole.part(np.concatenate([cut.train, cut.validation])),
        input=input,
        classes=classes,
        augmentation=augmentation,
        mean=mean,
        std=std,
    )


def without_images(input: tuple[int, int, int], classes: int) -> Splits:
    """Parts without an image, for a problem where nothing is trained; ``input`` is (C, H, W)."""
    channels, height, width = input
    nothing = TensorSplit(torch.empty(0, height, width, channels), torch.empty(0), (0.0,) * channels, (1.0,) * channels)
    whole = (nothing,) * 5
    return Splits(*whole, input, classes, Augmentation(), (0.0,) * channels, (1.0,) * channels)


def channel_statistics(images: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel of (N, H, W, C); a constant channel gets the deviation 1."""
    # in pieces: float64 copies of large arrays would not fit
    return statistics_of(images[start : start + 1024] for start in range(0, len(images), 1024))


def statistics_of(pieces: Iterable[NDArray[Any]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As channel_statistics, of images that come in pieces (n, H, W, C) of the same height, width and channels."""
    total: Any = 0.0
    squares: Any = 0.0
    count = 0
    for some in pieces:
        piece = some.astype(np.float64)
        total = total + piece.sum((0, 1, 2))
        squares = squares + (piece**2).sum((0, 1, 2))
        count += piece.shape[0] * piece.shape[1] * piece.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6 * np.maximum(1, np.abs(mean))] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())
