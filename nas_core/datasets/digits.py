"""Handwritten digits, shipped with us: 1,797 real images of 8x8 pixels (UCI optical digits; data/LICENSE-digits.txt).

The file is made by scripts/make_digits.py, which also fixes the test part: 360 images, 20 % of each class.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_core.datasets import datasets
from nas_core.datasets._presence import Presence, Report
from nas_core.settings import settings

if TYPE_CHECKING:
    from nas_core.data import Splits


@datasets.register("digits")
@settings
class Digits:
    """Handwritten digits, 1,797 images of 8x8 pixels in 10 classes, shipped with Skyline."""

    facts: ClassVar[Mapping[str, Any]] = {"input": [1, 8, 8], "classes": 10, "train": 1437, "test": 360}

    @classmethod
    def presence(cls, root: Path) -> Presence:
        return Presence(True, hint="shipped with Skyline")

    def splits(self, root: Path, seed: int, fraction: float = 1.0, progress: Report | None = None) -> Splits:
        from nas_core.data import Augmentation, tensor_splits

        with (files("nas_core.datasets") / "data" / "digits.npz").open("rb") as file, np.load(file) as arrays:
            images = {part: arrays[f"x_{part}"][..., None] for part in ("train", "test")}
            labels = {part: arrays[f"y_{part}"].astype(np.int64) for part in ("train", "test")}
        return tensor_splits(
            (images["train"], labels["train"]),
            (images["test"], labels["test"]),
            classes=10,
            seed=seed,
            fraction=fraction,
            augmentation=Augmentation(padding=1),
        )
