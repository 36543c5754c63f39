"""Paths that come with a job: below the folder of data sets, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from nas_core.errors import DatasetError

MOST_NAME_BYTES = 255
"""Of one part of a path; file systems take no more."""


def below(path: str, root: Path) -> Path:
    """``root / path``. Raises DatasetError for a path that leaves ``root``, also by a symbolic link."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path or ":" in parts[0]:
        raise DatasetError(f"path '{path}' is refused; it must lie below {root}: relative, with '/', no '..'")
    try:
        longest = max(len(os.fsencode(part)) for part in parts)
    except UnicodeEncodeError as error:
        raise DatasetError(f"path {path!r} is refused: no file can have such a name") from error
    if longest > MOST_NAME_BYTES:
        raise DatasetError(
            f"path '{path:.80}...' is refused: a name of {longest} bytes; {MOST_NAME_BYTES} are the most"
        )
    found = root / path
    if not lies_below(found, root):
        raise DatasetError(f"path '{path}' is refused: a symbolic link leads out of {root}")
    return found


def lies_below(path: Path, root: Path) -> bool:
    """Whether a path, with all symbolic links followed, lies below ``root``. A circle of links lies nowhere."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a circle, before Python 3.13
        return False


def can_be_named(path: Path) -> bool:
    """Whether a job, which is Unicode text, can name this path: file systems know other names, too."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
