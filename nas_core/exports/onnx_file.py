"""The network as an ONNX graph in one file, for any batch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nas_core.errors import ExportError
from nas_core.exports import exports
from nas_core.exports._model import Model, require

if TYPE_CHECKING:
    from torch import Tensor


@exports.register("onnx")
class Onnx:
    """An ONNX graph with weights, ``input`` to ``logits``; any batch."""

    media_type: ClassVar[str] = "application/octet-stream"
    suffix: ClassVar[str] = ".onnx"
    needs_weights: ClassVar[bool] = True
    extra: ClassVar[str | None] = "onnx"

    def write(self, model: Model, path: Path) -> None:
        """Metadata: ``skyline`` as in safetensors, and by themselves ``mean``, ``std``, ``input`` and ``classes``."""
        require("onnx", "onnx", "onnx", "onnxscript", "onnxruntime")
        import torch

        network, skeleton = model.network("onnx"), model.architecture.skeleton
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                network,
                (torch.zeros((2, *skeleton.input)),),
                dynamo=True,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        if program is None:
            raise ExportError("torch.onnx.export gave no graph; please report it with the architecture")
        graph = program.model.graph
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()  # traces with paths of the machine that exports
        program.model.metadata_props.update(
            {
                "skyline": model.metadata,
                "mean": json.dumps(list(model.mean)),
                "std": json.dumps(list(model.std)),
                "input": json.dumps(list(skeleton.input)),
                "classes": str(skeleton.classes),
            }
        )
        program.save(path, external_data=False)

    def check(self, path: Path, model: Model) -> float:
        require("onnx", "onnx", "onnxruntime")
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        model.same_facts("onnx", session.get_modelmeta().custom_metadata_map.get("skyline"))

        def run(images: Tensor) -> Tensor:
            (logits,) = session.run(["logits"], {"input": images.numpy()})
            return torch.from_numpy(logits)

        return model.compare("onnx", run)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporter warns of its own deprecated calls, and that torchvision, which nothing needs, is missing."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
