"""A job with bounds on params and multiply-adds, whose whole final front is counted again from ONNX files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.embedded import Embedded
from nas_core.architecture import Architecture
from skyline import ApiError, Client
from tests import onnx_reader

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECONDS = 200.0
JOB: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 4},
    "target": {"cells": 4, "channels": [4, 6]},
    "dataset": {"name": "digits", "fraction": 0.5},
    "objectives": ["error", "params", "macs"],
    "budget": {"evaluations": 16, "epochs": 3},
    "verify": {"top": 2, "epochs": 1, "batch": 32},
}
SHORT = {"evaluate": {"epochs": 1, "batch": 32, "subset": 64}}


@pytest.fixture(scope="module")
def client(shared_service: Embedded) -> Iterator[Client]:
    with Client(shared_service.url) as made:
        yield made


FREE = {"name": "entrannas", "batch": 32, "dst": True, "alpha_lr": 0.3, "threshold_start": 0.0}
"""Nodes take any number of ops, several of one node with coefficients."""


@pytest.mark.parametrize("algorithm", [{"name": "random", **SHORT}, FREE], ids=["random", "entrannas-dst"])
def test_every_network_of_a_bounded_front_holds_its_bounds_by_its_file(
    client: Client, algorithm: dict[str, Any], tmp_path: Path
) -> None:
    """That no algorithm brings others to a front is in tests/contracts."""
    fan_in = "free" if algorithm is FREE else "two"
    wanted = {**JOB, "algorithm": algorithm, "space": {**JOB["space"], "fan_in": fan_in}}
    job = client.wait(client.submit({**wanted, "verify": {"top": 1, "epochs": 1}}).id, timeout=SECONDS)
    seen = [
        {key: candidate.search_values[key].value for key in ("params", "macs")}
        for candidate in client.candidates(job.id)
    ]
    bounds = {}
    for key in ("params", "macs"):
        ordered = sorted({each[key] for each in seen})
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
        values = {key: member.values[key].value for key in bounds}
        if takes_all_inputs(client.pull(member.id, "json", tmp_path / f"{member.id}.json")):
            assert {"macs": found.macs, "params": found.params} == values
        else:  # what prepares an input that nothing takes is built and counted, but left out of the file
            assert found.macs <= values["macs"] and found.params < values["params"]
        for key, bound in bounds.items():
            assert bound["min"] <= values[key] <= bound["max"]


@pytest.mark.parametrize(
    ("algorithm", "path"),
    [
        ({"name": "darts", "resource_weights": [0, 1]}, "/algorithm/resource_weights"),
        ({"name": "darts", "resource_weights": [1], "resource": "peak_memory_mb"}, "/algorithm/resource"),
        ({"name": "rc-darts", "bounds": [{"peak_memory_mb": {"max": 1}}]}, "/algorithm/bounds/0/peak_memory_mb"),
    ],
)
def test_a_search_cannot_look_ahead_to_a_cost_that_is_no_sum(
    client: Client, algorithm: dict[str, Any], path: str
) -> None:
    wanted = {**JOB, "objectives": ["error", "peak_memory_mb"], "algorithm": algorithm}
    with pytest.raises(ApiError, match="adds up over ops") as raised:
        client.submit(wanted)
    assert [each.path for each in raised.value.problem.errors] == [path]


def test_of_several_costs_a_search_looks_ahead_to_the_first_that_is_a_sum(client: Client) -> None:
    algorithm = {"name": "darts", "batch": 32, "resource_weights": [0, 1]}
    objectives = ["error", "peak_memory_mb", "params"]
    job = client.wait(client.submit({**JOB, "objectives": objectives, "algorithm": algorithm}).id, timeout=SECONDS)
    assert job.status == "succeeded", job.reason


def test_energy_by_operations_is_a_cost_to_look_ahead_to(client: Client) -> None:
    energy = {"name": "energy_mj", "kind": "predicted", "key": "energy"}
    for algorithm in (
        {"name": "darts", "resource_weights": [0, 1], "resource": "energy"},
        {"name": "rc-darts", "bounds": [{"energy": {"max": 1.0}}]},
    ):
        client.estimate({**JOB, "objectives": ["error", energy], "algorithm": algorithm})
    space = {**JOB["space"], "fan_in": "free", "levels": "cell", "filters": True}
    wanted = {**JOB, "space": space, "target": {}, "objectives": ["error", energy]}
    with pytest.raises(ApiError, match="1e-09 in 'energy' lies outside what networks have here"):
        client.estimate({**wanted, "algorithm": {"name": "mgas", "measure": "energy", "targets": [1e-9]}})


def takes_all_inputs(file: Path) -> bool:
    """Of each cell; always so where nodes take two inputs."""
    architecture = Architecture.from_json(file.read_text())
    cells = architecture.genotype.types.values()
    return all({edge.source for edge in cell.edges} >= set(range(cell.inputs)) for cell in cells)
