"""Plug-ins in the real service: jobs over HTTP on a user's own objective and data set, edited, broken and mended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from api.embedded import Embedded
from nas_core.architecture import Architecture
from nas_core.costs import count
from skyline import Client
from skyline.errors import ApiError
from skyline.schemas import Job, PluginInfo
from tests import documents
from tests.waiting import until
from tests.worker import ladder

pytestmark = pytest.mark.e2e

SECONDS = 150.0
PAGE = "docs/howto/plugins.md"
CELLS = {"name": "darts", "cells": 3, "nodes": 2, "channels": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The examples of the page, one that is broken, and one whose search goes on from another."""
    folder = tmp_path_factory.mktemp("plugins")
    broken = folder / "broken.py"
    broken.write_text("this is no Python\n")
    return {**documents.write(PAGE, folder), "broken": broken, "ladder": ladder.write(folder)}


@pytest.fixture(scope="module")
def service(short_folder: Path, files: dict[str, Path]) -> Iterator[Embedded]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYLINE_HEARTBEAT_SECONDS", "0.5")
        patch.setenv("SKYLINE_RELAY_SECONDS", "0.5")
        patch.setenv("SKYLINE_RESEND_SECONDS", "2")
        named = ",".join(map(str, files.values()))
        with Embedded(short_folder / "plugins", port=0, workers=1, threads=1, plugins=named) as running:
            yield running


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


def spec(**changes: Any) -> dict[str, Any]:
    """The job of the page."""
    return {**yaml.safe_load(documents.job(PAGE)), **changes}


def small(**changes: Any) -> dict[str, Any]:
    return spec(**{"budget": {"evaluations": 1}, "verify": {"top": 1, "epochs": 1}, **changes})


def ended(client: Client, job: Job) -> Job:
    found = client.wait(job.id, timeout=SECONDS)
    assert found.status == "succeeded", found.reason
    return found


def own(client: Client, service: Embedded) -> dict[str, PluginInfo]:
    """The plug-ins of the service's own worker."""
    (worker,) = [worker for worker in client.catalog().workers if worker.name == service._name(1)]
    return {plugin.name: plugin for plugin in worker.plugins}


def grams(client: Client, job: Job) -> tuple[float, float]:
    """Of the one member of a job's front: its CO2, and the energy that that is the CO2 of, joules."""
    (member,) = client.front(job.id, kind="final").members
    cost = count(Architecture.from_json(member.architecture))
    return member.values["carbon"].value, 2e-9 * cost.macs + 1e-8 * cost.params


