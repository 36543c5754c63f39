"""Names of users' own for data sets: what they stand for in a job.

A job is resolved when it is taken: it holds the catalog's data set with all settings, and the name as a note for
people. Workers never look the name up, and a name that goes, or comes to stand for something else, changes no job.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from api.errors import Fault, pointer
from skyline.schemas import DatasetSpec

Registered = Mapping[str, Mapping[str, Any]]
"""By name: ``name`` in the catalog, and settings."""


def meant(asked: DatasetSpec, registered: Registered, catalog: Container[str]) -> DatasetSpec | list[Fault]:
    """The data set of the catalog that a job's stands for; itself where its name is not registered."""
    stands_for = registered.get(asked.name)
    if stands_for is None:
        return asked if asked.registered is None else _noted(asked, registered)
    if asked.name in catalog:
        detail = (
            f"'{asked.name}' is a registered data set, and one that a worker brought later; delete the registered one, "
            "or name the data set that it is made of with its settings"
        )
        return [Fault("Ambiguous data set", detail, "/dataset/name", asked.name, f"{stands_for['name']} with settings")]
    beside = {**asked.settings, **({"registered": asked.registered} if asked.registered is not None else {})}
    if beside:
        return [_beside(asked.name, setting, got, stands_for) for setting, got in sorted(beside.items())]
    return DatasetSpec.model_validate({**stands_for, "fraction": asked.fraction, "registered": asked.name})


def as_asked(faults: Sequence[Fault], name: str) -> list[Fault]:
    """Faults of what a registered data set stands for, as faults of its name: the rest is not in the request."""
    return [
        replace(fault, detail=f"registered data set '{name}': {fault.detail}", path="/dataset/name", got=name)
        if fault.path.startswith("/dataset/")
        else fault
        for fault in faults
    ]


def _beside(name: str, setting: str, got: Any, stands_for: Mapping[str, Any]) -> Fault:
    detail = (
        f"data set '{name}' is registered with its settings, and '{setting}' stands beside its name; "
        f"leave it out (only 'fraction' may stand there), register another data set, or name "
        f"'{stands_for['name']}' with settings"
    )
    return Fault("Settings of a registered data set", detail, pointer(("dataset", setting)), got, "nothing")


def stale(dataset: Mapping[str, Any], registered: Registered) -> bool:
    """Whether a stored job's data set notes a name that does not stand for it any more."""
    own = {key: value for key, value in dataset.items() if key not in ("fraction", "registered")}
    return dataset.get("registered") is not None and registered.get(dataset["registered"]) != own


def _noted(asked: DatasetSpec, registered: Registered) -> DatasetSpec | list[Fault]:
    """A job that was stored and is posted again: its note is kept where it is still true."""
    if not stale(asked.model_dump(), registered):
        return asked
    detail = (
        f"dataset.registered says '{asked.registered}', which is not registered with these settings (any more); "
        "the service notes it by itself: leave it out"
    )
    return [Fault("Not registered so", detail, "/dataset/registered", asked.registered, "nothing")]
