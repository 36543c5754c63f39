"""A posted job against what live workers can run: every fault found, or the job as it is stored.

In order: the preset, the shape of the document, what a registered data set stands for, the job that it goes on from,
the names, the settings, what fits what, the images, the skeletons, the seeds, the bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api import boundsets, forms, granular, imagesets, lookups, names, presets, profiles, ranges, relaxed, seeds, stages
from api.errors import Fault, ProblemError, pointer, refusal, unavailable
from api.imagesets import Images
from api.origins import Origin
from api.shapes import shaped
from nas_core.architecture import Architecture, Skeleton
from nas_core.cuts import SMALLEST_CLASS, sizes
from nas_core.errors import InvalidSettingsError
from nas_core.granularity.measure import Counted, Measure, measure_of
from nas_core.recipe import shrunk_input
from nas_core.search import SearchSpace
from nas_core.settings import parse
from nas_core.spaces import spaces
from skyline.schemas import CatalogEntry, JobSpec
from skyline.schemas.catalog import CatalogKind
from skyline.schemas.jobs import QUALITIES, TABULAR

TITLE = "Invalid job"

KEY_FORM = re.compile(r"[A-Za-z_][\w.@:+-]{0,99}", re.ASCII)
"""Of objective keys: they stand in addresses, in requirements of a gate and above the columns of a table."""
_TABLE = {"number", "id", "hash", "status", "stage", "target", "cells", "channels", "stem", "failure", "genotype"}
NO_KEYS = frozenset(_TABLE | {"test", "test_error", "test_sd", "nonzero"})
"""What stands above other columns, or means test values."""
NO_ENDS = (".kind", ".search")


@dataclass(frozen=True)
class Known:
    """What can be asked for now."""

    entries: Sequence[CatalogEntry]
    live: frozenset[str]
    """Names of the workers that were seen lately."""
    registered: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Data sets by names of their own: ``name`` in the catalog, and settings."""
    tables: Mapping[str, lookups.About] = field(default_factory=dict)
    devices: profiles.Devices = profiles.NONE
    """Those with a profile."""

    def of(self, kind: CatalogKind) -> dict[str, CatalogEntry]:
        return {entry.name: entry for entry in self.entries if entry.kind == kind}

    @property
    def by_kind(self) -> dict[str, dict[str, CatalogEntry]]:
        return {"space": self.of("space"), "algorithm": self.of("algorithm"), "objective": self.of("objective")}


@dataclass(frozen=True)
class _Part:
    """A plug-in named in a job, with its settings."""

    kind: CatalogKind
    name: str
    settings: Mapping[str, Any]
    path: tuple[object, ...]
    form: str | None = None
    """Of which plug-in the settings are, where it is another: an error that is looked up has those of ``tabular``."""

    @property
    def what(self) -> str:
        return f"{_called(self.kind)} '{self.name}'"


Entries = Mapping[tuple[object, ...], CatalogEntry]
"""The catalog's entries of a job's parts, by their place in the job."""


@dataclass(frozen=True)
class Ground:
    """What a job's networks stand on."""

    images: Images
    space: SearchSpace | None
    """None where only workers know it; then there are no skeletons."""
    skeletons: Sequence[Skeleton]
    """Of the networks wanted, one for each width."""


@dataclass(frozen=True)
class Accepted:
    """A job that can run."""

    stored: dict[str, Any]
    """Normalised for the database: defaults filled in, aliases resolved, keys explicit."""
    entries: Entries
    ground: Ground


def accept(document: Mapping[str, Any], known: Known, origin: Origin | None = None) -> Accepted:
    """``origin``: the job that this one goes on from, if any, as ``api.origins`` found it.

    Raises ProblemError: 422 with all faults, 503 while no worker has registered.
    """
    if document.get(presets.FIELD) is not None:
        require_workers(known)
    preset = presets.find(document, known.of("preset"), TITLE)
    if preset is not None:
        try:
            return _accept(preset.completed(document), known)
        except ProblemError as error:
            raise preset.within(document, error) from error
    if origin is None:
        return _accept(document, known)
    try:
        return _accept(origin.completed(document, known.by_kind, known.registered), known, origin)
    except ProblemError as error:
        raise origin.within(document, error) from error


