"""``python -m worker.catalog``: what this host can run, as JSON on standard output.

A process of its own, because the forms of plug-ins are read from modules that may import torch.
"""

from __future__ import annotations

import inspect
import json
import platform
import sys
from typing import Any

import psutil
import torch

from nas_core.algorithms import algorithms
from nas_core.datasets import datasets
from nas_core.objectives import objectives
from nas_core.settings import form
from nas_core.spaces import spaces
from skyline.schemas import CatalogEntry, Publication
from store.settings import settings
from worker.identity import Identity


def summary(cls: type[Any]) -> str:
    """First paragraph of the docstring."""
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def offers(space: type[Any], needs: type[Any]) -> bool:
    """Whether a space has everything an algorithm's Protocol names; looked up on the class, so that none is made."""
    named = {name for part in needs.__mro__ if part.__module__ == needs.__module__ for name in vars(part)}
    return all(hasattr(space, name) for name in named if not name.startswith("_"))


def publication() -> Publication:
    identity = Identity()
    entries = [CatalogEntry(kind="space", name=n, summary=summary(c), settings=form(c)) for n, c in spaces.items()]
    for name, algorithm in algorithms.items():
        fits = [space for space, described in spaces.items() if offers(described, algorithm.needs)]
        entries.append(
            CatalogEntry(
                kind="algorithm",
                name=name,
                summary=summary(algorithm),
                settings=form(algorithm),
                facts={"spaces": fits, "needs": algorithm.needs.__name__},
            )
        )
    for name, objective in objectives.items():
        facts = {"unit": objective.unit, "direction": objective.direction, "source": objective.source}
        entries.append(
            CatalogEntry(kind="objective", name=name, summary=summary(objective), settings=form(objective), facts=facts)
        )
    for name, dataset in datasets.items():
        presence = dataset.presence(settings().data_root)
        entries.append(
            CatalogEntry(
                kind="dataset",
                name=name,
                summary=summary(dataset),
                settings=form(dataset),
                facts=dataset.facts,
                workers={identity.name: presence.to_json()},
            )
        )
    return Publication(
        entries=entries,
        device=identity.device,
        threads=identity.threads,
        memory_gb=round(psutil.virtual_memory().total / 2**30, 2),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda or "none",
        },
    )


if __name__ == "__main__":
    json.dump(publication().model_dump(mode="json"), sys.stdout)
