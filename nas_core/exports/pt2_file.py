"""The network as a graph that PyTorch runs without its source (torch.export), for any batch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

from nas_core.exports import exports
from nas_core.exports._model import Model

FACTS = "skyline.json"
"""The entry of the archive that says which network it holds."""


@exports.register("pt2")
class Pt2:
    """A PyTorch graph with weights, for torch.export.load and AOTInductor; any batch."""

    media_type: ClassVar[str] = "application/octet-stream"
    suffix: ClassVar[str] = ".pt2"
    needs_weights: ClassVar[bool] = True
    extra: ClassVar[str | None] = None

    def write(self, model: Model, path: Path) -> None:
        import torch

        network, images = model.network("pt2"), torch.zeros((2, *model.architecture.skeleton.input))
        with torch.no_grad():
            program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        for module in program.graph_module.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)  # paths of the machine that exports
        content = io.BytesIO()  # PyTorch wants paths to end in .pt2
        torch.export.save(program, content, extra_files={FACTS: model.metadata})
        path.write_bytes(content.getvalue())

    def check(self, path: Path, model: Model) -> float:
        import torch

        found = {FACTS: ""}
        program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=found)
        model.same_facts("pt2", found[FACTS])
        return model.compare("pt2", program.module())
