"""Exports through the real service: made beside searches that hold all workers, once, whoever dies; and run where
nothing but their runtime is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import psutil
import pytest
import torch

from api.embedded import Embedded
from nas_core.exports import Model
from skyline import Client
from skyline.errors import ApiError
from tests.chaos.world import can_write
from tests.runtimes import alone, install
from tests.waiting import until

pytestmark = pytest.mark.e2e

SECONDS = 150.0
JOB: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 4},
    "dataset": {"name": "digits", "fraction": 0.3},
    "objectives": ["error", "params"],
    "algorithm": {"name": "random", "evaluate": {"epochs": 1, "subset": 64}},
    "budget": {"evaluations": 2},
    "verify": {"top": 1, "epochs": 1},
}
LONG = {**JOB, "budget": {"evaluations": 5000}}


@pytest.fixture(scope="module")
def service(shared_service: Embedded) -> Embedded:
    return shared_service


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


STEMS = ("cifar", "imagenet")


@pytest.fixture(scope="module")
def front(client: Client, service: Embedded) -> dict[str, UUID]:
    """A verified candidate of each stem, of jobs that have ended; the workers are at other jobs that will not end, and
    sleep over them.
    """
    ids = {stem: client.submit({**JOB, "target": {"stem": stem}}).id for stem in STEMS}
    found = {}
    for stem, job_id in ids.items():
        job = client.wait(job_id, timeout=SECONDS)
        assert job.status == "succeeded", job.reason
        found[stem] = client.front(job_id, kind="final").members[0].id
    for _ in range(service.workers):
        client.submit(LONG)
    until("searches", lambda: len(list(client.jobs(status="searching"))) == service.workers)
    until("sleep without a lock", lambda: asleep(service))
    return found


def asleep(service: Embedded) -> bool:
    """Sends the searches to sleep, unless one is in the midst of writing."""
    found = attempts(service, short=False)
    for process in found:
        process.suspend()
    if len(found) == service.workers and can_write(service.data_dir / "skyline.db"):
        return True
    for process in found:
        process.resume()
    return False


@pytest.fixture(scope="module")
def candidate(front: dict[str, UUID]) -> UUID:
    return front["cifar"]


def attempts(service: Embedded, short: bool) -> list[psutil.Process]:
    """Attempts' processes of the worker for short work, or of the others."""
    names = [f"worker {number}" for number in range(1, service.workers + 1)]
    wanted = ["worker short"] if short else names
    workers = [child for child in service.children if child.name in wanted]
    assert len(workers) == len(wanted)
    found = [one for worker in workers for one in psutil.Process(worker.process.pid).children(recursive=True)]
    return [process for process in found if process.is_running() and process.name() == "skyline-child"]


def exporters(service: Embedded) -> list[psutil.Process]:
    return attempts(service, short=True)


def at_work(service: Embedded) -> list[psutil.Process]:
    """Whoever is idle makes an export."""
    return attempts(service, short=True) + attempts(service, short=False)


NEEDS = {"onnx": ("onnxruntime", "numpy"), "pt2": ("torch",), "python": ("torch",)}
RUNS = {
    "onnx": """
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("network", providers=["CPUExecutionProvider"])
for batch in (1, 3, 7):
    kept = np.load(f"{batch}.npz")
    (found,) = session.run(["logits"], {"input": kept["images"]})
    print(found.shape == kept["logits"].shape, float(abs(found - kept["logits"]).max()))
""",
    "pt2": """
import torch

with open("network", "rb") as file:
    run = torch.export.load(file).module()
""",
    "python": """
import runpy
import torch

run = runpy.run_path("network")["load"]()
""",
}
WITH_TORCH = """
with torch.no_grad():
    for batch in (1, 3, 7):
        images, logits = torch.load(f"{batch}.pt")
        found = run(images)
        print(found.shape == logits.shape, float((found - logits).abs().max()))
"""


