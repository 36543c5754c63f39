"""Objectives of a job that are looked up in registered tables: what they stand for, and whether the job's networks are
those that the table has values of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.errors import Fault, pointer
from api.imagesets import Images
from nas_core.architecture import Skeleton, skeleton_from_json
from nas_core.errors import TableError
from nas_core.tables import Column
from skyline.schemas import CatalogEntry, JobSpec, ObjectiveSpec
from skyline.schemas.jobs import QUALITIES
from store import models

WHOLE_FRONT = 1000
"""``verify.top`` of a job whose values are all known without training and measuring, where none is given."""
SUPERNETS = ("Relaxable", "Granular")
"""What algorithms need of a space that train a supernet of their own."""
NOTED = ("sha256", "unit", "direction")
"""Settings that the service adds to what is looked up."""


@dataclass(frozen=True)
class About:
    """What is known of a registered table without its rows."""

    name: str
    sha256: str
    space: str
    skeleton: Skeleton
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Lookup:
    """An objective and the column that it is taken from."""

    key: str
    place: tuple[object, ...]
    table: About
    column: Column
    """As the objective has it: an error or accuracy is a fraction."""

    @property
    def noted(self) -> dict[str, str]:
        return {"sha256": self.table.sha256, "unit": self.column.unit, "direction": self.column.direction}


Lookups = Mapping[int, Lookup]
"""By the objective's place in the job."""


def about(row: models.RegisteredTable) -> About:
    columns = {
        column["name"]: Column(column["unit"], column["direction"], *row.ends[column["name"]]) for column in row.columns
    }
    return About(row.name, row.sha256, row.space["name"], skeleton_from_json(row.skeleton), columns)


def find(spec: JobSpec, tables: Mapping[str, About]) -> tuple[Lookups, list[Fault]]:
    """The columns that objectives are taken from, and what is wrong with what they name."""
    found: dict[int, Lookup] = {}
    faults: list[Fault] = []
    for index, objective in enumerate(spec.objectives):
        if objective.from_table:
            made = _lookup(objective, ("objectives", index), spec, tables)
            if isinstance(made, Lookup):
                found[index] = made
            else:
                faults.append(made)
    return found, faults


def _lookup(
    objective: ObjectiveSpec, place: tuple[object, ...], spec: JobSpec, tables: Mapping[str, About]
) -> Lookup | Fault:
    settings = objective.settings
    table = tables.get(settings["table"])
    if table is None:
        listed = ", ".join(sorted(tables)) or "none is registered"
        detail = f"unknown table '{settings['table']}'; known: {listed}"
        wanted = f"one of {listed}" if tables else "a table that was registered (POST /v1/tables)"
        return Fault("Unknown table", detail, pointer((*place, "table")), settings["table"], wanted)
    if table.space != spec.space.name:
        detail = f"table '{table.name}' has values of space '{table.space}', and the job searches '{spec.space.name}'"
        return Fault("Another space", detail, pointer((*place, "table")), table.name, f"a table of '{spec.space.name}'")
    quality = objective.name if objective.name in QUALITIES else None
    if quality is None and settings.get("test") is not None:
        detail = f"'test' names the column of the test error, which only {' and '.join(QUALITIES)} have"
        return Fault("Invalid setting", detail, pointer((*place, "test")), settings["test"], "nothing")
    columns: dict[str, Column] = {}
    for setting in ("column", "test"):
        name = settings.get(setting)
        if name is None:
            continue
        if name not in table.columns:
            listed = ", ".join(table.columns)
            detail = f"table '{table.name}' has no column '{name}'; it has {listed}"
            return Fault("Unknown column", detail, pointer((*place, setting)), name, f"one of {listed}")
        columns[setting] = table.columns[name]
        if quality is not None:
            try:
                columns[setting] = columns[setting].quality(quality)
            except TableError as error:
                detail = f"column '{name}' of table '{table.name}': {error}"
                expected = "a column in % or fraction"
                return Fault("Column does not fit", detail, pointer((*place, setting)), name, expected)
    lookup = Lookup(objective.effective_key, place, table, columns["column"])
    for setting, noted in lookup.noted.items():
        if settings.get(setting) not in (None, noted):
            detail = (
                f"objective '{lookup.key}': {setting} is {settings[setting]!r}, and table '{table.name}' has {noted!r} "
                "now; the service notes it by itself: leave it out"
            )
            return Fault("Not registered so", detail, pointer((*place, setting)), settings[setting], "nothing")
    return lookup


def images(found: Lookups) -> Images:
    """Of the networks that the first table has values of."""
    skeleton = next(iter(found.values())).table.skeleton
    return Images(skeleton.input, skeleton.classes)


def misfits(found: Lookups, skeletons: Sequence[Skeleton]) -> Iterator[Fault]:
    """Tables that have values of other networks than the job wants."""
    for lookup in found.values():
        other = next((skeleton for skeleton in skeletons if skeleton != lookup.table.skeleton), None)
        if other is not None:
            detail = (
                f"table '{lookup.table.name}' has values of networks of {_words(lookup.table.skeleton)}; "
                f"this job's have {_words(other)}"
            )
            expected = f"networks of {_words(lookup.table.skeleton)}, or another table"
            yield Fault("Other networks", detail, pointer((*lookup.place, "table")), lookup.table.name, expected)


def _words(skeleton: Skeleton) -> str:
    images = "x".join(map(str, skeleton.input))
    return (
        f"{len(skeleton.cells)} cells, {skeleton.channels} channels, stem {skeleton.stem}, for images of {images} in "
        f"{skeleton.classes} classes"
    )


def untrained(spec: JobSpec, entries: Mapping[tuple[object, ...], CatalogEntry]) -> Iterator[Fault]:
    """What a job says about training although the quality of its networks is looked up."""
    if not spec.looked_up:
        return
    algorithm = entries["algorithm",]
    for index, objective in enumerate(spec.objectives):
        if entries["objectives", index].facts.get("source") == "data":
            detail = (
                f"objective '{objective.name}' follows from an error on images, and this job takes its error from a "
                "table; leave one of them out"
            )
            place = pointer(("objectives", index))
            yield Fault("Nothing to learn", detail, place, objective.name, "objectives that need no training")
    evaluate = spec.algorithm.settings.get("evaluate")
    default = algorithm.settings.get("properties", {}).get("evaluate", {}).get("default")
    if evaluate is not None and evaluate != default:  # a stored job has the default
        detail = "algorithm.evaluate says how an error is learnt, and this job takes it from a table; leave it out"
        yield Fault("Nothing to learn", detail, "/algorithm/evaluate", dict(evaluate), "nothing")
    if spec.dataset is None and algorithm.facts.get("needs") in SUPERNETS:
        detail = f"algorithm '{algorithm.name}' trains a supernet, so the job needs a data set, too"
        yield Fault("Missing field", detail, "/dataset", None, "a data set")


def noted(found: Lookups, spec: JobSpec, entries: Mapping[tuple[object, ...], CatalogEntry]) -> dict[str, Any]:
    """What the service adds to a stored job: ``objectives`` by place, and ``top``."""
    sources = {entries["objectives", index].facts.get("source") for index in range(len(spec.objectives))}
    whole = sources <= {"exact", "tabular"} and "top" not in spec.verify.model_fields_set
    return {
        "objectives": {index: lookup.noted for index, lookup in found.items()},
        "verify": {"top": WHOLE_FRONT} if whole else {},
    }
