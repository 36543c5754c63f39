"""A job of mgas, from its post to networks of their own widths, counted again from their ONNX files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from api.embedded import Embedded
from nas_core.architecture import Architecture
from nas_core.masks import Masks
from nas_core.parts import part_work, parts_on
from nas_core.profiles import DeviceProfile, Protocol
from nas_core.profiling import row_of
from nas_core.spaces.darts import DartsCells
from skyline import ApiError, Client
from skyline.schemas import Candidate, Job
from tests import onnx_reader
from tests.worker.test_bounds import takes_all_inputs

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OPS = ["skip_connect", "sep_conv_3x3", "max_pool_3x3"]
JOB: dict[str, Any] = {
    "space": {
        "name": "darts",
        "cells": 3,
        "nodes": 2,
        "channels": 4,
        "fan_in": "free",
        "levels": "cell",
        "filters": True,
        "normal_ops": OPS,
        "reduce_ops": OPS,
    },
    "dataset": {"name": "digits", "fraction": 0.3},
    "objectives": ["error", "params"],
    "algorithm": {
        "name": "mgas",
        "targets": [4000, 2500],
        "batch": 64,
        "initial_epochs": 1,
        "commit_every": 1,
        "lambda_start": 0.05,
        "alpha_lr": 5.0,
        "few_ops": 2,
        "rho": [0.8, 0.8, 0.8],
        "weight_threshold_lr": 0.02,
    },
    "budget": {"evaluations": 10, "epochs": 16},
    "verify": {"top": 3, "epochs": 1, "batch": 32, "start": "inherited"},
}
SPACE = DartsCells(**{name: value for name, value in JOB["space"].items() if name != "name"})
SKELETON = SPACE.skeleton((1, 8, 8), 10)


@pytest.fixture(scope="module")
def client(shared_service: Embedded) -> Iterator[Client]:
    with Client(shared_service.url) as made:
        yield made


@pytest.fixture(scope="module")
def job(client: Client) -> Job:
    found = client.wait(client.submit(JOB).id, timeout=300.0)
    assert found.status == "succeeded", found.reason
    return found


@pytest.fixture(scope="module")
def members(client: Client, job: Job) -> list[Candidate]:
    found = client.front(job.id, kind="final").members
    assert found
    return found


def test_a_job_meets_its_targets_and_its_files_have_the_widths(
    client: Client, job: Job, members: list[Candidate], tmp_path: Path
) -> None:
    sizes = [candidate.search_values["params"].value for candidate in client.candidates(job.id)]
    assert min(sizes) < 2500 and any(2500 <= size < 4000 for size in sizes)
    verified = [candidate for candidate in client.candidates(job.id) if candidate.status == "verified"]
    told = [candidate.search_values["error"].model_dump().get("goals", []) for candidate in verified]
    assert {1, 2} == {goal for goals in told for goal in goals}
    for member in members:
        file = client.pull(member.id, "json", tmp_path / f"{member.id}.json")
        cells = Architecture.from_json(file.read_text()).genotype.types.values()
        assert all(cell.width is not None and cell.pool_norm for cell in cells)
        found = onnx_reader.read(client.pull(member.id, "onnx", tmp_path / f"{member.id}.onnx"))
        params = member.values["params"].value
        assert found.params == params if takes_all_inputs(file) else found.params < params


def test_its_networks_begin_with_the_weights_of_the_search_and_keep_their_masks(
    client: Client, members: list[Candidate]
) -> None:
    masked = 0
    for member in members:
        assert member.values["error"].model_dump()["start"] == "inherited"
        architecture = Architecture.from_json(member.architecture)
        params, removed = member.values["params"].model_dump(), 0
        if architecture.genotype.masks is not None:
            masks = Masks.from_bytes(client.model(member.id, "masks"))
            masks.check(architecture)
            removed, masked = masks.removed, masked + 1
            weights = safetensors.torch.load(client.model(member.id, "safetensors"))
            assert all((weights[name][~kept] == 0).all() for name, kept in masks.kept.items())
        assert params.get("nonzero", params["value"]) == params["value"] - removed
    assert masked, "no network lost single weights"


def profile(name: str, narrow: bool) -> DeviceProfile:
    """Of a device on which a part takes a microsecond for every thousand numbers that it multiplies or moves."""
    parts = sorted(parts_on(SPACE, SKELETON, "all" if narrow else "full"), key=str)
    work = {part: part_work(part) for part in parts}
    rows = tuple(row_of(part, 1e-6 * (done.macs + done.activations)) for part, done in work.items())
    return DeviceProfile(name=name, device="cpu:none", protocol=Protocol(runtime="none"), parts=rows)


def test_a_target_in_a_devices_latency_is_met_by_narrower_cells(client: Client) -> None:
    board = profile("board", narrow=True)
    client.add_device(board.to_json())
    full = board.predict(Architecture(SPACE.extreme(SKELETON, "macs", True), SKELETON), "ms")
    target = 0.3 * full
    algorithm = {**JOB["algorithm"], "measure": "time", "targets": [target]}
    objectives = ["error", "params", {"name": "latency_ms", "device": "board", "key": "time"}]
    wanted = {**JOB, "algorithm": algorithm, "objectives": objectives, "verify": {"top": 1, "epochs": 1, "batch": 32}}
    job = client.wait(client.submit(wanted).id, timeout=300.0)
    assert job.status == "succeeded", job.reason
    (met,) = [each for each in client.candidates(job.id) if each.status == "verified"]
    latency = met.values["time"].model_dump()
    architecture = Architecture.from_json(met.architecture)
    assert latency["value"] == pytest.approx(board.predict(architecture, "ms")) and latency["value"] < target
    assert latency["interpolated"] == board.interpolated(architecture, "ms")


def test_a_profile_of_full_widths_alone_is_refused_unless_widths_stay(client: Client) -> None:
    client.add_device(profile("plain", narrow=False).to_json())
    objectives = ["error", {"name": "latency_ms", "device": "plain", "key": "time"}]
    algorithm = {**JOB["algorithm"], "measure": "time", "targets": []}
    with pytest.raises(ApiError, match=r"(?s)Parts without a cost.*skyline device profile .* --filters"):
        client.submit({**JOB, "algorithm": algorithm, "objectives": objectives})
    wide = {**JOB, "algorithm": {**algorithm, "filters": False}, "objectives": objectives}
    client.cancel(client.submit(wide).id)
