"""Fashion-MNIST: 70,000 photographs of clothes, 28x28 grey pixels, 10 classes (arXiv 1708.07747, MIT licence).

Read from the four standard idx files: in the folder of data sets, or where Debian's package dataset-fashion-mnist puts
them; else they are downloaded from their authors' address.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas_core.datasets import datasets
from nas_core.datasets._download import fetch_gzip
from nas_core.datasets._idx import read_idx
from nas_core.datasets._presence import Presence, Report
from nas_core.errors import DatasetError, DatasetMissingError
from nas_core.settings import settings

if TYPE_CHECKING:
    from nas_core.data import Splits

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES: Mapping[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""The unpacked files by name, and their SHA-256."""
CLASSES = 10


@datasets.register("fashion-mnist")
@settings
class FashionMnist:
    """Fashion-MNIST, 70,000 images of 28x28 pixels in 10 classes of clothes."""

    facts: ClassVar[Mapping[str, Any]] = {"input": [1, 28, 28], "classes": CLASSES, "train": 60_000, "test": 10_000}

    download: bool = True
    """Fetch the files (30 MB) where they are missing."""

    @classmethod
    def presence(cls, root: Path) -> Presence:
        folders = _folders(root)
        present = any(_paths(folder) for folder in folders)
        hint = "" if present else _hint(root)
        return Presence(present, tuple(str(folder) for folder in folders), hint, downloadable=not present)

    def splits(self, root: Path, seed: int, fraction: float = 1.0, progress: Report | None = None) -> Splits:
        from nas_core.data import Augmentation, tensor_splits

        report = progress or (lambda what, share: None)
        found = [paths for folder in _folders(root) if (paths := _paths(folder))]
        paths = found[0] if found else self._fetch(root, report)
        report("reading fashion-mnist", 0.0)
        training, test = (_read(paths, part) for part in ("train", "t10k"))
        report("reading fashion-mnist", 1.0)
        return tensor_splits(training, test, CLASSES, seed, fraction, Augmentation(padding=2, flip=True))

    def _fetch(self, root: Path, report: Report) -> dict[str, Path]:
        searched = ", ".join(str(folder) for folder in _folders(root))
        missing = f"the files of fashion-mnist are in none of {searched}"
        if not self.download:
            raise DatasetMissingError(f"{missing}, and 'download' is false. {_hint(root)}")
        folder = _folders(root)[0]
        paths = {name: folder / f"{name}.gz" for name in FILES}
        for name, path in paths.items():
            if not path.is_file():
                try:
                    fetch_gzip(f"{SOURCE}{name}.gz", path, FILES[name], report)
                except DatasetMissingError as error:
                    raise DatasetMissingError(f"{missing}, and {error}. {_hint(root)}") from error
        return paths


def _folders(root: Path) -> tuple[Path, ...]:
    return root / "fashion-mnist", DEBIAN


def _paths(folder: Path) -> dict[str, Path]:
    """The four files, packed or not; nothing when one is missing."""
    found = {}
    for name in FILES:
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                found[name] = path
                break
    return found if len(found) == len(FILES) else {}


def _hint(root: Path) -> str:
    return (
        f"Install Debian's package dataset-fashion-mnist, or put the four files from {SOURCE} "
        f"({', '.join(f'{name}.gz' for name in FILES)}) into {_folders(root)[0]}"
    )


def _read(paths: Mapping[str, Path], part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 28, 28, 1) and labels of one part."""
    images = read_idx(paths[f"{part}-images-idx3-ubyte"], dimensions=3)
    labels = read_idx(paths[f"{part}-labels-idx1-ubyte"], dimensions=1)
    where = paths[f"{part}-images-idx3-ubyte"]
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or not len(images):
        raise DatasetError(
            f"{where}: images of shape {images.shape} with {len(labels)} labels; as many of 28x28 pixels are wanted"
        )
    if labels.max() >= CLASSES:
        raise DatasetError(f"{where.parent}: a label {labels.max()} among those of '{part}'; 0 to 9 are wanted")
    return images[..., None], labels.astype(np.int64)
