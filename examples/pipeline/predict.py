"""Runs a pulled ONNX model on a batch of images, without Skyline and without PyTorch.

python predict.py model.onnx batch.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def predict(model: Path, batch: Path) -> tuple[list[int], list[int]]:
    """(predicted classes, labels) of the images in a JSON file: ``images`` (N, H, W), pixels as in the data set."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map  # the file says how its images are normalised
    mean, std = (np.array(json.loads(facts[name]), np.float32)[:, None, None] for name in ("mean", "std"))
    content = json.loads(batch.read_text(encoding="utf-8"))
    images = np.array(content["images"], np.float32)[:, None]  # (N, 1, H, W)
    (logits,) = session.run(["logits"], {"input": (images - mean) / std})
    return np.argmax(logits, axis=1).tolist(), content["labels"]


if __name__ == "__main__":
    predicted, labels = predict(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"predicted {predicted}")
    print(f"labels    {labels}")
