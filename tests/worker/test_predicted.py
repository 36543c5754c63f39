"""Costs that are predicted, through the real service: every value has a number and says where it comes from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from api.embedded import Embedded
from nas_core.architecture import Architecture
from nas_core.parts import work_of
from nas_core.profiles import DeviceProfile
from nas_core.profiling import Bench, measure_profile
from nas_core.spaces import spaces
from skyline import Client
from skyline.cli import build
from worker.device_command import device

pytestmark = pytest.mark.e2e

SECONDS = 150.0
SPACE = {"name": "darts", "cells": 3, "nodes": 1, "channels": 2}
KINDS = {
    "error": "trained",
    "params": "exact",
    "flops": "exact",
    "latency_ms": "measured",
    "energy_mj": "predicted",
    "peak_memory_mb": "exact",
}


@pytest.fixture(scope="module")
def service(shared_service: Embedded) -> Embedded:
    return shared_service


@pytest.fixture
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


def spec(*objectives: Any, **changes: Any) -> dict[str, Any]:
    return {
        "space": SPACE,
        "dataset": {"name": "digits", "fraction": 0.3},
        "objectives": ["error", *objectives],
        "algorithm": {"name": "random", "evaluate": {"epochs": 1, "batch": 32}},
        "budget": {"evaluations": 3},
        "verify": {"top": 3, "epochs": 1, "batch": 32},
        **changes,
    }


def test_a_fresh_laptop_job_has_a_number_of_known_kind_everywhere(client: Client) -> None:
    latency = {"name": "latency", "seconds": 0.05}
    energy = {"name": "energy", "kind": "predicted"}  # so too on a machine that counts
    job = client.submit(spec("params", "flops", latency, energy, "peak_memory_mb"))
    ended = client.wait(job.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    members = client.front(job.id, kind="final").members
    assert members
    for member in [*client.candidates(job.id), *members]:
        for values in (member.values, member.search_values):
            assert {key: value.kind for key, value in values.items()} == KINDS
            assert all(math.isfinite(value.value) for value in values.values())
            assert all(value.value > 0 for key, value in values.items() if key != "error")
    architecture = Architecture.from_json(members[0].architecture)
    told = members[0].values["energy_mj"].model_dump()
    assert told["method"] == "operations" and "Horowitz" in told["coefficients"]
    assert told["macs"] == work_of(architecture).macs
    assert set(ended.spec.keys) == set(client.front(job.id, kind="final").reference_point)


def test_energy_where_nothing_is_said_is_measured_by_a_counter_or_predicted(client: Client) -> None:
    job = client.submit(spec("energy", budget={"evaluations": 1}, verify={"top": 1, "epochs": 1, "batch": 32}))
    ended = client.wait(job.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    (entry,) = [each for each in client.catalog().objectives if each.name == "energy_mj"]
    one, *others = entry.workers.values()  # on the same host
    assert all(other == one for other in others)
    (member,) = client.front(job.id, kind="final").members
    assert member.values["energy_mj"].kind == ("measured" if one["counter"] else "predicted")
    assert one["counter"] or one["reason"]


def test_a_job_on_the_profile_of_another_device(client: Client, service: Embedded, tmp_path: Path) -> None:
    made = spaces["darts"](**{name: value for name, value in SPACE.items() if name != "name"})
    skeleton = made.skeleton((1, 8, 8), 10)
    bench = Bench(torch.device("cpu"), part_seconds=0.01, network_seconds=0.02)
    profile = measure_profile("desk-pi", "darts", made, [skeleton], bench, train=4, held_out=6, power_w=4.0).profile
    file = tmp_path / "desk-pi.json"
    file.write_text(json.dumps(profile.to_json()))

    def run(*words: str) -> str:
        done = CliRunner().invoke(build(), [*words, "--url", service.url])
        assert done.exit_code == 0, done.output
        return done.output

    assert "device desk-pi: " in run("devices", "add", str(file))
    assert "of 6 held-out networks of darts: tau" in run("devices", "show", "desk-pi")
    job = client.submit(
        spec({"name": "latency", "device": "desk-pi", "key": "lat"}, {"name": "energy", "device": "desk-pi"})
    )
    assert DeviceProfile.from_json(json.loads(run("devices", "show", "desk-pi", "--json"))) == profile
    assert "is removed" in run("devices", "remove", "desk-pi")
    ended = client.wait(job.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None), "the job has the profile, not the name"
    found = [each for each in client.candidates(job.id) if each.status == "verified"]
    assert found
    for candidate in found:
        architecture = Architecture.from_json(candidate.architecture)
        latency, energy = candidate.values["lat"], candidate.values["energy_mj@desk-pi"]
        assert (latency.kind, energy.kind) == ("predicted", "predicted")
        assert latency.value == pytest.approx(profile.predict(architecture, "ms"))
        assert energy.value == pytest.approx(4.0 * latency.value)
        (seen,) = profile.latency_validation
        told = latency.model_dump()
        assert (told["device"], told["profile"], told["tau"]) == ("desk-pi", profile.sha256, seen.tau)
        assert (told["mape"], told["held_out"], told["tau_repeat"]) == (seen.mape, 6, seen.tau_repeat)
    shown = run("front", str(job.id))
    assert "lat is predicted: parts, device desk-pi; tau" in shown and "on 6 held-out networks" in shown


def test_this_machine_is_measured_and_uploaded(client: Client, service: Embedded) -> None:
    small = ["--cells", "5", "--channels", "2", "--input", "1x8x8", "--networks", "4,6", "--seconds", "0.02"]
    words = ["profile", "--space", "nasbench201", *small, "--name", "here", "--url", service.url]
    done = CliRunner().invoke(device, words)
    assert done.exit_code == 0, done.output
    assert "here: 21 parts; 6 held-out networks: tau" in done.stdout
    assert client.device("here").latency_validation[0].n == 6
    space = {"name": "nasbench201", "cells": 5, "channels": 2}
    found = client.estimate(spec({"name": "latency", "device": "here"}, space=space))
    assert found.spec.objectives[1].settings["profile"] == client.device("here").sha256
