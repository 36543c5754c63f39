"""A network with weight masks through the real service: found, taken home, trained on a folder of other images."""

from __future__ import annotations

import csv
import hashlib
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.embedded import Embedded
from nas_core.architecture import Architecture
from nas_core.masks import Masks
from skyline import Client
from skyline.cli import values
from skyline.errors import ApiError
from skyline.schemas import Candidate, Job
from tests.worker import sieve

pytestmark = pytest.mark.e2e

SECONDS = 150.0


@pytest.fixture(scope="module")
def client(short_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = short_folder / "masks"
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "grey", "light")):
        place = folder / "datasets" / "leaves" / name
        place.mkdir(parents=True)
        for number in range(15):
            pixels = rng.integers(0, 60, (12, 12, 3)) + 90 * label
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    plugin = str(sieve.write(tmp_path_factory.mktemp("plugins")))
    with Embedded(folder, port=0, workers=1, threads=1, plugins=plugin) as running, Client(running.url) as made:
        yield made


def ended(client: Client, job: Job) -> Job:
    found = client.wait(job.id, timeout=SECONDS)
    assert found.status == "succeeded", found.reason
    return found


@pytest.fixture(scope="module")
def found(client: Client) -> Candidate:
    job = ended(client, client.submit(sieve.SPEC))
    return client.front(job.id, kind="final").members[0]


def test_a_front_shows_both_counts_and_the_masks_can_be_had(client: Client, found: Candidate, tmp_path: Path) -> None:
    assert {"masks", "inherited", "safetensors"} <= set(found.artefacts)
    content = client.model(found.id, "masks")
    architecture = Architecture.from_json(found.architecture)
    assert hashlib.sha256(content).hexdigest() == architecture.genotype.masks
    masks = Masks.from_bytes(content)
    masks.check(architecture)
    params = found.values["params"].model_dump()
    assert params["value"] - params["nonzero"] == masks.removed > 0
    assert found.values["error"].model_dump()["start"] == "scratch"
    assert f"({params['nonzero']:,} nonzero)" in values.number(found.values["params"])
    table = b"".join(client.candidates_csv(client.candidate(found.id).job)).decode().splitlines()
    (row,) = [each for each in csv.DictReader(table) if each["id"] == str(found.id)]
    assert row["nonzero"] == str(params["nonzero"])
    there = runpy.run_path(str(client.pull(found.id, "python", tmp_path / "network.py")))
    assert there["PARAMETERS"] == {"all": params["value"], "nonzero": params["nonzero"]}
    assert masks.leaks(there["load"]().state_dict()) == []


@pytest.mark.parametrize("start", ["scratch", "inherited"])
def test_it_goes_to_a_folder_of_other_images_with_its_masks(client: Client, found: Candidate, start: str) -> None:
    leaves = {"name": "imagefolder", "path": "leaves", "size": 10, "workers": 0}
    verify: dict[str, Any] = {"start": start, "epochs": 1, "batch": 8}
    job = ended(client, client.verify(found.id, dataset=leaves, verify=verify, constraints={}))
    (network,) = client.candidates(job.id)
    skeleton = network.architecture["skeleton"]
    assert (skeleton["input"], skeleton["classes"]) == ([3, 10, 10], 3)
    assert network.architecture["genotype"] == found.architecture["genotype"]
    assert client.model(network.id, "masks") == client.model(found.id, "masks")
    assert network.values["error"].model_dump()["start"] == start
    params = network.values["params"].model_dump()
    before = found.values["params"].model_dump()
    assert params["value"] - params["nonzero"] == before["value"] - before["nonzero"]
    warnings = [event.data["text"] for event in client.watch(job.id) if event.type == "warning"]
    assert len([text for text in warnings if "do not fit these images" in text]) == (start == "inherited")
    assert ("inherited" in network.artefacts) == (start == "inherited")


def test_it_does_not_go_to_another_width_and_goes_with_its_job(client: Client, found: Candidate) -> None:
    with pytest.raises(ApiError, match="weight masks, which stay with the widths that they were found at"):
        client.verify(found.id, target={"channels": 4})
    client.delete(found.job)
    with pytest.raises(ApiError, match="404"):
        client.model(found.id, "masks")
