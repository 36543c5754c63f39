"""A catalog as a worker publishes it: real forms where they import without torch, small ones elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from nas_core.datasets import datasets
from nas_core.objectives import objectives
from nas_core.settings import form, settings
from nas_core.spaces import spaces


@settings
class Short:
    epochs: Annotated[int, Ge(1)] = 2
    subset: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 0.05


@settings
class Shared:
    supernet_epochs: Annotated[int, Ge(1)]
    shrink: Annotated[int, Ge(1)] = 1
    lr: Annotated[float, Gt(0)] = 0.05


@settings
class Evolution:
    population: Annotated[int, Ge(4)] = 20
    crossover: Annotated[float, Ge(0), Le(1)] = 0.9
    evaluate: Short | Shared = Short()


@settings
class Given:
    batch: Annotated[int, Ge(1)] = 10
    evaluate: Short | Shared | None = Short()


@settings
class Sampling:
    batch: Annotated[int, Ge(1)] = 10


@settings
class Staged:
    weight: Annotated[float, Gt(0)] = 0.5
    policy: Short = Short()
    evaluate: Short = Short()


@settings
class Nothing:
    pass


@settings
class Downloaded:
    download: bool = True


@settings
class File:
    path: str


NO_COUNTER = {"counter": None, "reason": "this machine shows no RAPL counter", "class": "cpu"}


PRESETS: dict[str, dict[str, Any]] = {
    "small-darts": {
        "space": {"name": "darts", "cells": 5, "channels": 8},
        "target": {"cells": 6, "channels": [12, 8]},
        "algorithm": {"name": "nsga2", "population": 8, "evaluate": {"epochs": 3}},
        "budget": {"epochs": 7},
        "verify": {"top": 2, "epochs": 9},
    },
    "staged": {
        "space": {"name": "darts", "cells": 5, "channels": 8},
        "algorithm": {"name": "tnd-nas", "weight": 2.0, "policy": {"epochs": 4}},
    },
    "tenth": {"dataset": {"fraction": 0.1}, "verify": {"epochs": 250}},
}
"""Two that settle the method, one of them for a search that others go on from; and one that goes with any."""


def entries(worker: str = "worker-1") -> list[dict[str, Any]]:
    """What a worker with digits and one npz file publishes; Fashion-MNIST would have to be fetched."""
    found: list[dict[str, Any]] = []

    def add(kind: str, name: str, cls: type[Any], facts: Mapping[str, Any], **part: Any) -> None:
        found.append(
            {
                "kind": kind,
                "name": name,
                "summary": name,
                "settings": form(cls),
                "facts": dict(facts),
                "workers": {worker: part} if part else {},
            }
        )

    add("space", "darts", spaces["darts"], {})
    add("space", "team-space", Nothing, {})
    add("algorithm", "nsga2", Evolution, {"spaces": ["darts", "team-space"]})
    add("algorithm", "random", Sampling, {"spaces": ["darts", "team-space"]})
    add("algorithm", "darts", Sampling, {"spaces": ["darts"], "needs": "Relaxable"})
    add("algorithm", "entrannas", Sampling, {"spaces": ["darts"], "needs": "Relaxable"})
    add("algorithm", "rc-darts", Sampling, {"spaces": ["darts"], "needs": "Relaxable"})
    add("algorithm", "mgas", Sampling, {"spaces": ["darts"], "needs": "Granular"})
    goes_on = {"hands_on": True, "redone": ["policy", "weight"]}
    add("algorithm", "tnd-nas", Staged, {"spaces": ["darts", "team-space"], "needs": "Relaxable", **goes_on})
    add("algorithm", "given", Given, {"spaces": ["darts", "team-space"], "needs_seeds": True})
    for name, cls in objectives.items():
        facts = ("unit", "direction", "source", "resource", "scale", "predicts")
        counts = NO_COUNTER if name == "energy_mj" else {}
        add("objective", name, cls, {fact: getattr(cls, fact) for fact in facts if hasattr(cls, fact)}, **counts)
    there = {"present": True, "searched": [], "hint": "shipped with Skyline", "files": {}, "downloadable": False}
    digits, fashion = datasets["digits"].facts, {"input": [1, 28, 28], "classes": 10}
    add("dataset", "digits", Nothing, digits, **there)
    add(
        "dataset",
        "fashion-mnist",
        Downloaded,
        fashion,
        present=False,
        searched=["/data/fashion-mnist", "/usr/share/datasets/fashion-mnist"],
        hint="apt-get install dataset-fashion-mnist",
        files={},
        downloadable=True,
    )
    files = {"mine/birds.npz": {"input": [3, 32, 32], "classes": 5, "train": 8000, "test": 2000}}
    hint = "put an .npz file with x_train, y_train, x_test, y_test there"
    for name, job in PRESETS.items():
        about = {"kind": "preset", "name": name, "summary": f"{name}.", "settings": {}}
        found.append({**about, "facts": {"source": "ours", "job": job}, "workers": {worker: {}}})
    add("dataset", "npz", File, {}, present=True, searched=["/data"], hint=hint, files=files, downloadable=False)
    return found


def publication(worker: str = "worker-1") -> dict[str, Any]:
    versions = {"torch": "2.13.0"}
    return {"entries": entries(worker), "device": "cpu", "threads": 2, "memory_gb": 8.0, "versions": versions}