def _accept(document: Mapping[str, Any], known: Known, origin: Origin | None = None) -> Accepted:
    spec = shaped(JobSpec, document, TITLE, "the job")
    require_workers(known)
    asked = spec.dataset
    meant = None if asked is None else names.meant(asked, known.registered, known.of("dataset"))
    if isinstance(meant, list):
        raise refusal(meant, TITLE)
    spec = spec.model_copy(update={"dataset": meant})
    if origin is not None and (others := origin.faults(spec, known.by_kind)):
        raise refusal(others, TITLE)
    checked = _checked(spec, known)
    if isinstance(checked, list):
        raise refusal(checked if meant is asked or asked is None else names.as_asked(checked, asked.name), TITLE)
    return checked


def require_workers(known: Known) -> None:
    """Raises ProblemError (503) while nothing is known to run."""
    if not known.entries:
        detail = "no worker has registered, so nothing is known to run; start one with 'skyline worker' and ask again"
        raise unavailable("No worker", detail)


def _checked(spec: JobSpec, known: Known) -> Accepted | list[Fault]:
    parts = list(_parts(spec))
    faults = list(_unknown(parts, known))
    if faults:
        return faults
    entries = {part.path: known.of(part.kind)[part.form or part.name] for part in parts}
    for part in parts:
        faults += forms.faults(part.settings, entries[part.path].settings, part.what, part.path)
    settled: profiles.Settled = {}
    used: profiles.Used = {}
    if not faults:
        settled, used, faults = profiles.settle(spec, entries, known.devices, known.live)
    faults += _fit(spec, entries["algorithm",])
    faults += _beginning(spec, entries["algorithm",], known)
    faults += _keys(spec)
    faults += lookups.untrained(spec, entries)
    given, unread = seeds.read(spec)
    faults += unread or seeds.fit(spec, given, entries["algorithm",])
    if faults:
        return faults
    looked, faults = lookups.find(spec, known.tables)
    if faults:
        return faults
    summed = _summed(spec, entries, used)
    ground = _ground(spec, known, entries, given, looked, summed, used)
    if isinstance(ground, list):
        return ground
    faults = list(_unmet(spec, entries, ground, given, looked, summed))
    genotypes, alone = [seed.genotype for seed in given], bool(entries["algorithm",].facts.get("needs_seeds"))
    widths = granular.widths(spec, entries["algorithm",])
    faults += profiles.uncovered(spec, used, ground.space, ground.skeletons, genotypes, alone, widths)
    if faults:
        return faults
    stored = _normalised(spec, parts, entries, looked, settled)
    stored["seed_genotypes"] = [seed.document for seed in given]
    return Accepted(stored, entries, ground)


# --- names and settings -----------------------------------------------------------------------------------------------


def _parts(spec: JobSpec) -> Iterator[_Part]:
    yield _Part("space", spec.space.name, spec.space.settings, ("space",))
    yield _Part("algorithm", spec.algorithm.name, spec.algorithm.settings, ("algorithm",))
    if spec.dataset is not None:
        yield _Part("dataset", spec.dataset.name, spec.dataset.settings, ("dataset",))
    for index, objective in enumerate(spec.objectives):
        form = TABULAR if objective.from_table else None
        yield _Part("objective", objective.name, objective.settings, ("objectives", index), form)


def _called(kind: CatalogKind) -> str:
    return "data set" if kind == "dataset" else kind


def _unknown(parts: Sequence[_Part], known: Known) -> Iterator[Fault]:
    for part in parts:
        known_names = sorted([*known.of(part.kind), *(known.registered if part.kind == "dataset" else ())])
        lacking = [name for name in (part.name, part.form) if name is not None and name not in known.of(part.kind)]
        if lacking:
            listed = ", ".join(known_names) or "none"
            title = f"Unknown {_called(part.kind)}"
            detail = f"unknown {_called(part.kind)} '{lacking[0]}'; known: {listed}"
            yield Fault(title, detail, pointer((*part.path, "name")), lacking[0], f"one of {listed}")


