"""Trained weights by name, as verification stores them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from nas_core.exports import exports
from nas_core.exports._model import Model


@exports.register("safetensors")
class Safetensors:
    """Trained weights by name, with the architecture in the metadata."""

    media_type: ClassVar[str] = "application/octet-stream"
    suffix: ClassVar[str] = ".safetensors"
    needs_weights: ClassVar[bool] = True
    extra: ClassVar[str | None] = None

    def write(self, model: Model, path: Path) -> None:
        """The metadata has one entry: several would come in random order, and equal networks give equal files."""
        from safetensors.torch import save_file

        save_file(model.tensors("safetensors"), path, metadata={"skyline": model.metadata})

    def check(self, path: Path, model: Model) -> float:
        found = Model.load(path)
        model.same_facts("safetensors", found.metadata)
        return model.compare("safetensors", found.network("safetensors"))
