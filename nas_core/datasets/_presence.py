"""What a data set says of itself before it is opened. Imports without torch: workers publish it in their catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from nas_core.data import Splits

Report = Callable[[str, float], None]
"""Told what is being done and which share of it, 0 to 1, has been."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a data set can be used here, where it was looked for and how to get it."""

    present: bool
    searched: tuple[str, ...] = ()
    hint: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the user's own: by path, ``input`` [C, H, W], ``classes``, ``train`` and ``test`` (counts of images); where a
    setting decides about height and width, its name as ``scaled_by``."""
    downloadable: bool = False
    """Not present, but fetched at its first use unless its settings forbid that."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Of the user's own that cannot be used: by path, why not."""

    def to_json(self) -> dict[str, Any]:
        return {
            "present": self.present,
            "searched": [_printable(path) for path in self.searched],
            "hint": _printable(self.hint),
            "files": {path: dict(facts) for path, facts in self.files.items()},
            "downloadable": self.downloadable,
            "faults": dict(self.faults),
        }


MOST_FAULTS = 100
"""Kept of one data set."""


def own_files(root: Path, hint: str, files: Mapping[str, Mapping[str, Any]], faults: Mapping[str, str]) -> Presence:
    """Presence of what users put below ``root``, with the first faults in the hint.

    A catalog is text: what has a name that is none cannot be asked for, and is a fault.
    """
    named = {path: facts for path, facts in files.items() if _printable(path) == path}
    unnamed = {path: f"{root / path}: its name is not UTF-8; rename it" for path in files if path not in named}
    known = {_printable(path): _printable(fault) for path, fault in {**faults, **unnamed}.items()}
    said = list(known.values())
    if said:
        more = f" and {len(said) - 3} more" if len(said) > 3 else ""
        hint += f". Not usable: {'; '.join(said[:3])}{more}"
    return Presence(bool(named), (str(root),), hint, named, faults=dict(list(known.items())[:MOST_FAULTS]))


def _printable(text: str) -> str:
    """Without the half characters that stand for bytes of file names which are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


class Dataset(Protocol):
    """A data set; its fields are the settings a job may give."""

    facts: ClassVar[Mapping[str, Any]]
    """``input`` [C, H, W], ``classes``, and counts of images as ``train`` and ``test``; empty where they depend on the
    files."""

    @classmethod
    def presence(cls, root: Path) -> Presence:
        """Looks for the files under ``root``, the folder of data sets; reads as little as it can."""
        ...

    def splits(self, root: Path, seed: int, fraction: float = 1.0, progress: Report | None = None) -> Splits:
        """Raises DatasetMissingError where files are missing, DatasetError where they are not what they should be."""
        ...
