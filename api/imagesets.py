"""Where a job's images are and what shape they have, as live workers published it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from api.errors import Fault
from skyline.schemas import CatalogEntry

LISTED = 20
"""How many names of files an error lists."""


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
    if "input" in entry.facts:
        fetched = settings.get("download", True)
        if any(part.get("present") or (fetched and part.get("downloadable")) for part in asked.values()):
            return _images(entry.facts, settings, entry.settings)
        return _missing(entry, asked, f"data set '{entry.name}' is on no worker", "/dataset/name", entry.name)
    path = settings.get("path")
    if not isinstance(path, str):
        detail = f"data set '{entry.name}' needs a path"
        return Fault("Missing setting", detail, "/dataset/path", path, "a relative path")
    unsafe = _unsafe(path)
    if unsafe is not None:
        return unsafe
    for part in asked.values():
        known = part.get("files", {}).get(path)
        if known is not None:
            return _images(known, settings, entry.settings)
    return _missing(entry, asked, f"no worker has the file '{path}'", "/dataset/path", path)


def _images(facts: Mapping[str, Any], settings: Mapping[str, Any], form: Mapping[str, Any]) -> Images:
    """As published; where a setting (``scaled_by``) decides about height and width, as that says."""
    channels, height, width = (int(size) for size in facts["input"])
    scale = facts.get("scaled_by")
    if scale is not None:
        height = width = int(settings.get(scale, form["properties"][scale]["default"]))
    return Images((channels, height, width), int(facts["classes"]), facts.get("train"), facts.get("test"))


def _unsafe(path: str) -> Fault | None:
    """Paths lie under the worker's data root and cannot leave it."""
    parts = PurePosixPath(path).parts
    if parts and not path.startswith("/") and ".." not in parts and "\\" not in path and ":" not in parts[0]:
        return None
    expected = "a path below the worker's data folder: relative, with '/', without '..'"
    detail = f"data set path '{path:.200}' is refused; expected {expected}"
    return Fault("Unsafe path", detail, "/dataset/path", path, expected)


def _missing(entry: CatalogEntry, asked: Mapping[str, Mapping[str, Any]], what: str, at: str, got: str) -> Fault:
    searched = [
        f"worker {name} looked in {', '.join(part.get('searched', [])) or 'no place'}" for name, part in asked.items()
    ]
    hints = list(dict.fromkeys(part["hint"] for part in asked.values() if part.get("hint")))
    files = sorted({file for part in asked.values() for file in part.get("files", {})})
    sentences = ["; ".join([what, *sorted(searched)])]
    if files:
        more = f" and {len(files) - LISTED} more" if len(files) > LISTED else ""
        sentences.append(f"known files: {', '.join(files[:LISTED])}{more}")
    sentences += hints
    expected = f"one of {', '.join(files[:LISTED])}" if files else "; ".join(hints) or "a data set that a worker has"
    return Fault("Data set missing", ". ".join(sentences), at, got, expected)
