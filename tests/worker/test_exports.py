"""Exports through the real service: made beside a search that holds the only worker, once, whoever dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest

from api.embedded import Embedded
from skyline import Client
from skyline.errors import ApiError

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
def service(short_folder: Path) -> Iterator[Embedded]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYLINE_HEARTBEAT_SECONDS", "0.5")
        patch.setenv("SKYLINE_RELAY_SECONDS", "0.5")
        with Embedded(short_folder / "exports", port=0, workers=1, threads=1) as running:
            yield running


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


@pytest.fixture(scope="module")
def candidate(client: Client) -> UUID:
    """A verified one, of a job that has ended; the worker is at another job that will not end."""
    job = client.wait(client.submit(JOB).id, timeout=SECONDS)
    assert job.status == "succeeded", job.reason
    client.submit(LONG)
    return client.front(job.id, kind="final").members[0].id


def until(what: str, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {SECONDS:g} s"
        time.sleep(0.02)
    return found


def exporters(service: Embedded) -> list[psutil.Process]:
    """Attempts' processes of the worker for short work."""
    (worker,) = [child for child in service.children if child.name == "worker short"]
    found = psutil.Process(worker.process.pid).children(recursive=True)
    return [process for process in found if process.is_running() and process.name() == "skyline-child"]


@pytest.mark.parametrize("format", ["onnx", "pt2", "python"])
def test_a_network_in_a_format_that_runs_elsewhere(
    client: Client, candidate: UUID, format: str, tmp_path: Path
) -> None:
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
    blocked = list(client.jobs(status="searching"))
    for job in blocked:
        client.cancel(job.id)
        client.wait(job.id, timeout=SECONDS)
    job = client.wait(client.submit({**JOB, "seed": 1}).id, timeout=SECONDS)
    candidate = client.front(job.id, kind="final").members[0].id
    httpx.get(f"{service.url}/v1/candidates/{candidate}/model", params={"format": "pt2"})
    until("process", lambda: exporters(service))
    client.delete(job.id)
    with pytest.raises(ApiError, match="404"):
        client.model(candidate, "pt2")
    until("its end", lambda: not exporters(service))
    left = list((service.data_dir / "artefacts" / str(job.id)).glob("*"))
    assert not left, f"files of a deleted job: {left}"
