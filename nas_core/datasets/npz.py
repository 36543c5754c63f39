"""A user's own images: an npz file in the folder of data sets.

Arrays: ``x_train`` (N, H, W) or (N, H, W, C), uint8 or finite floats; ``y_train`` (N,), integers 0 to K-1; ``x_test``
and ``y_test`` likewise, or neither: then 20 % of each class are held out for the test, always the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import MaxLen, MinLen
from numpy.typing import NDArray

from nas_core.cuts import hold_out
from nas_core.datasets import datasets
from nas_core.datasets._npz import Header, Npz, open_npz
from nas_core.datasets._paths import below, lies_below
from nas_core.datasets._presence import Presence, Report, own_files
from nas_core.errors import DatasetError, DatasetMissingError
from nas_core.settings import settings

if TYPE_CHECKING:
    from nas_core.data import Splits

SMALLEST_CLASS = 5
"""Training images a class must have."""
TEST_SHARE = 0.2
"""Held out of each class where the file has no test images."""
MOST_FILES = 1000
"""Listed at most."""
MOST_ENTRIES = 100_000
"""Looked at in the folder of data sets when files are listed; it may hold other sets of a million images."""
MOST_CLASSES = 65_536
MOST_IMAGES = 10_000_000
"""Labels are read whenever files are listed."""


@datasets.register("npz")
@settings
class NpzFile:
    """Your own images: an .npz file with x_train, y_train and, if you like, x_test, y_test."""

    facts: ClassVar[Mapping[str, Any]] = {}

    path: Annotated[str, MinLen(1), MaxLen(1000)]
    """Below the folder of data sets, with '/', such as mine/birds.npz."""
    flip: bool = False
    """Mirror training images left to right at random."""

    @classmethod
    def presence(cls, root: Path) -> Presence:
        """Lists the npz files below ``root``; reads their headers and labels."""
        files: dict[str, dict[str, Any]] = {}
        faults: dict[str, str] = {}
        for path in _listed(root):
            name = path.relative_to(root).as_posix()
            try:
                with open_npz(path) as file:
                    files[name] = _survey(file).to_json()
            except DatasetError as error:
                faults[name] = str(error)
        hint = f"Put an .npz file with x_train (N, H, W[, C]) and y_train (N,) into {root}"
        return own_files(root, hint, files, faults)

    def splits(self, root: Path, seed: int, fraction: float = 1.0, progress: Report | None = None) -> Splits:
        from nas_core.data import Augmentation, tensor_splits

        report = progress or (lambda what, share: None)
        report(f"reading {self.path}", 0.0)
        with open_npz(self._file(root)) as file:
            survey = _survey(file)
            images = _images(file, "x_train")
            labels = survey.labels
            if survey.test_labels is not None:
                test = _images(file, "x_test"), survey.test_labels
                training = images, labels
            else:
                kept, held = hold_out(labels, TEST_SHARE)
                training, test = (images[kept], labels[kept]), (images[held], labels[held])
        report(f"reading {self.path}", 1.0)
        augmentation = Augmentation(padding=min(survey.input[1:]) // 8, flip=self.flip)
        return tensor_splits(training, test, survey.classes, seed, fraction, augmentation)

    def _file(self, root: Path) -> Path:
        """Raises DatasetError for a path that leaves ``root``, also by a symbolic link, and DatasetMissingError."""
        path = below(self.path, root)
        if not os.path.isfile(path):
            known = ", ".join(sorted(found.relative_to(root).as_posix() for found in _listed(root))[:20])
            raise DatasetMissingError(f"there is no file {path}; npz files there: {known or 'none'}")
        return path


@dataclass(frozen=True)
class _Survey:
    """A file whose headers and labels are right."""

    input: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    labels: NDArray[np.int64]
    test_labels: NDArray[np.int64] | None

    def to_json(self) -> dict[str, Any]:
        test = int(TEST_SHARE * len(self.labels)) if self.test_labels is None else len(self.test_labels)
        train = len(self.labels) - test if self.test_labels is None else len(self.labels)
        return {"input": list(self.input), "classes": self.classes, "train": train, "test": test}


def _listed(root: Path) -> list[Path]:
    found = []
    for path in _walk(root):
        if path.suffix == ".npz" and os.path.isfile(path) and lies_below(path, root):
            found.append(path)
            if len(found) == MOST_FILES:
                break
    return found


def _walk(root: Path) -> Iterator[Path]:
    seen = 0
    for folder, folders, names in os.walk(root):  # does not follow links to folders
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)
        seen += len(names) + len(folders)
        if seen > MOST_ENTRIES:
            return


def _survey(file: Npz) -> _Survey:
    """Reads headers and labels. Raises DatasetError for what images and labels cannot be."""
    wanted = ["x_train", "y_train"]
    if file.names & {"x_test", "y_test"}:
        wanted += ["x_test", "y_test"]
    missing = [name for name in wanted if name not in file.names]
    if missing:
        have = ", ".join(sorted(file.names)[:10]) or "none"
        raise DatasetError(f"{file.path}: array '{missing[0]}' is missing; it has: {have}")
    headers = {name: file.header(name) for name in wanted}
    shape = _image_shape(file, "x_train", headers["x_train"])
    labels = _labels(file, "y_train", headers["y_train"], headers["x_train"])
    classes = int(labels.max()) + 1
    counts = np.bincount(labels, minlength=classes)
    if classes < 2 or counts.min() < SMALLEST_CLASS:
        label = int(counts.argmin())
        raise DatasetError(
            f"{file.path}: labels 0 to {classes - 1}, and class {label} has {counts[label]} training images; at least "
            f"2 classes of {SMALLEST_CLASS} images each are needed, labelled 0, 1, ... without gaps"
        )
    test_labels = None
    if "x_test" in headers:
        test_shape = _image_shape(file, "x_test", headers["x_test"])
        if test_shape != shape:
            raise DatasetError(f"{file.path}: training images of (C, H, W) {shape}, but test images of {test_shape}")
        test_labels = _labels(file, "y_test", headers["y_test"], headers["x_test"])
        if test_labels.max() >= classes:
            raise DatasetError(
                f"{file.path}: y_test has the label {test_labels.max()}, but y_train has only 0 to {classes - 1}"
            )
    return _Survey(shape, classes, labels, test_labels)


def _image_shape(file: Npz, name: str, header: Header) -> tuple[int, int, int]:
    """(C, H, W) of the images."""
    shape = header.shape
    if len(shape) not in (3, 4) or 0 in shape:
        raise DatasetError(f"{file.path}: '{name}' has shape {shape}; (N, H, W) or (N, H, W, C), none 0, is wanted")
    if shape[0] > MOST_IMAGES:
        raise DatasetError(f"{file.path}: '{name}' announces {shape[0]} images; at most {MOST_IMAGES} are read")
    if header.dtype.kind != "f" and header.dtype != np.uint8:
        raise DatasetError(f"{file.path}: '{name}' has dtype {header.dtype}; uint8 or floats are wanted")
    if len(shape) == 4 and shape[1] <= 4 and shape[2] == shape[3] > 4:
        raise DatasetError(
            f"{file.path}: '{name}' has shape {shape}, which looks like (N, C, H, W); "
            "(N, H, W, C) is wanted: x.transpose(0, 2, 3, 1)"
        )
    return (shape[3] if len(shape) == 4 else 1), shape[1], shape[2]


def _labels(file: Npz, name: str, header: Header, images: Header) -> NDArray[np.int64]:
    if header.dtype.kind not in "iu":
        raise DatasetError(f"{file.path}: '{name}' has dtype {header.dtype}; integers are wanted")
    if header.shape != images.shape[:1]:
        raise DatasetError(
            f"{file.path}: '{name}' has shape {header.shape}; one label for each of {images.shape[0]} images, "
            f"({images.shape[0]},), is wanted"
        )
    labels = file.array(name)
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest >= MOST_CLASSES:
        outside = lowest if lowest < 0 else highest
        raise DatasetError(f"{file.path}: '{name}' has the label {outside}; 0 to K-1 are wanted for K classes")
    return labels.astype(np.int64)


def _images(file: Npz, name: str) -> NDArray[Any]:
    """(N, H, W, C), uint8 or float32."""
    images = file.array(name)
    if images.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is found below
            images = images.astype(np.float32, copy=False)
        if not np.isfinite(images).all():
            raise DatasetError(f"{file.path}: '{name}' has numbers that are not finite, or too large for float32")
    return images[..., None] if images.ndim == 3 else images