def keep_logits(weights: Path, folder: Path) -> None:
    """Images and what PyTorch makes of them, for as many images at once as files are to take."""
    model = Model.load(weights)
    network = model.network("test")
    for batch in (1, 3, 7):
        images = torch.randn(batch, *model.architecture.skeleton.input)
        with torch.no_grad():
            logits = network(images)
        torch.save((images, logits), folder / f"{batch}.pt")
        np.savez(folder / f"{batch}.npz", images=images.numpy(), logits=logits.numpy())


@pytest.mark.parametrize(("stem", "format"), [*(("cifar", format) for format in NEEDS), ("imagenet", "onnx")])
def test_a_network_of_the_front_gives_its_logits_where_there_is_no_skyline(
    client: Client, front: dict[str, UUID], stem: str, format: str, tmp_path: Path
) -> None:
    weights = client.pull(front[stem], "safetensors", tmp_path / "weights")
    client.pull(front[stem], format, tmp_path / "network")
    keep_logits(weights, tmp_path)
    script = RUNS[format] + ("" if format == "onnx" else WITH_TORCH)
    absent = ("torch",) if format == "onnx" else ("numpy", "safetensors")
    printed = alone(script, tmp_path, install(tmp_path / "installed", *NEEDS[format]), absent)
    found = [line.split() for line in printed.splitlines()]
    assert [shape for shape, _ in found] == ["True"] * 3
    assert all(float(difference) <= 1e-4 for _, difference in found), found


@pytest.mark.parametrize("format", NEEDS)
def test_a_format_is_made_by_a_short_task(client: Client, candidate: UUID, format: str, tmp_path: Path) -> None:
    content = client.pull(candidate, format, tmp_path / "network").read_bytes()
    assert len(content) > 1000
    assert client.model(candidate, format) == content, "as it lies"
    shown = client.candidate(candidate)
    assert format in shown.artefacts

    def made() -> list[tuple[str | None, bool]] | None:
        """Ends of the attempts, which are closed a moment after the file is there."""
        own = [attempt for attempt in client.job(shown.job).attempts if attempt.kind == f"export.{format}"]
        return [(a.end, a.worker.endswith("-short")) for a in own] if all(a.ended_at for a in own) else None

    assert until("end of the attempt", made) == [("done", True)]
    assert client.job(shown.job).status == "succeeded"


def test_kill_nine_makes_it_again_and_the_third_time_tells_why(
    service: Embedded, client: Client, candidate: UUID, tmp_path: Path
) -> None:
    job_id = client.candidate(candidate).job
    (service.data_dir / "artefacts" / str(job_id) / f"{candidate}.onnx-1.onnx").unlink()  # so that it is made again
    with pytest.raises(ApiError, match="the export.onnx died 3 times, the most that is allowed"):
        while True:
            response = httpx.get(f"{service.url}/v1/candidates/{candidate}/model", params={"format": "onnx"})
            if response.status_code != httpx.codes.ACCEPTED:
                client.model(candidate, "onnx")
            for process in exporters(service):
                process.kill()
    ends = [attempt.end for attempt in client.job(job_id).attempts if attempt.kind == "export.onnx"]
    assert ends == ["done", "died", "died", "died"]
    assert client.job(job_id).status == "succeeded"
    folder = service.data_dir / "artefacts" / str(job_id)
    assert not [path for path in folder.iterdir() if ".onnx" in path.name], "nothing half-written"


def test_a_job_can_be_deleted_while_it_is_exported(service: Embedded, client: Client) -> None:
    blocked = [job for status in ("searching", "queued") for job in client.jobs(status=status)]
    for process in attempts(service, short=False):
        process.resume()
    for job in blocked:
        client.cancel(job.id)
        client.wait(job.id, timeout=SECONDS)
    job = client.wait(client.submit({**JOB, "seed": 1}).id, timeout=SECONDS)
    candidate = client.front(job.id, kind="final").members[0].id
    httpx.get(f"{service.url}/v1/candidates/{candidate}/model", params={"format": "pt2"})
    until("process", lambda: at_work(service))
    client.delete(job.id)
    with pytest.raises(ApiError, match="404"):
        client.model(candidate, "pt2")
    until("its end", lambda: not at_work(service))
    left = list((service.data_dir / "artefacts" / str(job.id)).glob("*"))
    assert not left, f"files of a deleted job: {left}"
