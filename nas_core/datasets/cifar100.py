"""CIFAR-100: 60,000 photographs, 32x32 coloured pixels, 100 classes; the 20 coarse labels are not used."""

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

CIFAR100 = Cifar(
    name="cifar100",
    classes=100,
    versions=(
        Version("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin", binary(label_bytes=2)),
        Version("cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test", python("fine_labels")),
    ),
    # its authors publish the MD5 03b5dce01913d631647c71ecec9e9cb8
    download=Download(168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
)


@datasets.register("cifar100")
@settings
class Cifar100:
    """CIFAR-100, 60,000 photographs of 32x32 pixels in 100 classes."""

    facts: ClassVar[Mapping[str, Any]] = {"input": [3, 32, 32], "classes": 100, "train": 50_000, "test": 10_000}

    download: bool = True
    """Fetch the files (169 MB) where they are missing."""

    @classmethod
    def presence(cls, root: Path) -> Presence:
        return CIFAR100.presence(root)

    def splits(self, root: Path, seed: int, fraction: float = 1.0, progress: Report | None = None) -> Splits:
        return CIFAR100.splits(root, seed, fraction, progress, self.download)
