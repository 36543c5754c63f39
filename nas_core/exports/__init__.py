"""Exports: one file = one format that a network can be taken home in.

What describes a format imports without torch; what writes and checks imports its libraries inside.
``export(name, model, path)`` is the way in: what it leaves at ``path`` was loaded again and compared with the network.
"""

from __future__ import annotations

from pathlib import Path

from nas_core.exports._kept import KEPT as KEPT
from nas_core.exports._kept import Kept as Kept
from nas_core.exports._model import LIMIT as LIMIT
from nas_core.exports._model import Exporter as Exporter
from nas_core.exports._model import Model as Model
from nas_core.registry import Registry, import_siblings

exports: Registry[type[Exporter]] = Registry("format")

import_siblings(__name__, __path__)


def export(name: str, model: Model, path: Path) -> float:
    """Writes a format's file at ``path`` and returns the largest difference of its logits from the network's.

    The file is written beside and renamed when it passed its check; a crash or an error leaves what was there before.
    Raises UnknownNameError for the name, ExportError for what cannot be written or differs by more than ``LIMIT``,
    MissingExtraError (one of them) where the format's libraries are not installed.
    """
    exporter = exports[name]()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    try:
        exporter.write(model, beside)
        difference = exporter.check(beside, model)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return difference