def names_of_processes(service: Embedded) -> list[str]:
    found = []
    for child in service.children:
        for process in psutil.Process(child.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found.append(process.name())
    return found


@contextmanager
def plain_worker(service: Embedded) -> Iterator[str]:
    """A worker without plug-ins; its name."""
    environment = {**service._environment(), "SKYLINE_PLUGINS": ""}
    argv = [sys.executable, "-m", "worker", "--threads", "1", "--name", "plain"]
    with (service.log_dir / "plain.log").open("ab") as output:
        process = subprocess.Popen(argv, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield "plain"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)


def test_a_job_on_plug_ins_ends_in_a_front_of_their_values(client: Client, service: Embedded) -> None:
    job = ended(client, client.submit(spec()))
    front = client.front(job.id, kind="final")
    objective = {each.key: each for each in front.objectives}["carbon"]
    assert (objective.unit, objective.direction, objective.kind) == ("g", "minimize", "predicted")
    assert front.members and front.hypervolume
    for member in front.members:
        cost = count(Architecture.from_json(member.architecture))
        value = member.values["carbon"].model_dump()
        assert value["value"] == pytest.approx((2e-9 * cost.macs + 1e-8 * cost.params) / 3.6 * 50)
        assert (value["unit"], value["kind"], value["grid"]) == ("g", "predicted", 50)
        assert member.test is not None and member.test.n == 100, "the test images of the data set"
        assert front.reference_point["carbon"] > value["value"]
    assert len({candidate.hash for candidate in client.candidates(job.id)}) > 1


def test_the_catalog_says_what_was_loaded_and_what_was_not(client: Client, service: Embedded) -> None:
    found = own(client, service)
    assert found["carbon.py"].adds == ["objective 'carbon'"] and found["carbon.py"].error is None
    assert found["broken.py"].adds == []
    assert found["broken.py"].error == "SyntaxError: invalid syntax (broken.py, line 1)"
    catalog = client.catalog()
    (carbon,) = [entry for entry in catalog.objectives if entry.name == "carbon"]
    assert carbon.facts["plugin"] == "carbon.py" and carbon.settings["properties"]["grid"]["exclusiveMinimum"] == 0
    assert "darts" in {entry.name for entry in catalog.spaces}
    remarks = service.plugin_remarks()
    assert "plug-in 'bars.py' adds data set 'bars'" in remarks
    assert "warning: plug-in 'broken.py' cannot be used: SyntaxError: invalid syntax (broken.py, line 1)" in remarks
    log = (service.log_dir / "worker-1.log").read_text().splitlines()
    assert all(any(line.endswith(remark) for line in log) for remark in remarks)


def test_a_setting_outside_its_form_is_refused(client: Client) -> None:
    with pytest.raises(ApiError, match="setting 'grid' of objective 'carbon': got -1; expected more than 0"):
        client.submit(spec(objectives=["error", {"name": "carbon", "grid": -1}]))


def test_a_job_goes_on_from_a_job_and_leaves_nothing_behind(client: Client) -> None:
    source = ended(client, client.submit(ladder.SPEC))
    asked = {"from": str(source.id), "objectives": ["error", "macs"], "algorithm": {"name": "ladder", "length": 7}}
    assert client.estimate(asked).spec.origin == source.id
    job = ended(client, client.submit(asked))
    assert job.spec.origin == source.id and job.spec.budget == source.spec.budget
    errors = sorted(candidate.search_values["error"].value for candidate in client.candidates(job.id))
    assert errors == [1 / 7, 1 / 6, 1 / 5], "steps 4 to 6"
    (member,) = client.front(job.id, kind="final").members
    assert set(member.values) == {"error", "macs"} and member.values["error"].kind == "trained"
    client.delete(source.id)
    with pytest.raises(ApiError, match=f"from: unknown job '{source.id}'"):
        client.submit(asked)
    client.delete(job.id)


def test_tnd_nas_takes_a_users_metric_and_is_targeted_anew(client: Client) -> None:
    """The metric has no gradient and no table. The second job trains no supernet: its costs and bound are others."""
    algorithm = {"name": "tnd-nas", "preferences": 2, "stages": 1, "batch": 32, "samples": 2, "interval": 4}
    algorithm |= {"warmup": 0.5, "rescored": 2, "ranked_by": {"supernet": 1.0}, "policy_steps": 2}
    asked: dict[str, Any] = {"space": CELLS, "algorithm": algorithm, "budget": {"epochs": 2, "evaluations": 5}}
    source = ended(client, client.submit(small(**asked, objectives=["error", "carbon"])))
    told = [event.data["metrics"] for event in client.events(source.id).items if event.type == "progress"]
    assert any({"reward", "entropy", "front", "hypervolume", "multiply_adds"} <= set(metrics) for metrics in told)
    assert any({"seconds", "peak_memory_mb"} <= set(metrics) for metrics in told)
    limit = max(candidate.search_values["carbon"].value for candidate in client.candidates(source.id))
    asked = {"from": str(source.id), "objectives": ["error", "macs", "carbon"]}
    asked |= {"constraints": {"carbon": {"max": limit}}}
    job = ended(client, client.submit(asked))
    assert job.spec.algorithm.name == "tnd-nas"
    (member,) = client.front(job.id, kind="final").members
    assert set(member.values) == {"error", "macs", "carbon"} and member.values["carbon"].value <= limit
    scored = [candidate.search_values["error"] for candidate in client.candidates(job.id)]
    assert scored and {value.kind for value in scored} == {"supernet"}
    losses = [event for event in client.events(job.id).items if "loss" in event.data.get("metrics", {})]
    assert all(event.data["phase"] != "search" for event in losses), "nothing but the verification trains"


def test_an_edited_file_counts_from_the_next_attempt_on(
    client: Client, service: Embedded, files: dict[str, Path]
) -> None:
    """The process that runs it was waiting, with everything imported, before the edit."""
    until("a spare process", lambda: "skyline-spare" in names_of_processes(service))
    text = files["carbon"].read_text()
    files["carbon"].write_text(text.replace("each / 3.6", "1000 + each / 3.6"))
    value, joules = grams(client, ended(client, client.submit(small())))
    assert value == pytest.approx(1000 + joules / 3.6 * 50)


def test_a_worker_without_it_leaves_the_job_to_those_that_have_it(client: Client, service: Embedded) -> None:
    with plain_worker(service) as name:
        until("registration", lambda: name in {each.name for each in client.catalog().workers if each.live})
        jobs = [client.submit(small(seed=seed)) for seed in range(2)]
        for job in jobs:
            assert {attempt.worker for attempt in ended(client, job).attempts} == {service._name(1)}


def test_a_job_waits_for_a_plug_in_that_is_broken_and_goes_on_when_it_is_mended(
    client: Client, service: Embedded, files: dict[str, Path]
) -> None:
    text = files["carbon"].read_text()
    long = client.submit(small(budget={"evaluations": 5000}))  # keeps the worker, so that the next one waits
    until("start", lambda: client.job(long.id).status == "searching")
    job = client.submit(small())
    files["carbon"].write_text("raise KeyError('gone')\n")
    client.cancel(long.id)
    said = until("what it waits for", lambda: client.job(job.id).waiting_for)
    assert "objective 'carbon'" in said
    assert until("report", lambda: own(client, service)["carbon.py"].error) == "KeyError: 'gone' (line 1)"
    assert client.job(job.id).status in ("queued", "searching")
    files["carbon"].write_text(text)
    assert ended(client, job).reason is None
    assert not [attempt for attempt in client.job(job.id).attempts if attempt.end in ("died", "failed")]


def test_an_objective_that_raises_costs_candidates_and_says_why(
    client: Client, service: Embedded, files: dict[str, Path]
) -> None:
    text = files["carbon"].read_text()
    files["carbon"].write_text(text.replace("        joules", "        raise LookupError('no board')\n        joules"))
    try:
        job = client.wait(client.submit(small(reference_point={"carbon": 1e9})).id, timeout=SECONDS)
    finally:
        files["carbon"].write_text(text)
    assert job.status == "failed" and job.reason is not None
    assert "could be evaluated" in job.reason and "objective 'carbon' raised LookupError: no board" in job.reason
    assert len(job.attempts) == 1, "another attempt would meet the same"
