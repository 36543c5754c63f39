"""Counting a network from a file: which network is meant, what it costs and why, and a second count of the built one.

``python -m nas_core count`` is the command (``nas_core/__main__.py``). Everything but ``built_cost`` and
``module_cost`` works without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nas_core.architecture import Architecture, Genotype, Skeleton, skeleton_to_json, stem_for
from nas_core.costs import Cost, parts
from nas_core.errors import InvalidGenotypeError
from nas_core.search import SearchSpace
from nas_core.seeds import read_genotype
from nas_core.settings import parse
from nas_core.spaces import spaces
from nas_core.spaces.darts import levels_of

if TYPE_CHECKING:
    from torch import nn

INPUT = (3, 32, 32)
CLASSES = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """On which skeleton a genotype is counted; what is None is as in the document, or as the space has it."""

    cells: int | None = None
    channels: int | None = None
    stem: str | None = None
    input: tuple[int, int, int] | None = None
    classes: int | None = None


def read_document(text: str) -> Mapping[str, Any]:
    """Of a JSON object, or an arch string. Raises InvalidGenotypeError for what is neither."""
    if is_arch(text):
        return {"arch": text.strip()}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidGenotypeError(f"this is no JSON document: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise InvalidGenotypeError(f"this is no JSON object, but {str(document)[:80]!r}")
    return document


def is_arch(text: str) -> bool:
    """Whether this means to be an arch string of NAS-Bench-201."""
    return text.lstrip().startswith("|")


def architecture_of(text: str, wanted: Wanted, space: str | None = None) -> Architecture:
    """The network that a document means: a whole architecture, or a genotype on its space's skeleton.

    Of a whole architecture, only what is ``wanted`` differs from what it says. Raises InvalidGenotypeError,
    InvalidSettingsError or UnknownNameError.
    """
    document = read_document(text)
    genotype = read_genotype(document)
    if space is not None and space != genotype.space:
        raise InvalidGenotypeError(
            f"this is a genotype of space '{genotype.space}', not of '{space}'; "
            "leave the space out, or give another file"
        )
    reduce = genotype.types.get("reduce")
    if genotype.space == "darts" and reduce is not None and not reduce.reduction:
        raise InvalidGenotypeError(
            "cell 'reduce' is not marked as a reduction, so that nothing would be downsampled; "
            'write "reduction": true in it'
        )
    if "skeleton" not in document:
        return _checked(genotype, _skeleton(genotype, wanted))
    whole = Architecture.from_json(document)
    here = whole.skeleton
    asked = Wanted(
        wanted.cells,
        wanted.channels or here.channels,
        wanted.stem or here.stem,
        wanted.input or here.input,
        wanted.classes or here.classes,
    )
    if wanted.cells is not None and wanted.cells != len(here.cells):
        return whole.on(_skeleton(genotype, asked))
    assert asked.channels is not None and asked.stem is not None
    assert asked.input is not None and asked.classes is not None
    stem = stem_for(asked.stem, asked.input)
    return whole.on(replace(here, channels=asked.channels, stem=stem, input=asked.input, classes=asked.classes))


def _skeleton(genotype: Genotype, wanted: Wanted) -> Skeleton:
    space = genotype.space
    given = {"cells": wanted.cells, "channels": wanted.channels, "stem": wanted.stem}
    settings = {name: value for name, value in given.items() if value is not None}
    if space == "darts":
        settings = {**levels_of(genotype), **settings}
    made: SearchSpace = parse(spaces[space], settings, f"space '{space}'")
    return made.skeleton(wanted.input or INPUT, wanted.classes or CLASSES)


def _checked(genotype: Genotype, skeleton: Skeleton) -> Architecture:
    architecture = Architecture(genotype, skeleton)
    architecture.check()
    return architecture


def report(architecture: Architecture) -> dict[str, Any]:
    """What a network costs, part by part, as JSON. Raises UnknownNameError for an op without a known cost."""
    found = parts(architecture)
    skeleton = skeleton_to_json(architecture.skeleton)
    types = skeleton.pop("cells")
    return {
        **_shown(found.total),
        "macs_counter_b": found.total.macs_counter_b,
        "hash": architecture.hash,
        "space": architecture.genotype.space,
        "cells": len(types),
        **skeleton,
        "parts": {
            "stem": _shown(found.stem),
            "cells": [{"type": name, **_shown(cost)} for name, cost in zip(types, found.cells, strict=True)],
            "classifier": _shown(found.classifier),
        },
    }


def _shown(cost: Cost) -> dict[str, int]:
    return {"params": cost.params, "macs": cost.macs}


def built_cost(architecture: Architecture) -> tuple[int, int]:
    """Params and MACs of the real network. It is built on the meta device, so it takes neither memory nor time.
    Imports torch.
    """
    import torch

    from nas_core.network import Network

    with torch.device("meta"):
        return module_cost(Network(architecture), architecture.skeleton.input)


def module_cost(network: nn.Module, input: tuple[int, int, int]) -> tuple[int, int]:
    """Params and MACs of any network: its tensors, and what its convolutions and linear layers do to one image of
    (C, H, W), on the device that it is on. Imports torch.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    parameters = list(network.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, *input, device=parameters[0].device))
    return sum(parameter.numel() for parameter in parameters), counter.get_total_flops() // 2
