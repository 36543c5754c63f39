"""CIFAR-10: 60,000 photographs, 32x32 coloured pixels, 10 classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.datasets import datasets
from nas_core.datasets._cifar import Cifar, Download, Version, binary, python
from nas_core.datasets._presence import Presence, Report
from nas_core.settings import settings

if TYPE_CHECKING:
    from nas_core.data import Splits

BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR10 = Cifar(
    name="cifar10",
    classes=10,
    versions=(
        Version(
            archive="cifar-10-binary.tar.gz",
            folder="cifar-10-batches-bin",
            train=tuple(f"{name}.bin" for name in BATCHES),
            test="test_batch.bin",
            read=binary(label_bytes=1),
        ),
        Version("cifar-10-python.tar.gz", "cifar-10-batches-py", BATCHES, "test_batch", python("labels")),
    ),
    # its authors publish the MD5 c32a1d4ab5d03f1284b67883e8d87530
    download=Download(170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
)


@datasets.register("cifar10")
@settings
class Cifar10:
    """CIFAR-10, 60,000 photographs of 32x32 pixels in 10 classes."""

    facts: ClassVar[Mapping[str, Any]] = {"input": [3, 32, 32], "classes": 10, "train": 50_000, "test": 10_000}

    download: bool = True
    """Fetch the files (170 MB) where they are missing."""

    @classmethod
    def presence(cls, root: Path) -> Presence:
        return CIFAR10.presence(root)

    def splits(self, root: Path, seed: int, fraction: float = 1.0, progress: Report | None = None) -> Splits:
        return CIFAR10.splits(root, seed, fraction, progress, self.download)
