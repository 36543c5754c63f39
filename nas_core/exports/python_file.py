"""The network as one Python file that needs PyTorch alone: its modules as source, its weights as text at the end."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import ClassVar

from nas_core.exports import exports
from nas_core.exports._model import Model


@exports.register("python")
class Python:
    """Readable source of the network with its weights, in one file that needs PyTorch alone."""

    media_type: ClassVar[str] = "text/x-python"
    suffix: ClassVar[str] = ".py"
    needs_weights: ClassVar[bool] = True
    extra: ClassVar[str | None] = None

    def write(self, model: Model, path: Path) -> None:
        from nas_core.exports._source import source

        path.write_text(source(model), encoding="utf-8", newline="\n")

    def check(self, path: Path, model: Model) -> float:
        """Runs the file: check only what was written here."""
        there = runpy.run_path(str(path))
        facts = {"architecture": there["ARCHITECTURE"], "mean": list(there["MEAN"]), "std": list(there["STD"])}
        if "PARAMETERS" in there:
            facts["parameters"] = there["PARAMETERS"]
        model.same_facts("python", json.dumps(facts, sort_keys=True))
        return model.compare("python", there["load"]())
