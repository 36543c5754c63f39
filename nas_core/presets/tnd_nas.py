"""Searches by TND-NAS: those of its authors on CIFAR, and the one that Skyline's figures on NAS-Bench-201 are of.

The authors' (B. Lyu, S. Wen et al., arXiv 2111.03892) are as the first author's code has them. Of two runs: that of 2
July 2021, whose cell has the published sizes at 16, 24 and 48 channels, and the later one on CIFAR-100. The paper's own
tables were not to be had. Inferred, not read there: that the paper's results come from this code (five of its six sizes
agree); the skip dropout of the July run (that of the runs before it); that cutout and auxiliary head were on in
evaluation (off by default in the code; on in its recorded P-DARTS run). Evaluation took 600 epochs at first, 800 by the
commit of the CIFAR-100 run; the published errors are likely those of 800. The published sizes on CIFAR-100 are, two of
three, those of the July cell retrained there, and none is of the cell that the CIFAR-100 run came to. References of
``params`` are counts; millions there.

The reward prices networks at the first target width, so the width at which the run measured stands first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nas_core.presets import presets

SOURCE = "arXiv 2111.03892; settings of the first author's code, github.com/blyucs/pdarts"
LATER_OPS = (
    "none",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_3x3",
    "conv_3x1_1x3",
)
REDUCE_OPS = ("none", "skip_connect", "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "avg_pool_3x3")
SPACE: Mapping[str, Any] = {
    "name": "darts",
    "cells": 5,
    "stem": "cifar",
    "nodes": 4,
    "reduce_ops": list(REDUCE_OPS),
    "fan_in": "any",
}
"""``cells`` is the depth of the first stage; ``depths`` of the algorithm has all of them."""
ALGORITHM: Mapping[str, Any] = {
    "name": "tnd-nas",
    "preferences": 1,
    "stages": 3,
    "depths": [5, 11, 17],
    "normal_left": [6, 3, 1],
    "reduce_left": [4, 2, 1],
    "lr": 0.04,
    "weight_decay": 3e-4,
    "augment": True,
    "shrink": 1,
    "weights": "relaxed",
    "carry": False,
    "average": 0.0,
    "alpha_weight_decay": 1e-3,
    "samples": 10,
    "redraws": 0,
    "elites": 0,
    "explore": 0.0,
    "reward": "sum",
    "score": "error",
    "rescored": 0,
    "ranked_by": {"supernet": 1.0},
    "max_skips": None,
}
"""``rescored`` 0: the search front is the one derived cell, at each width."""
VERIFY: Mapping[str, Any] = {
    "epochs": 600,
    "seeds": 1,
    "batch": 128,
    "lr": 0.025,
    "weight_decay": 3e-4,
    "drop_path": 0.3,
    "auxiliary": 0.4,
    "augment": True,
    "cutout": 16,
    "label_smoothing": 0.0,
}


@presets.register("paper-cifar10")
class PaperCifar10:
    """TND-NAS on CIFAR-10 by its first author's code: one cell for 36 (where it is priced), 16, 24 and 48 channels;
    needs the objective params. Inferred: skip dropout, cutout, auxiliary head.
    """

    source: ClassVar[str] = f"{SOURCE}@a2aebb3 (run of 2 July 2021)"
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "space": {**SPACE, "channels": 16, "normal_ops": [*LATER_OPS[:7], "conv_1x1", *LATER_OPS[7:]]},
        "target": {"cells": 20, "channels": [36, 16, 24, 48]},
        "algorithm": {
            **ALGORITHM,
            "warmup": 0.6,
            "batch": 256,
            "alpha_lr": 6e-3,
            "interval": 1,
            "skip_dropout": [0.3, 0.6, 0.8],
            "exponents": {"params": [-0.45, -0.2, -0.25]},
            "references": {"params": [6.4e6, 5.4e6, 4.4e6]},
        },
        "budget": {"epochs": 75},
        "verify": {**VERIFY, "top": 4},
    }


@presets.register("paper-cifar100")
class PaperCifar100:
    """TND-NAS on CIFAR-100 by its first author's code: one cell for 24 (where it is priced) and 36 channels; needs the
    objective params. Two of three published CIFAR-100 sizes are of paper-cifar10's cell, none of this run's.
    Inferred: cutout, auxiliary head; of several skip dropouts that were tried, one.
    """

    source: ClassVar[str] = f"{SOURCE}@c4de94e (run of 15 July 2021)"
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "space": {**SPACE, "channels": 24, "normal_ops": list(LATER_OPS)},
        "target": {"cells": 20, "channels": [24, 36]},
        "algorithm": {
            **ALGORITHM,
            "warmup": 0.5,
            "batch": 64,
            "alpha_lr": 1e-2,
            "interval": 4,
            "skip_dropout": [0.3, 0.8, 0.9],
            "exponents": {"params": [-0.95, -1.0, -1.0]},
            "references": {"params": [4.4e6, 3.2e6, 2.5e6]},
        },
        "budget": {"epochs": 48},
        "verify": {**VERIFY, "epochs": 800, "top": 2},
    }


@presets.register("tnd-nas-small")
class TndNasSmall:
    """TND-NAS in minutes of two cores, on images of 32 pixels made four times smaller: a supernet of five cells that
    trains single paths, a front of eight preferences. Any space and objectives; give a space of 8 channels or so.
    """

    source: ClassVar[str] = "Skyline's own: what its figures on NAS-Bench-201 were measured with"
    job: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "algorithm": {
            "name": "tnd-nas",
            "depths": [5, 5, 5],
            "carry": True,
            "weights": "paths",
            "draws": 8,
            "path_explore": 1.0,
            "batch": 128,
            "lr": 0.05,
            "average": 0.998,
            "shrink": 4,
            "untrained_shrink": 2,
            "untrained_draws": 3,
            "ranked_by": {"supernet": 0.2, "progressivity": 1.0, "synflow": 1.0},
            "score": "expected_error",
            "score_images": 500,
            "interval": 24,
            "alpha_lr": 0.1,
            "skip_dropout": [],
            "rescored": 200,
            "final_draws": 10,
        },
        "budget": {"epochs": 36, "evaluations": 250},
    }
