"""A GPU worker in the real service. GPU and driver are stand-ins (tests/standins); all of ours is real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from api.embedded import Embedded
from skyline import Client
from skyline.schemas import Candidate, Job
from tests.standins import gpu
from tests.waiting import until
from worker.gpu import GpuUse

SECONDS = 150.0
HOLDS = 20
"""Images that the stand-in has room for."""
SPEC: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.5},
    "objectives": ["error", "params"],
    "algorithm": {"name": "nsga2", "population": 4, "evaluate": {"epochs": 1, "batch": 32, "subset": 96}},
    "budget": {"evaluations": 4},
    "verify": {"top": 2, "epochs": 6, "batch": 32, "lr": 0.1},
    "resources": {"device": "cuda"},
}


@pytest.fixture(scope="module")
def service(short_folder: Path) -> Iterator[Embedded]:
    with Embedded(short_folder / "gpu", port=0, workers=1, threads=1) as running:
        yield running


@contextmanager
def worker(service: Embedded, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """One more worker of the service, on a host with GPUs."""
    own = {**service._environment(), **gpu.environment(**{gpu.IMAGES: str(HOLDS)}), **environment}
    argv = [sys.executable, "-m", "worker", "--threads", "1", *options]
    with (service.log_dir / "gpu-worker.log").open("ab") as output:
        process = subprocess.Popen(argv, env=own, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[Client]:
    """Of the service, with a worker that was told to be on the second of two GPUs that it may see."""
    with Client(service.url) as made:
        early = made.submit(SPEC)
        assert early.waiting_for is not None and "cuda" in early.waiting_for
        with worker(service, "--device", "cuda:1", CUDA_VISIBLE_DEVICES="3,2"):
            until("its first job", lambda: made.job(early.id).status != "queued")
            made.cancel(early.id)
            made.wait(early.id, timeout=SECONDS)
            yield made


def spec(**changes: Any) -> dict[str, Any]:
    return {**SPEC, **changes}


def ended(client: Client, job_id: UUID) -> Job:
    client.wait(job_id, timeout=SECONDS)

    def closed() -> Job | None:
        job = client.job(job_id)
        return job if all(attempt.ended_at for attempt in job.attempts) else None

    job: Job = until("end of all attempts", closed)
    return job


def results(client: Client, job: Job) -> list[tuple[Any, ...]]:
    def shown(candidate: Candidate) -> tuple[Any, ...]:
        final = candidate.values["error"].model_dump() if candidate.status == "verified" else None
        return candidate.hash, candidate.search_values["error"].value, final and (final["value"], final["micro_batch"])

    return sorted(map(shown, client.candidates(job.id)))


@pytest.mark.e2e
def test_it_publishes_the_device_that_it_is_pinned_to(client: Client) -> None:
    published = until("publication", lambda: [w for w in client.catalog().workers if w.live and w.device != "cpu"])[0]
    assert (published.device, published.memory_gb) == ("cuda:1", 8.0)
    assert published.versions["device"] == "cuda:Stand-in 2", "the second of '3,2'"
    assert set(published.queues) == {"search.cuda", "verify.cuda", "measure.cuda", "short"}


@pytest.mark.e2e
def test_a_step_that_does_not_fit_is_taken_in_pieces_and_it_shows(client: Client) -> None:
    job = ended(client, client.submit(spec()).id)
    assert (job.status, job.reason) == ("succeeded", None)
    values = [candidate.search_values["error"].model_dump() for candidate in client.candidates(job.id)]
    values += [member.values["error"].model_dump() for member in client.front(job.id, kind="final").members]
    assert {value["micro_batch"] for value in values} == {16}
    warnings = [event.data for event in client.watch(job.id) if event.type == "warning"]
    assert len(warnings) == 3, "one for the search, one for each verification"
    assert all("a step of 32 images does not fit into the 8.0 GiB of cuda:Stand-in 2" in w["text"] for w in warnings)
    assert {attempt.kind for attempt in job.attempts} == {"search", "verify", "conclude"}
    for attempt in job.attempts:
        assert (attempt.device, attempt.end) == ("cuda:1", "done")
        assert attempt.ended_at is not None
        wall = (attempt.ended_at - attempt.started_at).total_seconds()
        assert attempt.gpu_seconds is not None and 0 < attempt.gpu_seconds <= wall + 1
        assert attempt.peak_gpu_memory_mb in (123.0, 256.0), "what PyTorch said, or more, where the driver was asked"


@pytest.mark.e2e
def test_what_does_not_fit_in_halves_ends_with_the_reason(client: Client) -> None:
    job = ended(client, client.submit(spec(verify={**SPEC["verify"], "batch": 64})).id)
    assert job.status == "failed" and job.reason is not None and "every verification failed" in job.reason
    failed = [candidate.failure for candidate in client.candidates(job.id) if candidate.status == "failed"]
    assert len(failed) == 2
    for failure in failed:
        assert failure is not None and failure.startswith("out of memory: a step of 64 images, in 2 pieces of 32,")
        assert "a smaller batch, fewer channels or cells, or a device with more memory would do" in failure
    ends = [(attempt.kind, attempt.end) for attempt in job.attempts]
    assert sorted(ends) == [("conclude", "failed"), ("search", "done"), *[("verify", "failed")] * 2], "none is repeated"


@pytest.mark.e2e
@pytest.mark.parametrize("batch", [32, 64])
def test_a_supernet_that_does_not_fit(client: Client, batch: int) -> None:
    darts = {"name": "darts", "batch": batch, "share_features": True}
    job = ended(client, client.submit(spec(algorithm=darts, budget={"epochs": 2, "evaluations": 4})).id)
    if batch == 64:
        assert job.status == "failed" and job.reason is not None
        assert job.reason.startswith("out of memory: a step of 64 images, in 2 pieces of 32, does not fit into")
        return
    assert job.status == "succeeded", job.reason
    found = [candidate.search_values["error"].model_dump() for candidate in client.candidates(job.id)]
    assert found and {value["micro_batch"] for value in found} == {16}


@pytest.mark.e2e
def test_kill_nine_after_the_retry_changes_nothing(client: Client) -> None:
    unbroken = ended(client, client.submit(spec(seed=4)).id)
    job_id = client.submit(spec(seed=4)).id
    victims = []
    for kind in ("search", "verify"):

        def warned(kind: str = kind) -> bool:
            running = [attempt for attempt in client.job(job_id).attempts if attempt.ended_at is None]
            told = {event.data.get("task") for event in client.events(job_id).items if event.type == "warning"}
            return any(attempt.kind == kind and str(attempt.task) in told for attempt in running)

        until(f"warning of the {kind}", warned)
        victims += [process for process in at_work() if not process.kill()]
    broken = ended(client, job_id)
    assert broken.status == "succeeded", broken.reason
    assert victims and results(client, broken) == results(client, unbroken)
    died = [attempt for attempt in broken.attempts if attempt.end == "died"]
    assert died and all(attempt.gpu_seconds for attempt in died)


def at_work() -> list[psutil.Process]:
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.name() == "skyline-child":
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.e2e
def test_a_gpu_that_this_host_has_not(service: Embedded, client: Client) -> None:
    log = service.log_dir / "gpu-worker.log"
    for number, visible, said in (
        (9, None, "sees none with CUDA_VISIBLE_DEVICES=9"),
        (1, "0", "leaves 1 CUDA devices"),
    ):
        environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        with worker(service, "--device", f"cuda:{number}", **environment) as process:
            assert process.wait(SECONDS) == 2
        assert f"device 'cuda:{number}' is not here" in log.read_text() and said in log.read_text()


# --- accounting alone -------------------------------------------------------------------------------------------------


def test_nothing_is_known_of_a_gpu_where_there_is_none() -> None:
    use = GpuUse("cpu")
    use.look(os.getpid())
    use.ended([b'{"peak_gpu_memory_mb": 3}'])
    assert use.facts() == {"gpu_seconds": None, "peak_gpu_memory_mb": None}


PROGRAM = """
import json, os, sys
from worker.gpu import GpuUse
use = GpuUse("cuda")
use.look(os.getpid())
use.ended([json.dumps({"peak_gpu_memory_mb": told}).encode() for told in json.loads(sys.argv[1])])
print(json.dumps(use.facts()))
"""
DRIVERS = {
    "none": "raise ImportError('not installed')",
    "silent": "class NVMLError(Exception): ...\ndef nvmlInit(): raise NVMLError('Driver Not Loaded')",
    "lost": (
        "class NVMLError(Exception): ...\ndef nvmlInit(): ...\ndef nvmlDeviceGetCount(): raise NVMLError('GPU is lost')"
    ),
    "reticent": (
        "import os, types\nclass NVMLError(Exception): ...\ndef nvmlInit(): ...\ndef nvmlDeviceGetCount(): return 1\n"
        "def nvmlDeviceGetHandleByIndex(n): return n\n"
        "def nvmlDeviceGetComputeRunningProcesses(n):\n"
        "    return [types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)]"
    ),
    "frank": (
        "import os, types\nclass NVMLError(Exception): ...\ndef nvmlInit(): ...\ndef nvmlDeviceGetCount(): return 2\n"
        "def nvmlDeviceGetHandleByIndex(n): return n\n"
        "def nvmlDeviceGetComputeRunningProcesses(n):\n"
        "    mine, other = os.getpid(), 1\n"
        "    return [types.SimpleNamespace(pid=mine if n else other, usedGpuMemory=(n + 1) * 100 * 2**20)]"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "told", "known"),
    [
        ("none", [], None),
        ("none", [17.25], 17.2),
        ("silent", [None], None),
        ("lost", [5.0], 5.0),
        ("reticent", [], None),
        ("frank", [], 200.0),
        ("frank", [150.0], 200.0),
        ("frank", [250.0], 250.0),
    ],
)
def test_what_is_unknown_is_null_and_what_is_known_is_the_most(
    driver: str, told: list[float | None], known: float | None, tmp_path: Path
) -> None:
    (tmp_path / "pynvml.py").write_text(DRIVERS[driver])
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    argv = [sys.executable, "-c", PROGRAM, json.dumps(told)]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["peak_gpu_memory_mb"] == known
    assert facts["gpu_seconds"] >= 0
    assert ("WARNING" in done.stderr or "nvidia" in done.stderr.lower()) == (driver in ("none", "silent", "lost"))
