"""DARTS_V2 and others as published (quark0/darts and P-DARTS, cnn/genotypes.py), with counts made from the layer
definitions: C=36/L=20 for CIFAR-10 and C=48/L=14 for ImageNet, without auxiliary head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_core.architecture import CellType, Edge, Genotype

DARTS_V2 = {
    "normal": [
        ["sep_conv_3x3", 0],
        ["sep_conv_3x3", 1],
        ["sep_conv_3x3", 0],
        ["sep_conv_3x3", 1],
        ["sep_conv_3x3", 1],
        ["skip_connect", 0],
        ["skip_connect", 0],
        ["dil_conv_3x3", 2],
    ],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [
        ["max_pool_3x3", 0],
        ["max_pool_3x3", 1],
        ["skip_connect", 2],
        ["max_pool_3x3", 1],
        ["max_pool_3x3", 0],
        ["skip_connect", 2],
        ["skip_connect", 2],
        ["max_pool_3x3", 1],
    ],
    "reduce_concat": [2, 3, 4, 5],
}
"""3,349,342 params and 528,359,040 macs on CIFAR-10; 4,718,752 and 529,911,552 on ImageNet, 544.59 M by counter B."""

ISTA_IMAGENET = {
    "normal": [
        ["sep_conv_3x3", 1],
        ["sep_conv_3x3", 0],
        ["sep_conv_3x3", 1],
        ["skip_connect", 2],
        ["sep_conv_3x3", 1],
        ["sep_conv_3x3", 0],
        ["sep_conv_3x3", 1],
        ["dil_conv_5x5", 4],
    ],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [
        ["skip_connect", 0],
        ["sep_conv_3x3", 1],
        ["dil_conv_5x5", 2],
        ["sep_conv_3x3", 0],
        ["sep_conv_3x3", 0],
        ["skip_connect", 2],
        ["sep_conv_3x3", 2],
        ["skip_connect", 3],
    ],
    "reduce_concat": [2, 3, 4, 5],
}
"""Of ISTA-NAS (iboing/ISTA-NAS, tools/genotypes.py), searched on ImageNet: published with 638 M by counter B."""

PUBLISHED: Mapping[str, Any] = json.loads(Path(__file__).with_name("published_genotypes.json").read_text())["genotypes"]
"""By name: ``genotype`` in the form of DARTS, and ``counts`` on CIFAR-10, ImageNet and the search network."""

NodeOps = tuple[tuple[str, int], ...]
"""(op, source) of everything that enters a node."""


def _tnd_nas(normal: tuple[NodeOps, ...], reduce: tuple[NodeOps, ...]) -> Genotype:
    types = {}
    for name, nodes in (("normal", normal), ("reduce", reduce)):
        edges = tuple(Edge(2 + place, source, op) for place, node in enumerate(nodes) for op, source in node)
        types[name] = CellType(edges, reduction=name == "reduce")
    return Genotype("darts", types)


MAX3, MAX5, MAX7, AVG3 = "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "avg_pool_3x3"
SEP3, DIL3, CONV1, CONV3, SPLIT3 = "sep_conv_3x3", "dil_conv_3x3", "conv_1x1", "conv_3x3", "conv_3x1_1x3"
SKIP, NONE = "skip_connect", "none"

TND_NAS = _tnd_nas(
    (
        ((SEP3, 0), (CONV1, 1)),
        ((SKIP, 0), (CONV3, 1)),
        ((CONV1, 0), (CONV1, 1), (SEP3, 3)),
        ((CONV1, 0), (SPLIT3, 1), (DIL3, 3)),
    ),
    (
        ((MAX3, 0), (MAX5, 1)),
        ((MAX5, 0), (MAX3, 1), (MAX5, 2)),
        ((MAX5, 0), (MAX3, 1), (SKIP, 2), (MAX5, 3)),
        ((MAX3, 0), (SKIP, 1), (AVG3, 2), (MAX3, 3)),
    ),
)
"""The published cell of TND-NAS (arXiv 2111.03892), 10 + 13 edges."""

TND_NAS_CIFAR100 = _tnd_nas(
    (
        ((CONV3, 0), (SEP3, 1)),
        ((CONV3, 0), (SKIP, 1), (DIL3, 2)),
        ((SKIP, 0), (DIL3, 1), (SEP3, 2), (DIL3, 3)),
        ((SPLIT3, 0), (SKIP, 1), (SEP3, 2), (NONE, 3), (NONE, 4)),
    ),
    (
        ((MAX3, 0), (MAX3, 1)),
        ((MAX3, 0), (MAX5, 1), (SKIP, 2)),
        ((MAX3, 0), (SKIP, 1), (SKIP, 2), (NONE, 3)),
        ((MAX3, 0), (MAX3, 1), (MAX7, 2), (NONE, 3), (AVG3, 4)),
    ),
)
"""The one that the authors searched on CIFAR-100, ``none`` written out."""