def _fit(spec: JobSpec, algorithm: CatalogEntry) -> Iterator[Fault]:
    fitting = algorithm.facts.get("spaces")
    if fitting is not None and spec.space.name not in fitting:
        listed = ", ".join(sorted(fitting)) or "none"
        detail = f"algorithm '{algorithm.name}' cannot search space '{spec.space.name}'; it searches: {listed}"
        yield Fault("Space and algorithm do not fit", detail, "/space/name", spec.space.name, f"one of {listed}")


def _beginning(spec: JobSpec, algorithm: CatalogEntry, known: Known) -> Iterator[Fault]:
    """Trainings that are to begin with weights that no search brings."""
    if spec.verify.start != "inherited" or spec.verify.weights is not None or algorithm.facts.get("brings_weights"):
        return
    every = known.of("algorithm").items()
    able = ", ".join(sorted(name for name, entry in every if entry.facts.get("brings_weights")))
    detail = (
        f"verify.start: 'inherited' wants weights from the search, and algorithm '{algorithm.name}' brings none; "
        f"those that do: {able or 'none here'}"
    )
    yield Fault("Nothing to begin with", detail, "/verify/start", spec.verify.start, "scratch")


def _keys(spec: JobSpec) -> Iterator[Fault]:
    for index, key in enumerate(spec.keys):
        if not KEY_FORM.fullmatch(key) or key in NO_KEYS or key.endswith(NO_ENDS):
            detail = f"'{key}' cannot be an objective's key; give it another 'key'"
            expected = (
                "a letter or '_', then letters, digits and any of '_.@:+-', at most 100 in all; not ending in "
                f"{' or '.join(NO_ENDS)}, and none of {', '.join(sorted(NO_KEYS))}"
            )
            yield Fault("Invalid key", f"{detail}: {expected}", pointer(("objectives", index, "key")), key, expected)


# --- what can be built and met ----------------------------------------------------------------------------------------


def _ground(
    spec: JobSpec,
    known: Known,
    entries: Entries,
    given: Sequence[seeds.Seed],
    looked: lookups.Lookups,
    summed: Sequence[str],
    used: profiles.Used,
) -> Ground | list[Fault]:
    widths = spec.target.widths
    if widths is not None and len(set(widths)) < len(widths):
        detail = f"target.channels: got {widths}; each width makes candidates of its own and stands once"
        return [Fault("Invalid field", detail, "/target/channels", widths, "widths that differ")]
    if spec.dataset is None:
        images: Images | Fault = lookups.images(looked)
    else:
        images = imagesets.find(entries["dataset",], spec.dataset.settings, known.live)
    if isinstance(images, Fault):
        return [images]
    if spec.space.name not in spaces:  # a plug-in of a worker's own is counted there
        return Ground(images, None, [])
    try:
        space: SearchSpace = parse(spaces[spec.space.name], spec.space.settings, f"space '{spec.space.name}'")
    except InvalidSettingsError as error:
        got = dict(spec.space.settings)
        return [Fault("Invalid setting", str(error), "/space", got, "settings that fit together")]
    skeletons, faults = ranges.targets(spec, space, images)
    faults += _too_small(spec, images)
    faults += _too_few(spec, images)
    faults += stages.faults(spec, entries["algorithm",], costs(spec, entries), space, images.input)
    searched = space.skeleton(images.input, images.classes)
    faults += relaxed.faults(spec, entries["algorithm",], summed, space, searched)
    target = None if faults else skeletons[0]
    measures = _measures(spec, entries, used)
    faults += granular.faults(spec, entries["algorithm",], summed, measures, space, searched, target)
    faults += lookups.misfits(looked, [] if faults else skeletons)
    faults += seeds.misfits(given, spec.space.name, space, [] if faults else skeletons)
    return faults or Ground(images, space, skeletons)


def costs(spec: JobSpec, entries: Entries) -> list[str]:
    """Keys of the objectives that neither follow from the error on images nor are error or accuracy from a table."""
    data = [entries["objectives", index].facts.get("source") == "data" for index in range(len(spec.objectives))]
    named = zip(spec.keys, spec.objectives, data, strict=True)
    return [key for key, objective, follows in named if not follows and objective.name not in QUALITIES]


