"""The searches of MGAS on CIFAR-10 (X. Liu and others, arXiv 2310.15074), as the authors' code has them
(github.com/lxy12357/MG_DARTS).

Sizes of the two networks that were released, settings of the code's last commit. Inferred: the targets (what the
released networks measure), and the epochs, which in the code follow from the budgets alone. Left out, since Skyline has
it not: AutoAugment while searching. In the evaluation the auxiliary head and drop path are those of the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nas_core.presets import presets
from nas_core.presets.entrannas import ImageNet

SOURCE = (
    "arXiv 2310.15074; settings of the authors' code, github.com/lxy12357/MG_DARTS@758f6f9; targets and epochs inferred"
)
SPACE: Mapping[str, Any] = {
    "name": "darts",
    "stem": "cifar",
    "nodes": 4,
    "fan_in": "free",
    "levels": "cell",
    "filters": True,
}
ALGORITHM: Mapping[str, Any] = {
    "name": "mgas",
    "measure": "published",
    "stages": 3,
    "rho": [0.3, 0.3, 0.3],
    "initial_epochs": 5,
    "commit_every": 2,
    "lambda_start": 1e-5,
    "lambda_factor": 2.0,
    "few_ops": 12,
    "batch": 96,
    "lr": 0.01,
    "weight_decay": 3e-4,
    "alpha_lr": 1.0,
    "threshold_lr": 0.1,
    "weight_threshold_lr": 1e-3,
    "cutout": 16,
    "regrow": 0.2,
}
VERIFY: Mapping[str, Any] = {
    "epochs": 600,
    "seeds": 1,
    "batch": 96,
    "lr": 0.025,
    "weight_decay": 3e-4,
    "drop_path": 0.2,
    "auxiliary": 0.4,
    "augment": True,
    "cutout": 16,
}
EPOCHS = 200


@presets.register("mgas-cifar10")
class MgasCifar10:
    """MGAS on CIFAR-10 at the size of the larger released network, by the authors' code: 14 cells, 44 channels, down to
    1.5 M weights of convolutions. Inferred: target and epochs.
    """

    source: ClassVar[str] = SOURCE
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "space": {**SPACE, "cells": 14, "channels": 44},
        "algorithm": {**ALGORITHM, "targets": [1.5e6]},
        "budget": {"epochs": EPOCHS},
        "verify": VERIFY,
    }


@presets.register("mgas-cifar10-small")
class MgasCifar10Small:
    """MGAS on CIFAR-10 at the size of the smaller released network, by the authors' code: 8 cells, 24 channels, down to
    0.5 M weights of convolutions. Inferred: target and epochs.
    """

    source: ClassVar[str] = SOURCE
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "space": {**SPACE, "cells": 8, "channels": 24},
        "algorithm": {**ALGORITHM, "targets": [0.5e6]},
        "budget": {"epochs": EPOCHS},
        "verify": VERIFY,
    }


@presets.register("mgas-imagenet")
class MgasImageNet:
    """MGAS on images of ImageNet's kind: a stem of stride 8, 14 cells of 48 channels pruned below 600 M multiply-adds
    on 10 % of the images, then 250 epochs. All of it is inferred: the authors' protocol and code for ImageNet were not
    to be had.
    """

    source: ClassVar[str] = (
        "inferred: settings for CIFAR-10 by the authors' code; images, size and evaluation as the preset imagenet"
    )
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "space": {**SPACE, "cells": 14, "channels": 48, "stem": "imagenet"},
        "algorithm": {
            **ALGORITHM,
            "measure": "macs",
            "targets": [600e6],
            "cutout": 0,
            "train_share": ImageNet.job["algorithm"]["train_share"],
            "validation_share": ImageNet.job["algorithm"]["validation_share"],
        },
        "budget": {"epochs": EPOCHS},
        "verify": ImageNet.job["verify"],
    }
