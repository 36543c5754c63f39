"""The architecture alone, as JSON: what a job takes as a seed and ``Architecture.from_json`` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from nas_core.architecture import Architecture
from nas_core.errors import ExportError, InvalidGenotypeError
from nas_core.exports import exports
from nas_core.exports._model import Model


@exports.register("json")
class Json:
    """The architecture as JSON, without weights."""

    media_type: ClassVar[str] = "application/json"
    suffix: ClassVar[str] = ".json"
    needs_weights: ClassVar[bool] = False
    extra: ClassVar[str | None] = None

    def write(self, model: Model, path: Path) -> None:
        path.write_text(json.dumps(model.architecture.to_json()), encoding="utf-8")

    def check(self, path: Path, model: Model) -> float:
        """0: the same architecture. Raises ExportError for another one."""
        try:
            found = Architecture.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, InvalidGenotypeError) as error:
            raise ExportError(f"the json file cannot be read again: {error}; the file is not offered") from error
        if found != model.architecture:
            raise ExportError(
                f"the json file holds architecture {found.hash}, not {model.architecture.hash}; the file is not offered"
            )
        return 0.0
