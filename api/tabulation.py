"""A table to be registered: every fault found, or its columns as they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api import forms
from api.errors import Fault, refusal
from api.shapes import shaped
from nas_core.architecture import Skeleton, skeleton_to_json
from nas_core.errors import NasCoreError
from nas_core.search import SearchSpace
from nas_core.settings import dump, form, parse
from nas_core.spaces import spaces
from nas_core.tables import Column, MalformedTableError, read
from skyline.schemas import RegisteredTable, TableColumn, TableRegistration
from store import models

TITLE = "Invalid table"


@dataclass(frozen=True)
class Wanted:
    """A registration whose text has not been read yet."""

    registration: TableRegistration
    space: SearchSpace
    skeleton: Skeleton
    about: Mapping[str, Any]
    """What makes it the same as one that is registered."""


def complete(document: Mapping[str, Any]) -> Wanted:
    """Raises ProblemError (422) with all faults but those of the text."""
    wanted = shaped(TableRegistration, document, TITLE, "the registration")
    space, skeleton = _network(wanted)
    if wanted.key in wanted.columns:
        detail = f"columns: '{wanted.key}' names the architectures, so it holds no numbers; leave it out"
        raise refusal([Fault(TITLE, detail, f"/columns/{wanted.key}", wanted.key, "columns of numbers")])
    about = {
        "sha256": hashlib.sha256(wanted.csv.encode()).hexdigest(),
        "space": {"name": wanted.space.name, **dump(space)},
        "skeleton": skeleton_to_json(skeleton),
        "key": wanted.key,
        "columns": [{"name": name, **column.model_dump()} for name, column in wanted.columns.items()],
        "partial": wanted.partial,
        "description": wanted.description,
    }
    return Wanted(wanted, space, skeleton, about)


def columns(wanted: Wanted) -> dict[str, Any]:
    """Those of the row, after the whole text was read. Raises ProblemError (422) with what is wrong with it."""
    asked = wanted.registration
    try:
        found = read(asked.csv, asked.key, list(asked.columns), wanted.space, wanted.skeleton, asked.partial)
    except MalformedTableError as error:
        raise refusal([_fault(error, index) for index in range(len(error.faults))], TITLE) from error
    ends = {name: [low, high] for name, (low, high) in found.ends.items()}
    counted = {"rows": found.rows, "left_out": found.left_out, "missing": found.missing, "ends": ends}
    return {**wanted.about, **counted, "hashes": found.hashes, "numbers": found.numbers}


def _fault(error: MalformedTableError, index: int) -> Fault:
    fault = error.faults[index]
    detail = f"csv: {fault}"
    if error.more and index == len(error.faults) - 1:
        detail += f"; and {error.more} more like these"
    return Fault(TITLE, detail, "/csv", f"{fault.place}: {fault.got}", fault.expected)


def _network(wanted: TableRegistration) -> tuple[SearchSpace, Skeleton]:
    name, settings = wanted.space.name, wanted.space.settings
    if name not in spaces:
        known = ", ".join(spaces)
        detail = f"tables can be registered for the spaces that this service knows itself: {known}; got '{name}'"
        raise refusal([Fault("Unknown space", detail, "/space/name", name, f"one of {known}")])
    faults = forms.faults(settings, form(spaces[name]), f"space '{name}'", ("space",))
    if faults:
        raise refusal(faults, TITLE)
    try:
        space: SearchSpace = parse(spaces[name], settings, f"space '{name}'")
        channels, height, width = wanted.input
        skeleton = space.skeleton((channels, height, width), wanted.classes)
    except NasCoreError as error:
        got = dict(settings)
        raise refusal([Fault("Invalid setting", str(error), "/space", got, "settings that fit together")]) from error
    return space, skeleton


def described(row: models.RegisteredTable) -> RegisteredTable:
    fields = {name: getattr(row, name) for name in RegisteredTable.model_fields if name != "columns"}
    return RegisteredTable(**fields, columns=[_column(column, *row.ends[column["name"]]) for column in row.columns])


def _column(about: Mapping[str, Any], low: float, high: float) -> TableColumn:
    says = Column(about["unit"], about["direction"], low, high).says
    return TableColumn(**about, low=low, high=high, says=says)
