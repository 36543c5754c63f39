"""A job with bounds on params and multiply-adds, whose whole final front is counted again from ONNX files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.embedded import Embedded
from skyline import Client
from tests import onnx_reader

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECONDS = 200.0
JOB: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 4},
    "target": {"cells": 4, "channels": [4, 6]},
    "dataset": {"name": "digits", "fraction": 0.5},
    "objectives": ["error", "params", "macs"],
    "budget": {"evaluations": 16, "epochs": 3},
    "verify": {"top": 4, "epochs": 1, "batch": 32},
}
SHORT = {"evaluate": {"epochs": 1, "batch": 32, "subset": 64}}


@pytest.fixture(scope="module")
def client(short_folder: Path) -> Iterator[Client]:
    with Embedded(short_folder / "bounds", port=0, workers=2, threads=1) as running, Client(running.url) as made:
        yield made


FREE = {"name": "entrannas", "batch": 32, "dst": True, "alpha_lr": 0.3, "threshold_start": 0.0}
"""Nodes take any number of ops, several of one node with coefficients."""


@pytest.mark.parametrize(
    "algorithm",
    [{"name": "random", **SHORT}, {"name": "nsga2", "population": 4, **SHORT}, {"name": "darts", "batch": 32}, FREE],
    ids=["random", "nsga2", "darts", "entrannas-dst"],
)
def test_every_network_of_a_bounded_front_holds_its_bounds_by_its_file(
    client: Client, algorithm: dict[str, Any], tmp_path: Path
) -> None:
    fan_in = "free" if algorithm is FREE else "two"
    wanted = {**JOB, "algorithm": algorithm, "space": {**JOB["space"], "fan_in": fan_in}}
    job = client.wait(client.submit({**wanted, "verify": {"top": 1, "epochs": 1}}).id, timeout=SECONDS)
    seen = [
        {key: candidate.search_values[key].value for key in ("params", "macs")}
        for candidate in client.candidates(job.id)
    ]
    bounds = {}
    for key in ("params", "macs"):
        ordered = sorted(each[key] for each in seen)
        bounds[key] = {"min": ordered[len(ordered) // 8], "max": ordered[-1 - max(1, len(ordered) // 8)]}
    job = client.wait(client.submit({**wanted, "constraints": bounds}).id, timeout=SECONDS)
    assert job.status == "succeeded", job.reason
    tried = [candidate.search_values for candidate in client.candidates(job.id)]
    assert not all(
        bound["min"] <= values[key].value <= bound["max"] for values in tried for key, bound in bounds.items()
    ), "the bounds keep something out"
    members = client.front(job.id, kind="final").members
    assert members, job.infeasible
    for member in members:
        found = onnx_reader.read(client.pull(member.id, "onnx", tmp_path / f"{member.id}.onnx"))
        assert found.macs == member.values["macs"].value
        assert found.params == member.values["params"].value
        assert bounds["macs"]["min"] <= found.macs <= bounds["macs"]["max"]
        assert bounds["params"]["min"] <= found.params <= bounds["params"]["max"]
