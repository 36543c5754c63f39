"""All of CIFAR-10 from one file of JPEG bytes, cut as the service cuts it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_core.data import Augmentation, Splits, first_drawn, shrunk, tensor_splits
from nas_core.training import seed_of

FILE = "cifar10_full_jpeg.npz"
CLASSES = 10
SHRINK = 2
"""Of ``small`` images."""


def cifar10(folder: Path, seed: int) -> Splits:
    """Of ``folder``/cifar10_full_jpeg.npz: for train and test, the bytes of all images one after another
    (``train_jpeg``), where each begins and the last ends (``train_offsets``), and ``y_train``.

    Raises FileNotFoundError where there is no such file.
    """
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no {FILE} in {folder}; a supernet is trained on its images")
    with np.load(path) as arrays:
        training, test = ((_decoded(arrays, part), arrays[f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
        return tensor_splits(training, test, CLASSES, seed, 1.0, Augmentation(padding=4, flip=True))


def halved(folder: Path) -> Callable[[int], Splits]:
    """By seed, the same at half the size, 16 x 16 pixels; the last seed's are kept."""
    return lru_cache(1)(lambda seed: small(cifar10(folder, seed)))


def small(splits: Splits) -> Splits:
    """The same images at half the size."""
    names = ("train", "validation", "select", "test", "train_and_validation")
    smaller: dict[str, Any] = {name: shrunk(getattr(splits, name), SHRINK) for name in names}
    channels, height, width = splits.input
    input = (channels, height // SHRINK, width // SHRINK)
    return replace(splits, **smaller, input=input, augmentation=splits.augmentation.shrunk(SHRINK))


def few(splits: Splits, images: int, seed: int) -> Splits:
    """As many images alone to search on, and as many to judge."""
    return replace(
        splits,
        train=first_drawn(splits.train, images, seed_of(seed, "searched")),
        validation=first_drawn(splits.validation, images, seed_of(seed, "judges")),
    )


def _decoded(arrays: Any, part: str) -> NDArray[np.uint8]:  # -> (N, 32, 32, 3)
    data, offsets = arrays[f"{part}_jpeg"].tobytes(), arrays[f"{part}_offsets"].tolist()
    pieces = [data[start:end] for start, end in itertools.pairwise(offsets)]
    return np.stack([np.asarray(Image.open(io.BytesIO(piece)).convert("RGB")) for piece in pieces])
