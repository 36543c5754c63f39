"""Small real problems for contract tests: tiny images made on the spot, every objective computed for real."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nas_core.architecture import Genotype
from nas_core.data import Augmentation, Splits, tensor_splits
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.search import Axes, Bound, Budget, Problem
from nas_core.spaces.darts import DartsCells
from nas_core.variation import distinct

SPACE = DartsCells(cells=3, channels=2, nodes=2)


def splits(seed: int = 0, images: int = 160) -> Splits:
    """Two classes that a small network can tell apart: bright above or bright below."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    pixels = rng.integers(0, 120, (images, 6, 6, 1), dtype=np.uint8)
    pixels[labels == 0, :3] += 100
    pixels[labels == 1, 3:] += 100
    held = images // 4
    return tensor_splits(
        (pixels[held:], labels[held:].astype(np.int64)),
        (pixels[:held], labels[:held].astype(np.int64)),
        classes=2,
        seed=seed,
        fraction=1.0,
        augmentation=Augmentation(padding=1),
    )


def genotypes(count: int, space: Any = SPACE) -> tuple[Genotype, ...]:
    """Known ones, always the same."""
    rng = np.random.default_rng(1234)
    return tuple(distinct(lambda: space.sample(rng), count, ()))


def problem(
    seed: int = 0,
    evaluations: int = 10,
    epochs: int = 3,
    bounds: dict[str, Bound] | None = None,
    widths: int = 1,
    seeds: int = 0,
    space: Any = SPACE,
    images: int = 128,
) -> Problem[Any]:
    parts = splits(images=images)
    return Problem(
        space=space,
        axes=Axes({"error": Error(), "params": Params()}, bounds or {}),
        skeleton=space.skeleton(parts.input, parts.classes),
        targets=tuple(space.skeleton(parts.input, parts.classes, channels=2 + 2 * n) for n in range(widths)),
        budget=Budget(evaluations, epochs),
        seed=seed,
        rng=np.random.default_rng(seed),
        device=torch.device("cpu"),
        splits=parts,
        seeds=genotypes(seeds, space),
    )
