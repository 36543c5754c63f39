"""Whether anything under the folder of data sets has changed: looked at every few seconds, so it has to cost little.

A folder's own time changes when a file or folder in it comes or goes. So a folder is listed again only when that time
has changed, and image files, of which there may be millions, are never looked at one by one. Files that hold many
images are: they may be written in place.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".npz", ".gz", ".tgz", ".bin", ""})
"""Of files that hold many images: arrays, archives, batches, idx."""
MOST_FOLDERS = 20_000
MOST_FILES = 5_000
RACY_SECONDS = 2.0
"""A folder that changed so lately is listed again: clocks of file systems tick slowly."""
PATIENCE_SECONDS = 60.0
"""After that a change is told, although more of it is still coming."""

State = tuple[tuple[str, int, int], ...]
"""Folders and files by path: when each changed, ns; how many entries, or bytes, it has."""


@dataclass(frozen=True, slots=True)
class _Folder:
    changed_ns: int
    entries: int
    folders: tuple[str, ...]
    files: tuple[str, ...]
    """Those that hold many images."""


class DataRoot:
    """Watches one folder and all below it; symbolic links are not followed."""

    def __init__(self) -> None:
        self._known: dict[str, _Folder] = {}
        self._told: State | None = None
        self._before: State | None = None
        self._changing_since: float | None = None

    def changed(self, root: Path) -> bool:
        """Whether there is something new since ``told``, and no more of it is coming: a copy takes a while."""
        state = self.state(root)
        settled = state == self._before
        self._before = state
        if state == self._told:
            self._changing_since = None
            return False
        if self._changing_since is None:
            self._changing_since = time.monotonic()
        return self._told is None or settled or time.monotonic() - self._changing_since > PATIENCE_SECONDS

    def tell(self) -> None:
        """The state that ``changed`` saw last is known from now on."""
        self._told, self._changing_since = self._before, None

    def forget(self) -> None:
        """Nothing is known any more."""
        self._told = None

    def state(self, root: Path) -> State:
        found: list[tuple[str, int, int]] = []
        folders, files, known = [str(root)], 0, self._known
        self._known = {}
        while folders and len(self._known) < MOST_FOLDERS:
            path = folders.pop()
            folder = _look(path, known.get(path))
            if folder is None:
                continue
            self._known[path] = folder
            found.append((path, folder.changed_ns, folder.entries))
            folders += reversed(folder.folders)
            for name in folder.files[: MOST_FILES - files]:
                files += 1
                try:
                    status = os.stat(name)
                except OSError:
                    continue
                found.append((name, status.st_mtime_ns, status.st_size))
        return tuple(found)


def _look(path: str, before: _Folder | None) -> _Folder | None:
    """None for a folder that went, or that cannot be listed."""
    try:
        changed_ns = os.stat(path).st_mtime_ns
        racy = time.time_ns() - changed_ns < RACY_SECONDS * 1e9
        if before is not None and before.changed_ns == changed_ns and not racy:
            return before
        count, folders, files = 0, [], []
        with os.scandir(path) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    files.append(entry.path)
        return _Folder(changed_ns, count, tuple(sorted(folders)), tuple(sorted(files)))
    except OSError:
        return None
