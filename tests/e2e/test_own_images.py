"""A user's own pictures from a folder to a front: seen by a running service, registered by HTTP, searched with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from api.embedded import Embedded
from skyline import Client
from skyline.errors import ApiError
from skyline.schemas import RegisteredDataset

pytestmark = pytest.mark.e2e

SECONDS = 120.0
CLASSES = ("acer", "red oak")


@pytest.fixture(scope="module")
def service(shared_service: Embedded) -> Embedded:
    return shared_service


@pytest.fixture
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


def paint(folder: Path, each: int = 20) -> None:
    """Pictures of several sizes and formats; one class is darker than the other."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            height, width = rng.integers(9, 15, 2)
            pixels = rng.integers(0, 90, (height, width, 3)) + 120 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.{('png', 'jpg')[number % 2]}")
    (folder / ".DS_Store").write_bytes(b"x")


def registered(client: Client, dataset: dict[str, Any], name: str = "leaves") -> RegisteredDataset:
    """Once the worker has seen the folder."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return client.add_dataset(name, dataset)
        except ApiError as error:
            if "is seen within some seconds" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_from_a_folder_to_a_front(service: Embedded, client: Client) -> None:
    paint(service.data_dir / "datasets" / "leaves")
    settings = {"name": "imagefolder", "path": "leaves", "size": 8, "workers": 0}
    made = registered(client, settings)
    assert (made.input, made.classes, made.images) == ([3, 8, 8], 2, {"train": 32, "test": 8})
    again = client.add_dataset("leaves", settings)
    assert again.model_copy(update={"workers": made.workers}) == made, "but for who has seen the folder since"
    assert "leaves" in {entry.name for entry in client.catalog().datasets}
    job = client.submit(
        {
            "space": {"name": "darts", "cells": 3, "nodes": 1, "channels": 2},
            "dataset": {"name": "leaves"},
            "objectives": ["error", "params"],
            "algorithm": {"name": "random", "evaluate": {"epochs": 1, "batch": 8}},
            "budget": {"evaluations": 2},
            "verify": {"top": 1, "epochs": 1, "batch": 8},
        }
    )
    client.delete_dataset("leaves")  # the job has the settings, and its worker never looks the name up
    ended = client.wait(job.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    assert (ended.spec.dataset.called, ended.spec.dataset.name) == ("leaves", "imagefolder")
    (member,) = client.front(job.id, kind="final").members
    assert member.architecture["skeleton"]["input"] == [3, 8, 8]
    assert member.test is not None and member.test.n == 8


@pytest.mark.parametrize(
    ("name", "algorithm", "space"),
    [
        ("entrannas-dst", {"name": "entrannas", "dst": True, "batch": 12}, {"fan_in": "free"}),
        ("rc-darts", {"name": "rc-darts", "batch": 12, "bounds": [{"params": {"max": 3_000}}]}, {}),
    ],
)
def test_pictures_of_224_pixels(
    service: Embedded, client: Client, tmp_path: Path, name: str, algorithm: dict[str, Any], space: dict[str, Any]
) -> None:
    """Ten classes, the stem of ImageNet; from search to a file that another runtime runs."""
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = service.data_dir / "datasets" / name / f"class {label}"
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 60, (240, 256, 3)) + 19 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg")
    made = registered(client, {"name": "imagefolder", "path": name, "size": 224, "workers": 0}, name)
    assert (made.input, made.classes) == ([3, 224, 224], 10)
    job = client.submit(
        {
            "space": {"name": "darts", "cells": 3, "nodes": 1, "channels": 2, **space},
            "dataset": {"name": name},
            "objectives": ["error", "params"],
            "algorithm": algorithm,
            "budget": {"evaluations": 4, "epochs": 1},
            "verify": {"top": 1, "epochs": 1, "batch": 12},
        }
    )
    ended = client.wait(job.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    (member,) = client.front(job.id, kind="final").members
    assert member.architecture["skeleton"]["stem"] == "imagenet"
    assert made.images is not None and member.test is not None and member.test.n == made.images["test"]
    if name == "rc-darts":
        assert member.values["params"].value <= 3_000
    file = tmp_path / "network.onnx"
    file.write_bytes(client.model(member.id, "onnx"))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 224, 224), dtype=np.float32)})
    assert logits.shape == (1, 10) and np.isfinite(logits).all()
