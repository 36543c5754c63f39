"""A search space of more ops than DARTS', and the search of EnTranNAS directly on ImageNet (arXiv 2101.11342).

The authors' extended space and their settings were not to be had. The ops here are ours; the search's settings are
those of neighbours in PyTorch (PC-DARTS, arXiv 1907.05737, by its code), the evaluation is that which P-DARTS, PC-DARTS
and ISTA-NAS share, by their code. What Skyline has not, see docs/howto/presets.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nas_core.presets import presets

EXTENDED_OPS = (
    "none",
    "skip_connect",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "avg_pool_3x3",
    "conv_1x1",
    "conv_3x3",
    "conv_3x1_1x3",
    "conv_7x1_1x7",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""DARTS' ops and those of NASNet (Zoph et al., arXiv 1707.07012)."""
PART = 0.45
"""Of the training images, that each of the parts train and validation holds."""


@presets.register("darts-extended")
class DartsExtended:
    """Ours: DARTS cells with the ops of NASNet besides DARTS' own, 14 and none; goes with any algorithm."""

    source: ClassVar[str] = "ours; ops of arXiv 1806.09055 and 1707.07012"
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "space": {"name": "darts", "normal_ops": list(EXTENDED_OPS), "reduce_ops": list(EXTENDED_OPS)}
    }


@presets.register("imagenet")
class ImageNet:
    """EnTranNAS on images of ImageNet's kind: a stem of stride 8, 10 % of the images for the weights and 2.5 % for
    alpha, then 250 epochs. All settings are inferred from neighbouring methods.
    """

    source: ClassVar[str] = "inferred: search as PC-DARTS' code (arXiv 1907.05737), evaluation as DARTS' successors"
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "space": {"name": "darts", "cells": 8, "channels": 16, "stem": "imagenet"},
        "target": {"cells": 14, "channels": 48},
        "algorithm": {
            "name": "entrannas",
            "batch": 1024,
            "lr": 0.5,
            "lr_min": 0.0,
            "alpha_lr": 6e-3,
            "train_share": round(0.1 / PART, 4),
            "validation_share": round(0.025 / PART, 4),
            "warmup_epochs": 35,
        },
        "budget": {"epochs": 50},
        "verify": {
            "epochs": 250,
            "batch": 1024,
            "lr": 0.5,
            "weight_decay": 3e-5,
            "auxiliary": 0.4,
            "label_smoothing": 0.1,
        },
    }
