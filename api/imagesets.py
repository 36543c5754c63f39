"""Where a data set's images are and what shape they have, as workers published it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from api.errors import Fault
from skyline.schemas import CatalogEntry

LISTED = 20
"""How many names of files an error lists."""
PARTS = ("train", "test")
"""Of a data set, as workers count their images."""
SOON = "What changed a moment ago is seen within some seconds"

Part = Mapping[str, Any]
"""What one worker published of one data set (``CatalogEntry.workers``)."""


@dataclass(frozen=True, slots=True)
class Images:
    """What a network must know of its data."""

    input: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    train: int | None = None
    """Images to train on, before any are put aside; None where that was not published."""
    test: int | None = None


def find(entry: CatalogEntry, settings: Mapping[str, Any], live: frozenset[str]) -> Images | Fault:
    """The images of a data set, or why no worker can read them.

    Asks the workers that live; where none does, what any said is believed: the job then waits for one.
    """
    asked = {name: part for name, part in entry.workers.items() if name in live} or entry.workers
    path = settings.get("path")
    if "input" not in entry.facts:
        if not isinstance(path, str):
            detail = f"data set '{entry.name}' needs a path"
            return Fault("Missing setting", detail, "/dataset/path", path, "a relative path")
        unsafe = _unsafe(path, asked)
        if unsafe is not None:
            return unsafe
    for part in asked.values():
        facts = found(entry, settings, part)
        if facts is not None:
            return images(facts, settings, entry.settings)
    if "input" in entry.facts:
        return _missing(entry, asked, f"data set '{entry.name}' is on no worker", "/dataset/name", entry.name)
    return _unusable(settings, asked) or _missing(
        entry, asked, f"no worker has '{path}' for data set '{entry.name}'", "/dataset/path", str(path)
    )


def found(entry: CatalogEntry, settings: Mapping[str, Any], part: Part) -> Mapping[str, Any] | None:
    """Facts of a data set that a worker has, or will fetch; None where it has not."""
    if "input" in entry.facts:
        fetched = settings.get("download", True) and part.get("downloadable")
        return entry.facts if part.get("present") or fetched else None
    facts: Mapping[str, Any] | None = part.get("files", {}).get(plain(str(settings.get("path", ""))))
    return facts


def images(facts: Mapping[str, Any], settings: Mapping[str, Any], form: Mapping[str, Any]) -> Images:
    """As published; where a setting (``scaled_by``) decides about height and width, as that says."""
    channels, height, width = (int(size) for size in facts["input"])
    scale = facts.get("scaled_by")
    if scale is not None:
        height = width = int(settings.get(scale, form["properties"][scale]["default"]))
    return Images((channels, height, width), int(facts["classes"]), facts.get("train"), facts.get("test"))


def counts(facts: Mapping[str, Any]) -> dict[str, int] | None:
    """Images by part, where the worker counted them."""
    return {part: int(facts[part]) for part in PARTS if part in facts} or None


def fault_of(settings: Mapping[str, Any], part: Part) -> str | None:
    """Why a worker cannot use what lies at the path of a data set; None where nothing is known against it."""
    path = plain(str(settings.get("path", "")))
    faults: Mapping[str, str] = part.get("faults", {})
    return faults.get(path) or next((why for at, why in faults.items() if at.startswith(f"{path}/")), None)


def plain(path: str) -> str:
    """A path as workers write it: ``./leaves/`` is ``leaves``."""
    return PurePosixPath(path).as_posix()


def _unsafe(path: str, asked: Mapping[str, Part]) -> Fault | None:
    """Paths lie under the worker's data root and cannot leave it."""
    parts = PurePosixPath(path).parts
    colon = any(":" in part for part in parts[:1])
    if parts and not path.startswith("/") and ".." not in parts and not {"\\", "\0"} & set(path) and not colon:
        return None
    expected = "a path below the worker's data folder: relative, with '/', without '..'"
    folders = sorted({folder for part in asked.values() for folder in part.get("searched", [])})
    below = f". Data folders: {', '.join(folders)}" if folders else ""
    detail = f"data set path '{path:.200}' is refused; expected {expected}{below}"
    return Fault("Unsafe path", detail, "/dataset/path", path, expected)


def _unusable(settings: Mapping[str, Any], asked: Mapping[str, Part]) -> Fault | None:
    """Where something lies at the path, but workers say that it is not what it should be."""
    faults = {name: why for name, part in asked.items() if (why := fault_of(settings, part))}
    if not faults:
        return None
    said = "; ".join(f"worker {name}: {why}" for name, why in sorted(faults.items()))
    detail = f"'{settings['path']}' cannot be used. {said}. {SOON}"
    return Fault("Data set not usable", detail, "/dataset/path", settings["path"], "a data set that a worker can read")


def _missing(entry: CatalogEntry, asked: Mapping[str, Part], what: str, at: str, got: str) -> Fault:
    searched = [
        f"worker {name} looked in {', '.join(part.get('searched', [])) or 'no place'}" for name, part in asked.items()
    ]
    hints = list(dict.fromkeys(part["hint"] for part in asked.values() if part.get("hint")))
    files = sorted({file for part in asked.values() for file in part.get("files", {})})
    sentences = ["; ".join([what, *sorted(searched)])]
    if files:
        more = f" and {len(files) - LISTED} more" if len(files) > LISTED else ""
        sentences.append(f"known files: {', '.join(files[:LISTED])}{more}")
    sentences += [*hints, SOON]
    expected = f"one of {', '.join(files[:LISTED])}" if files else "; ".join(hints) or "a data set that a worker has"
    return Fault("Data set missing", ". ".join(sentences), at, got, expected)
