"""Devices' profiles: read from an upload, and what a job's objectives make of them.

A job is settled when it is taken: it says for each cost whether it is measured or predicted and by what, and holds the
SHA-256 of the profile. Workers never look a device's name up, and another profile under that name changes no job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from api.errors import Fault, pointer, refusal
from api.shapes import shaped
from nas_core import settings as forms
from nas_core.architecture import Architecture, Genotype, Skeleton
from nas_core.errors import LISTED_PARTS, SettingError
from nas_core.objectives import objectives
from nas_core.parts import Laid, Part, Widths, parts_beside, parts_of, parts_on
from nas_core.predicted import Predicted
from nas_core.profiles import DeviceProfile
from skyline import schemas
from skyline.schemas import CatalogEntry, Device, JobSpec, ObjectiveSpec
from skyline.schemas.devices import THIS
from store import devices, models
from store.errors import NotFoundError
from store.session import reading

TITLE = "Invalid profile"
NO_PROFILE = "upload one with 'skyline devices add FILE', or measure one with 'skyline device profile'"


def read(document: Mapping[str, Any]) -> DeviceProfile:
    """Raises ProblemError (422) with all faults of an upload."""
    shape = shaped(schemas.DeviceProfile, document, TITLE, "the profile")
    profile = DeviceProfile.from_json(shape.model_dump(mode="json"), check=False)
    faults = []
    for place, text in profile.faults():
        got = profile.parts[int(place.split("/")[2])].op
        faults.append(Fault("Invalid row", f"{place}: {text}", place, got, text))
    if faults:
        raise refusal(faults, TITLE)
    return profile


def described(row: models.Device, kept: models.DeviceProfileRow) -> Device:
    """A device without its table."""
    profile = kept.profile
    ms, mj = (any(part.get(column) is not None for part in profile["parts"]) for column in ("ms", "mj"))
    predicts = ["latency_ms"] if ms else []
    predicts += ["energy_mj"] if mj or (ms and profile["power_w"] is not None) else []
    told = ("device", "protocol", "power_w", "latency_validation", "energy_validation", "measured_at", "notes")
    return Device(
        name=row.name,
        sha256=row.sha256,
        created_at=row.created_at,
        parts=len(profile["parts"]),
        predicts=predicts,
        **{name: profile[name] for name in told},
    )


@dataclass(frozen=True)
class Devices:
    """What jobs can name."""

    names: Mapping[str, str]
    """SHA-256 of the profile by the device's name."""
    profile: Callable[[str], DeviceProfile]
    """By its SHA-256. Raises NotFoundError."""


def known(names: Mapping[str, str]) -> Devices:
    """Profiles are read when they are asked for: most jobs name none."""

    def profile(sha256: str) -> DeviceProfile:
        with reading() as session:
            return DeviceProfile.from_json(devices.profile(session, sha256).profile, check=False)

    return Devices(names, profile)


def _unknown(sha256: str) -> DeviceProfile:
    raise NotFoundError("device profile", sha256)


NONE = Devices({}, _unknown)

Used = Mapping[int, tuple[DeviceProfile | None, Any]]
"""Objectives that are predicted by parts, with the profile that they read, if any, by their number in the job."""
Settled = Mapping[int, Mapping[str, Any]]
"""Settings of objectives with nothing left open, by their number in the job."""


def settle(
    spec: JobSpec, entries: Mapping[tuple[object, ...], CatalogEntry], there: Devices, live: frozenset[str]
) -> tuple[Settled, Used, list[Fault]]:
    """(settings, what is predicted, faults), by the objectives' number in the job."""
    settled: dict[int, Mapping[str, Any]] = {}
    used: dict[int, tuple[DeviceProfile | None, Any]] = {}
    faults: list[Fault] = []
    for index, objective in enumerate(spec.objectives):
        entry = entries["objectives", index]
        if "predicts" not in entry.facts or "plugin" in entry.facts or objective.name not in objectives:
            continue
        found = _settle(objective, ("objectives", index), entry, there, live, spec.resources.device)
        if isinstance(found, Fault):
            faults.append(found)
            continue
        made, profile = found
        dumped = forms.dump(made)
        settled[index] = {name: dumped[name] for name in made.meaningful() if dumped[name] is not None}
        if isinstance(made.on(profile), Predicted):
            used[index] = profile, made
    return settled, used, faults


