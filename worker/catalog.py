"""``python -m worker.catalog``: what this host can run, as JSON on standard output.

A process of its own, because the forms of plug-ins are read from modules that may import torch.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import sys
from typing import Any

import psutil
import torch

from nas_core import devices
from nas_core.algorithms import algorithms
from nas_core.datasets import Dataset, Presence, datasets
from nas_core.errors import DeviceError, NasCoreError
from nas_core.objectives import objectives
from nas_core.settings import form
from nas_core.spaces import spaces
from skyline.schemas import CatalogEntry, Publication
from store.settings import settings
from worker.control import NO_DEVICE
from worker.identity import Identity


def summary(cls: type[Any]) -> str:
    """First paragraph of the docstring."""
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def offers(space: type[Any], needs: type[Any]) -> bool:
    """Whether a space has everything an algorithm's Protocol names; looked up on the class, so that none is made."""
    named = {name for part in needs.__mro__ if part.__module__ == needs.__module__ for name in vars(part)}
    return all(hasattr(space, name) for name in named if not name.startswith("_"))


def the_device(identity: Identity) -> torch.device:
    """All that this process sees. Raises DeviceError where it sees nothing."""
    try:
        return devices.device_of(identity.device_class)
    except DeviceError as error:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise DeviceError(
            f"device '{identity.device}' is not here: PyTorch {torch.__version__}, {built}, sees none with "
            f"{devices.VISIBLE}={os.environ.get(devices.VISIBLE)}; 'nvidia-smi -L' lists what the driver has"
        ) from error


def present(dataset: type[Dataset]) -> Presence:
    """What a data set says of its files. Whatever lies in the folder of data sets, the worker starts."""
    try:
        return dataset.presence(settings().data_root)
    except (NasCoreError, OSError) as error:
        hint = f"The folder of data sets cannot be looked through: {error}"
        return Presence(False, (str(settings().data_root),), hint)


def publication() -> Publication:
    identity = Identity()
    device = the_device(identity)
    memory_mb = devices.memory_mb(device) or psutil.virtual_memory().total / devices.MIB
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
        presence = present(dataset)
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
        memory_gb=round(memory_mb / 1024, 2),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda or "none",
            "device": devices.describe(device),
        },
    )


if __name__ == "__main__":
    try:
        json.dump(publication().model_dump(mode="json"), sys.stdout)
    except DeviceError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_DEVICE)
