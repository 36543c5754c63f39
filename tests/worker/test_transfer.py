"""A network that was found, through the real service: verified wider, deeper, longer, on other images; and seeds."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.embedded import Embedded
from nas_core.architecture import Architecture, genotype_to_json
from skyline import ApiError, Client
from skyline.schemas import Candidate, Job
from tests.contracts.problems import genotypes

pytestmark = pytest.mark.e2e

SECONDS = 150.0
JOB: dict[str, Any] = {
    "name": "digits",
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.3},
    "objectives": ["error", "params"],
    "algorithm": {"name": "random", "batch": 2, "evaluate": {"epochs": 1, "subset": 64}},
    "seed_genotypes": [genotype_to_json(genotype) for genotype in genotypes(2)],
    "budget": {"evaluations": 3},
    "verify": {"top": 1, "epochs": 1, "lr": 0.1},
    "labels": {"suite": "e2e"},
}


def birds(path: Path) -> None:
    """Images of another size, other channels and other classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = rng.integers(0, 120, (300, 12, 12, 3), dtype=np.uint8)
    images[np.arange(300), :, :, labels] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x_train=images, y_train=labels)


@pytest.fixture(scope="module")
def client(shared_service: Embedded) -> Iterator[Client]:
    birds(shared_service.data_dir / "datasets" / "mine" / "birds.npz")
    with Client(shared_service.url) as made:
        yield made


@pytest.fixture(scope="module")
def job(client: Client) -> Job:
    ended = client.wait(client.submit(JOB).id, timeout=SECONDS)
    assert ended.status == "succeeded", ended.reason
    return ended


@pytest.fixture(scope="module")
def found(client: Client, job: Job) -> Candidate:
    return client.front(job.id, kind="final").members[0]


def test_a_job_tries_its_seeds_first(client: Client, job: Job) -> None:
    tried = [Architecture.from_json(candidate.architecture).genotype for candidate in client.candidates(job.id)]
    assert len(tried) == 3 and tuple(tried[:2]) == genotypes(2)


def test_a_network_is_verified_wider_deeper_and_longer(client: Client, job: Job, found: Candidate) -> None:
    body = {"target": {"cells": 4, "channels": [4, 6]}, "verify": {"epochs": 2, "seeds": 2}}
    made = client.verify(found.id, **body, objectives=["error", "params", {"name": "latency_ms", "seconds": 0.05}])
    ended = client.wait(made.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    assert ended.labels == {"suite": "e2e", "verifies": str(found.id)}
    assert [attempt.kind for attempt in ended.attempts].count("verify") == 2
    networks = list(client.candidates(ended.id))
    assert [network.architecture["skeleton"]["channels"] for network in networks] == [4, 6]
    for network in networks:
        assert (network.status, network.failure) == ("verified", None)
        assert network.architecture["genotype"] == found.architecture["genotype"]
        assert len(network.architecture["skeleton"]["cells"]) == 4
        assert set(network.search_values) == {"params"}, "nothing was trained or measured before the verification"
        kinds = {key: value.kind for key, value in network.values.items()}
        assert kinds == {"error": "trained", "params": "exact", "latency_ms": "measured"}
        error = network.values["error"].model_dump()
        assert (error["epochs"], error["seeds"], error["split"]) == (2, 2, "select")
    front = client.front(ended.id)
    assert front.kind == "final" and front.members and all(member.test for member in front.members)
    search = client.front(ended.id, kind="search")
    assert (search.version, search.members, ended.front.search) == (0, [], 0)
    warnings = [event for event in client.watch(ended.id) if event.type == "warning"]
    assert warnings == []


def test_a_network_is_verified_on_other_images(client: Client, found: Candidate) -> None:
    images = {"name": "npz", "path": "mine/birds.npz"}
    deadline = time.monotonic() + SECONDS
    while True:  # a running worker sees new files within some seconds
        try:
            made = client.verify(found.id, dataset=images, name="birds")
            break
        except ApiError as error:
            if "is seen within some seconds" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    ended = client.wait(made.id, timeout=SECONDS)
    assert (ended.status, ended.reason, ended.name) == ("succeeded", None, "birds")
    (network,) = client.candidates(ended.id)
    here, there = found.architecture["skeleton"], network.architecture["skeleton"]
    assert (there["input"], there["classes"]) == ([3, 12, 12], 3)
    assert {name: there[name] for name in ("cells", "channels", "stem")} == {
        name: here[name] for name in ("cells", "channels", "stem")
    }
    assert network.test is not None and network.test.n == 60
    assert client.model(network.id, "safetensors")


def test_all_candidates_as_a_table(client: Client, job: Job) -> None:
    text = b"".join(client.candidates_csv(job.id)).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, candidate in zip(rows, client.candidates(job.id), strict=True):
        assert (row["id"], row["hash"], row["status"]) == (str(candidate.id), candidate.hash, candidate.status)
        assert float(row["error"]) == candidate.values["error"].value
        assert float(row["error.search"]) == candidate.search_values["error"].value
        assert row["stage"] == ("final" if candidate.status == "verified" else "search")