def _settle(
    objective: ObjectiveSpec,
    place: tuple[object, ...],
    entry: CatalogEntry,
    there: Devices,
    live: frozenset[str],
    device_class: str,
) -> tuple[Any, DeviceProfile | None] | Fault:
    asked: Any = forms.parse(objectives[objective.name], objective.settings, f"objective '{objective.name}'")
    profile = _profile(objective, asked, place, there)
    if isinstance(profile, Fault):
        return profile
    counters = [part for name, part in entry.workers.items() if name in live and part.get("class") == device_class]
    with_one = [part["counter"] for part in counters if part.get("counter")]
    everywhere = with_one[0] if with_one and len(with_one) == len(counters) else None
    try:
        made = asked.settled(objective.settings, profile, everywhere)
    except SettingError as error:
        detail = f"objective '{objective.name}': {error}"
        return Fault("Invalid setting", detail, pointer((*place, error.setting)), error.got, error.expected)
    if objective.name == "energy_mj" and made.kind == "measured" and not with_one:
        return _no_counter(counters, place, device_class)
    return made, profile


def _profile(
    objective: ObjectiveSpec, asked: Any, place: tuple[object, ...], there: Devices
) -> DeviceProfile | Fault | None:
    """Of the device that an objective names; the one that a stored job noted goes before what the name has now."""
    if asked.device == THIS:
        return None
    listed = ", ".join(there.names) or "none"
    if asked.profile is not None:
        try:
            profile = there.profile(asked.profile)
        except NotFoundError:
            profile = None
        if profile is not None and profile.name == asked.device:
            return profile
        detail = (
            f"objective '{objective.name}': device '{asked.device}' never had a profile of SHA-256 {asked.profile}; "
            "the service notes it by itself: leave 'profile' out"
        )
        return Fault("Unknown profile", detail, pointer((*place, "profile")), asked.profile, "nothing")
    if asked.device not in there.names:
        detail = f"unknown device '{asked.device}'; with a profile: {listed}; {NO_PROFILE}"
        wanted = f"{THIS} or one of {listed}" if there.names else THIS
        return Fault("Unknown device", detail, pointer((*place, "device")), asked.device, wanted)
    return there.profile(there.names[asked.device])


def _no_counter(parts: Sequence[Mapping[str, Any]], place: tuple[object, ...], device_class: str) -> Fault:
    reasons = sorted({str(part["reason"]) for part in parts if part.get("reason")}) or ["no such worker is live"]
    detail = (
        f"no live {device_class} worker counts energy: {'; '.join(reasons)}. A prediction would do: kind predicted, by "
        "counting operations, with 'power_w', or with the 'device' of a profile"
    )
    return Fault("Energy cannot be measured", detail, pointer((*place, "kind")), "measured", "predicted")


def uncovered(
    spec: JobSpec,
    used: Used,
    space: Any,
    skeletons: Sequence[Skeleton],
    given: Sequence[Genotype],
    alone: bool,
    widths: Widths,
) -> Iterator[Fault]:
    """Parts that networks of the job can have and a profile does not: those networks would fail.

    ``given``: the job's own genotypes; ``alone``: whether it will have no others; but for them, its reference point is
    that of the ceiling network, unless it is given. ``widths``: which the search gives to cells.
    """
    if not alone and not isinstance(space, Laid):
        return  # a plug-in's own: each network is looked at when it is there
    lacking: dict[str, list[Lack]] = {}
    for index, (profile, objective) in used.items():
        key, quantity = spec.objectives[index].effective_key, objective.reads()
        if profile is None or quantity is None:
            continue
        listed: set[Part] = set()
        between: set[Part] = set()
        """Parts that may be predicted by those around them."""
        for skeleton in skeletons:
            if alone:
                networks = [Architecture(genotype, skeleton) for genotype in given]
                if space is not None and key not in spec.reference_point:
                    networks.append(Architecture(space.extreme(skeleton, "macs", True), skeleton))
                between = between.union(*map(parts_of, networks))
                continue
            listed |= parts_on(space, skeleton, widths)
            between = between.union(*(parts_beside(space, skeleton, genotype) for genotype in _narrow(given)))
        missing = sorted({*profile.lacking(listed, quantity), *profile.unknown(between, quantity)}, key=str)
        if missing:
            lacking.setdefault(profile.name, []).append(Lack(index, quantity, missing, len(listed | between)))
    read = {spec.keys[index] for index, (profile, _) in used.items() if profile is not None}
    by_ceiling = alone and space is not None and not read <= set(spec.reference_point)
    for device, lacks in lacking.items():
        yield from _uncovered(device, lacks, measuring_command(spec, skeletons), by_ceiling)


