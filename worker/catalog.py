"""``python -m worker.catalog SUPERVISOR [LOST]``: what this host can run, as JSON on standard output.

A process of its own, because the forms of plug-ins are read from modules that may import torch, and because users'
plug-ins are code: what they print goes to standard error, and one that hangs or ends the process is seen from outside
(worker.inspection). LOST is JSON: by key, why a plug-in is left out.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psutil
import torch

from nas_core import devices, plugins
from nas_core.algorithms import algorithms
from nas_core.datasets import Dataset, Presence, datasets
from nas_core.errors import DeviceError, NasCoreError
from nas_core.objectives import objectives
from nas_core.plugins import Added, Plugin
from nas_core.presets import presets
from nas_core.registry import Registry
from nas_core.settings import form
from nas_core.spaces import spaces
from skyline.schemas import CatalogEntry, Publication
from skyline.schemas.catalog import CatalogKind
from store.settings import settings
from worker.control import NO_DEVICE, die_with
from worker.identity import Identity
from worker.plugins import wanted

KINDS: dict[str, tuple[CatalogKind, Registry[type[Any]]]] = {
    spaces.what: ("space", spaces),
    algorithms.what: ("algorithm", algorithms),
    objectives.what: ("objective", objectives),
    datasets.what: ("dataset", datasets),
    presets.what: ("preset", presets),
}
"""By what a registry holds."""


def summary(cls: type[Any]) -> str:
    """First paragraph of the docstring."""
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def offers(space: type[Any], needs: type[Any]) -> bool:
    """Whether a space has everything an algorithm's Protocol names; looked up on the class, so that none is made."""
    if not _is_protocol(needs):
        return issubclass(space, needs)
    named = {name for part in needs.__mro__ if _is_protocol(part) for name in vars(part)}
    return all(hasattr(space, name) for name in named if not name.startswith("_"))


def _is_protocol(cls: type[Any]) -> bool:
    return bool(vars(cls).get("_is_protocol", False))


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


def entry(what: str, name: str, plugin: str | None = None) -> CatalogEntry:
    """What is known of one name in a registry; ``plugin``: whose it is."""
    kind, registry = KINDS[what]
    cls = registry[name]
    workers = {}
    if kind == "dataset":
        workers = {Identity().name: present(cls).to_json()}
    elif kind == "objective" and plugin is None and hasattr(cls, "here"):
        workers = {Identity().name: cls.here(the_device(Identity()))}
    made = {} if kind == "preset" else form(cls)
    facts = _facts(kind, cls, plugin) | ({} if plugin is None else {"plugin": plugin})
    return CatalogEntry(kind=kind, name=name, summary=summary(cls), settings=made, facts=facts, workers=workers)


def _facts(kind: CatalogKind, cls: type[Any], plugin: str | None) -> dict[str, Any]:
    match kind:
        case "algorithm":
            fits = [space for space, described in spaces.items() if offers(described, cls.needs)]
            return {
                "spaces": fits,
                "needs": cls.needs.__name__,
                "needs_seeds": getattr(cls, "needs_seeds", False),
                "hands_on": getattr(cls, "hands_on", False),
                "brings_weights": getattr(cls, "brings_weights", False),
                "redone": sorted(getattr(cls, "redone", ())),
            }
        case "objective":
            counted = {name: getattr(cls, name, None) for name in ("resource", "scale") if cls.source == "exact"}
            common = {"unit": cls.unit, "direction": cls.direction, "source": cls.source}
            if cls.source == "exact" and not getattr(cls, "additive", True):
                common["additive"] = False
            if plugin is None and hasattr(cls, "predicts"):
                common["predicts"] = cls.predicts
            return common | {name: value for name, value in counted.items() if value is not None}
        case "dataset":
            return dict(cls.facts)
        case "preset":
            return {"source": cls.source, "job": {part: dict(fields) for part, fields in cls.job.items()}}
        case _:
            return {}


def described(loaded: Plugin, key: str) -> tuple[list[CatalogEntry], Plugin]:
    """The entries of what a plug-in (``key``: its file) adds; what cannot be described goes, and the report says so."""
    entries: list[CatalogEntry] = []
    added: list[Added] = []
    errors = [] if loaded.error is None else [loaded.error]
    for what, name in loaded.adds:
        try:
            made = entry(what, name, loaded.name)
            json.dumps(made.model_dump(mode="json"), allow_nan=False)
        # a user's own code again: a data set looks for its files
        except (Exception, SystemExit) as error:
            errors.append(f"{what} '{name}': {plugins.said(error, key)}")
            continue
        entries.append(made)
        added.append((what, name))
    return entries, replace(loaded, adds=tuple(added), error="; ".join(errors) or None)


def report(plugin: Plugin) -> CatalogEntry:
    part = {"adds": [f"{what} '{name}'" for what, name in plugin.adds], "error": plugin.error}
    return CatalogEntry(kind="plugin", name=plugin.name, summary="", settings={}, workers={Identity().name: part})


def publication(
    lost: Mapping[str, str] | None = None, touching: Callable[[str | None], None] = lambda key: None
) -> Publication:
    """``lost``: why plug-ins are left out, by key; ``touching`` is told before one is loaded or asked."""
    identity = Identity()
    device = the_device(identity)
    memory_mb = devices.memory_mb(device) or psutil.virtual_memory().total / devices.MIB
    own = [(what, name) for what, (_, registry) in KINDS.items() for name in registry]
    loaded: list[tuple[str, Plugin]] = []
    for source in plugins.sources(wanted()):
        if lost and source.key in lost:
            loaded.append((source.key, Plugin(source.name, error=lost[source.key])))
        else:
            touching(source.key)
            loaded.append((source.key, plugins.load(source)))
    users: list[CatalogEntry] = []
    for key, plugin in loaded:
        touching(key)
        entries, left = described(plugin, key)
        users += [*entries, report(left)]
    touching(None)
    return Publication(
        entries=[*(entry(what, name) for what, name in own), *users],
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


def main(arguments: Sequence[str]) -> int:
    """The exit code; 0 once the publication is written."""
    die_with(int(arguments[0]))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)  # what plug-ins print is no part of the answer

        def write(document: Mapping[str, Any]) -> None:
            answer.write(json.dumps(document) + "\n")
            answer.flush()

        lost = json.loads(arguments[1]) if len(arguments) > 1 else {}
        try:
            write(publication(lost, lambda key: write({"plugin": key})).model_dump(mode="json"))
        except DeviceError as error:
            print(error, file=sys.stderr)
            return NO_DEVICE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
