"""A data set to be registered against what live workers have: every fault found, or its settings as they are stored;
and what workers have of registered ones now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api import forms, imagesets
from api.errors import Fault, refusal
from api.shapes import shaped
from api.validation import Known, require_workers
from skyline.schemas import CatalogEntry, DatasetChoice, DatasetOnWorker, DatasetRegistration, RegisteredDataset
from store import models

TITLE = "Invalid data set"
NO_SETTINGS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""The form of a registered data set: it has them all."""


def complete(document: Mapping[str, Any], known: Known) -> DatasetRegistration:
    """What is to be registered, with every setting. Raises ProblemError: 422 with all faults, 503 without workers."""
    wanted = shaped(DatasetRegistration, document, TITLE, "the registration")
    require_workers(known)
    catalog, chosen = known.of("dataset"), wanted.dataset
    faults = list(_names(wanted, known))
    if not faults:
        faults = _jobs_own(chosen.settings)
    if not faults:
        faults = forms.faults(chosen.settings, catalog[chosen.name].settings, f"data set '{chosen.name}'", ("dataset",))
    if faults:
        raise refusal(faults, TITLE)
    settings = forms.filled(chosen.settings, catalog[chosen.name].settings)
    if isinstance(settings.get("path"), str):
        settings["path"] = imagesets.plain(settings["path"])
    return wanted.model_copy(update={"dataset": DatasetChoice(name=chosen.name, **settings)})


def require_presence(wanted: DatasetRegistration, known: Known) -> None:
    """Raises ProblemError (422) where no worker can read it."""
    entry = known.of("dataset")[wanted.dataset.name]
    found = imagesets.find(entry, wanted.dataset.settings, known.live)
    if isinstance(found, Fault):
        raise refusal([found], TITLE)


def same(row: models.RegisteredDataset, wanted: DatasetRegistration, known: Known) -> bool:
    """Whether this is registered already; settings that came with an upgrade do not count while they are defaults."""
    stored = dict(row.dataset)
    entry = known.of("dataset").get(stored.pop("name"))
    if entry is not None:
        stored = forms.filled(stored, entry.settings)
    return (row.dataset["name"], stored, row.description) == (
        wanted.dataset.name,
        wanted.dataset.settings,
        wanted.description,
    )


def _names(wanted: DatasetRegistration, known: Known) -> Iterator[Fault]:
    catalog = known.of("dataset")
    listed = ", ".join(sorted(catalog)) or "none"
    if wanted.name in catalog:
        detail = f"'{wanted.name}' is a data set of the catalog ({listed}); choose another name"
        yield Fault("Name in the catalog", detail, "/name", wanted.name, f"a name other than {listed}")
    chosen = wanted.dataset.name
    if chosen in catalog:
        return
    detail = f"unknown data set '{chosen}'; known: {listed}"
    if chosen in known.registered:
        base = known.registered[chosen]["name"]
        detail = f"'{chosen}' is registered itself, and a name stands for a data set of the catalog: {listed}. "
        detail += f"It is made of '{base}': name that, with settings"
    yield Fault("Unknown data set", detail, "/dataset/name", chosen, f"one of {listed}")


def _jobs_own(settings: Mapping[str, Any]) -> list[Fault]:
    if "fraction" not in settings:
        return []
    detail = "'fraction' is for a job to say, beside the name: dataset: {name: ..., fraction: 0.5}; leave it out here"
    return [Fault("A job's setting", detail, "/dataset/fraction", settings["fraction"], "nothing")]


# --- what workers have ------------------------------------------------------------------------------------------------


def described(row: models.RegisteredDataset, known: Known) -> RegisteredDataset:
    """A registered data set and who has it now."""
    settings = {name: value for name, value in row.dataset.items() if name != "name"}
    entry = known.of("dataset").get(row.dataset["name"])
    parts = {} if entry is None else entry.workers
    workers = [_on(name, entry, settings, part, known) for name, part in sorted(parts.items()) if entry is not None]
    best = next((each for each in workers if each.live and (each.present or each.downloadable)), None)
    return RegisteredDataset(
        name=row.name,
        dataset=row.dataset,
        description=row.description,
        created_at=row.created_at,
        input=None if best is None else best.input,
        classes=None if best is None else best.classes,
        images=None if best is None else best.images,
        workers=workers,
    )


def _on(
    name: str, entry: CatalogEntry, settings: Mapping[str, Any], part: imagesets.Part, known: Known
) -> DatasetOnWorker:
    facts = imagesets.found(entry, settings, part)
    images = None if facts is None else imagesets.images(facts, settings, entry.settings)
    present = facts is not None and bool(part.get("present"))
    return DatasetOnWorker(
        worker=name,
        live=name in known.live,
        present=present,
        downloadable=facts is not None and not present,
        input=None if images is None else list(images.input),
        classes=None if images is None else images.classes,
        images=None if facts is None else imagesets.counts(facts),
        note="" if present else imagesets.fault_of(settings, part) or str(part.get("hint", "")),
    )


def as_entry(dataset: RegisteredDataset) -> CatalogEntry:
    """A registered data set as forms see it among those of the catalog."""
    base = str(dataset.dataset["name"])
    facts: dict[str, Any] = {"registered": base, "dataset": dataset.dataset}
    if dataset.input is not None:
        facts |= {"input": dataset.input, "classes": dataset.classes}
    return CatalogEntry(
        kind="dataset",
        name=dataset.name,
        summary=dataset.description or f"{base} with settings of its own.",
        settings=NO_SETTINGS,
        facts=facts,
        workers={
            each.worker: {"present": each.present, "downloadable": each.downloadable, "hint": each.note}
            for each in dataset.workers
        },
    )