def _measures(spec: JobSpec, entries: Entries, used: profiles.Used) -> dict[str, Measure]:
    """Of the objectives that count a resource or are predicted by parts."""
    found: dict[str, Measure] = {}
    for index, key in enumerate(spec.keys):
        facts = entries["objectives", index].facts
        if index in used:
            profile, objective = used[index]
            made = measure_of(objective.on(profile))
            found |= {} if made is None else {key: made}
        elif facts.get("source") == "exact" and facts.get("scale") is not None:
            found[key] = Counted(facts["resource"], facts["scale"])
    return found


def _summed(spec: JobSpec, entries: Entries, used: profiles.Used) -> list[str]:
    """Keys of the objectives that may be sums over ops: exact ones but for those that say no, and what is predicted by
    parts. A plug-in's that does not say is asked by the worker.
    """
    facts = [entries["objectives", index].facts for index in range(len(spec.objectives))]
    exact = {index for index, each in enumerate(facts) if each.get("source") == "exact" and each.get("additive", True)}
    return [key for index, key in enumerate(spec.keys) if index in exact or index in used]


def _too_small(spec: JobSpec, images: Images) -> Iterator[Fault]:
    """Images that would be shrunk to nothing."""
    given = spec.algorithm.settings
    evaluate = given.get("evaluate")
    places = {"shrink": given.get("shrink"), "untrained_shrink": given.get("untrained_shrink")}
    if isinstance(evaluate, dict) and "supernet_epochs" in evaluate:
        places["evaluate/shrink"] = evaluate.get("shrink")
    for place, shrink in places.items():
        if not isinstance(shrink, int):
            continue
        try:
            shrunk_input(images.input, shrink, place.replace("/", "."))
        except InvalidSettingsError as error:
            yield Fault("Invalid setting", str(error), f"/algorithm/{place}", shrink, "less, for these images")


def _too_few(spec: JobSpec, images: Images) -> Iterator[Fault]:
    """A fraction of the images that leaves some class without any for one of the parts, however it is drawn."""
    if spec.dataset is None or images.train is None:
        return
    fraction, least = spec.dataset.fraction, SMALLEST_CLASS * images.classes
    drawn = sizes(images.train, fraction).total
    if drawn < least <= images.train:
        detail = (
            f"dataset.fraction: {fraction:g} of {images.train} training images are {drawn}; {images.classes} classes "
            f"want {SMALLEST_CLASS} each at least, to be cut into train, validation and select"
        )
        enough = math.ceil(1e4 * least / images.train) / 1e4
        yield Fault("Too few images", detail, "/dataset/fraction", fraction, f"at least {enough:g}")


def _unmet(
    spec: JobSpec,
    entries: Entries,
    ground: Ground,
    given: Sequence[seeds.Seed],
    looked: lookups.Lookups,
    summed: Sequence[str],
) -> Iterator[Fault]:
    """Bounds that no network holds: none of the space, or none of those given where there will be no others."""
    by_key = {objective.effective_key: entries["objectives", index] for index, objective in enumerate(spec.objectives)}
    columns = {lookup.key: lookup.column for lookup in looked.values()}
    faults = list(ranges.faults(spec, by_key, ground.space, ground.skeletons, columns))
    yield from faults
    if not faults:
        yield from boundsets.faults(spec, entries["algorithm",], by_key, summed, ground.space, ground.skeletons)
    if not faults and entries["algorithm",].facts.get("needs_seeds"):
        yield from ranges.unmet(
            spec, by_key, [Architecture(seed.genotype, on) for seed in given for on in ground.skeletons]
        )


def _normalised(
    spec: JobSpec, parts: Sequence[_Part], entries: Entries, looked: lookups.Lookups, settled: profiles.Settled
) -> dict[str, Any]:
    stored = spec.model_dump(mode="json")
    complete = {part.path: forms.filled(part.settings, entries[part.path].settings) for part in parts}
    for name in ("space", "algorithm", "dataset"):
        if (name,) in complete:
            stored[name] |= complete[name,]
    noted = lookups.noted(looked, spec, entries)
    for index, objective in enumerate(spec.objectives):
        place, own = ("objectives", index), noted["objectives"].get(index, {})
        if index in settled:
            stored["objectives"][index] = {"name": objective.name, **settled[index], "key": objective.effective_key}
        else:
            stored["objectives"][index] |= {**complete[place], **own, "key": objective.effective_key}
    stored["verify"] |= noted["verify"]
    return stored
