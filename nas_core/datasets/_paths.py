"""Paths that come with a job: below the folder of data sets, and nowhere else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from nas_core.errors import DatasetError


def below(path: str, root: Path) -> Path:
    """``root / path``. Raises DatasetError for a path that leaves ``root``, also by a symbolic link."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path or ":" in parts[0]:
        raise DatasetError(f"path '{path}' is refused; it must lie below {root}: relative, with '/', no '..'")
    found = root / path
    if not lies_below(found, root):
        raise DatasetError(f"path '{path}' is refused: a symbolic link leads out of {root}")
    return found


def lies_below(path: Path, root: Path) -> bool:
    """Whether a path, with all symbolic links followed, lies below ``root``."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links that lead round in a circle, folders that are not ours
        return False