def _narrow(genotypes: Sequence[Genotype]) -> list[Genotype]:
    """Those with widths of their own."""
    return [each for each in genotypes if any(cell.width is not None for cell in each.types.values())]


@dataclass(frozen=True)
class Lack:
    """What an objective looks for in a profile and does not find."""

    objective: int
    """Its number in the job."""
    quantity: str
    missing: Sequence[Part]
    parts: int
    """That its networks can have."""


def _uncovered(device: str, lacks: Sequence[Lack], command: str, by_ceiling: bool) -> Iterator[Fault]:
    """One for each objective; the first has all rows, as they can be put into the profile's JSON. ``by_ceiling``:
    whether the ceiling network is asked for, for a reference point.
    """
    rows: dict[Part, dict[str, Any]] = {}
    counts = {}
    for lack in lacks:
        counts[lack.quantity] = f"no {lack.quantity} of {len(lack.missing)} of {lack.parts}"
        for part in lack.missing:
            rows.setdefault(part, _row(part))[lack.quantity] = None
    ordered = sorted(rows, key=str)
    listed = "; ".join(map(str, ordered[:LISTED_PARTS])) + ("; ..." if len(ordered) > LISTED_PARTS else "")
    detail = (
        f"the profile of device '{device}' has {' and '.join(counts.values())} parts that networks of this job can "
        f"have: {listed}; {command} measures all of them, or write them by hand: 'errors' has the rows"
    )
    if by_ceiling:
        detail += ". With a value in reference_point the space's largest network is not asked for"
    written = ",\n".join(json.dumps(rows[part]) for part in ordered)
    expected = f"a device whose profile has these parts, too, with numbers in place of null:\n[{written}]"
    for lack in lacks:
        place = pointer(("objectives", lack.objective, "device"))
        yield Fault("Parts without a cost", detail, place, device, expected)
        expected = "the same"


def _row(part: Part) -> dict[str, Any]:
    """As profiles have it, what is usual left out."""
    usual = {field.name: field.default for field in fields(Part)}
    return {name: value for name, value in asdict(part).items() if value != usual[name]}


def measuring_command(spec: JobSpec, skeletons: Sequence[Skeleton]) -> str:
    """Which measures every part of the job's networks on a device, in quotes."""
    one, settings = skeletons[0], dict(spec.space.settings)
    settings.pop("cells", None)
    flags = [flag for flag in ("connection", "filters") if settings.pop(flag, False)]
    if "filters" in flags:  # which stands for these, too; cells are as wide as the space says, whatever the target
        settings = {name: value for name, value in settings.items() if name not in ("fan_in", "levels")}
    else:
        settings.pop("channels", None)
    widths = ",".join(str(skeleton.channels) for skeleton in skeletons)
    words = [f"--space {spec.space.name} --cells {len(one.cells)} --channels {widths}"]
    words += [f"--input {'x'.join(map(str, one.input))} --classes {one.classes}", *(f"--{flag}" for flag in flags)]
    words += [f"--set {name}={_written(value)}" for name, value in sorted(settings.items()) if value is not None]
    return f"'skyline device profile {' '.join(words)}'"


def _written(value: Any) -> str:
    """As ``--set`` reads it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, value))}]"
    return json.dumps(value) if isinstance(value, bool) else str(value)
