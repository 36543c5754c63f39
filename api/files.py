"""Artefact files, which lie under one folder and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from store.settings import settings

log = logging.getLogger(__name__)


def locate(path: str) -> Path | None:
    """The file at a path relative to the artefact folder; None when there is none, or when it lies outside."""
    root = settings().artefact_dir.resolve()
    try:
        found = (root / path).resolve()
    except (OSError, RuntimeError):  # links in a circle
        return None
    return found if found.is_relative_to(root) and found.is_file() else None


def remove(paths: Iterable[str]) -> None:
    """Removes files of a deleted job; what cannot be removed is logged and left."""
    for path in paths:
        found = locate(path)
        try:
            if found is not None:
                found.unlink(missing_ok=True)
        except OSError as error:
            log.warning("artefact %s stays although its job is deleted: %s", path, error)
