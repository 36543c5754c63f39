"""`skyline serve` as a user runs it: a process of its own, ended by signals, killed, started twice."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from api import broker
from skyline.client import Client
from tests.waiting import until

pytestmark = pytest.mark.e2e

START_SECONDS, STOP_SECONDS = 90.0, 45.0
SERVE = [sys.executable, "-m", "skyline", "serve"]


class Serve:
    """A `skyline serve` on a folder, with what it prints in a file."""

    def __init__(self, folder: Path, workers: int, port: int = 0) -> None:
        self.folder = folder
        self.output = folder.with_suffix(f".{len(list(folder.parent.glob('*.out')))}.out")
        argv = [*SERVE, "--data-dir", str(folder), "--port", str(port), "--workers", str(workers), "--threads", "1"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("SKYLINE_")}
        with self.output.open("w") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=env)
        self.seen: set[psutil.Process] = set()

    @property
    def printed(self) -> str:
        return self.output.read_text()

    @property
    def url(self) -> str:
        found = re.search(r"ready at (\S+)", self.printed)
        assert found, self.printed
        return found[1]

    def wait_until_ready(self) -> Serve:
        until("readiness", lambda: "ready at" in self.printed or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.printed
        self.note_family()
        return self

    def note_family(self) -> None:
        self.seen.update(psutil.Process(self.process.pid).children(recursive=True))

    def child(self, word: str) -> psutil.Process:
        """The last child with ``word`` on its command line."""
        return [child for child in psutil.Process(self.process.pid).children() if word in child.cmdline()][-1]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def left(self) -> list[psutil.Process]:
        return [process for process in self.seen if running(process)]


def running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Starts services; whatever a failed test leaves of them is killed."""
    started: list[Serve] = []

    def start(name: str = "data", workers: int = 0, port: int = 0) -> Serve:
        started.append(Serve(tmp_path / name, workers, port))
        return started[-1]

    yield start
    for service in started:
        if service.process.poll() is None:
            service.note_family()
            service.process.kill()
            service.process.wait()
        for process in service.left():
            process.kill()


def test_it_serves_refuses_a_second_one_and_leaves_nothing(serve: Callable[..., Serve]) -> None:
    first = serve(workers=1).wait_until_ready()
    with Client(first.url) as client:
        assert client.ready().workers == 1
        catalog = client.catalog()
        assert [worker.threads for worker in catalog.workers if worker.live and worker.queues != ["short"]] == [1]
        assert "digits" in [entry.name for entry in catalog.datasets]
    assert f"--url {first.url}" in first.printed, "it says what to do next"

    same_folder = serve()
    assert same_folder.process.wait(START_SECONDS) == 2
    assert f"another 'skyline serve' (process {first.process.pid}, {first.url}) runs on" in same_folder.printed

    same_port = serve("other", port=int(first.url.rsplit(":", 1)[1]))
    assert same_port.process.wait(START_SECONDS) == 2
    assert "is taken by another Skyline service; choose another by --port" in same_port.printed
    assert not (same_port.folder / "skyline.db").exists(), "nothing was started"

    first.note_family()
    assert len(first.seen) >= 4, "broker, API, worker and its pool"
    assert first.end(signal.SIGINT) == 0, first.printed
    assert not first.left()
    assert not broker.socket_path(first.folder).exists()


def test_a_broker_left_by_a_killed_supervisor_is_replaced(serve: Callable[..., Serve], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    orphan = broker.start(folder, folder / "logs" / "broker.log")
    try:
        service = serve().wait_until_ready()
        assert orphan.process.wait(5) == 0, "it wrote its queue and ended"
        with Client(service.url) as client:
            assert client.ready().broker == "ok"
        assert service.end(signal.SIGTERM) == 0
        assert not service.left()
    finally:
        orphan.process.kill()
        orphan.process.wait()


def test_a_worker_that_dies_is_started_again_and_all_die_with_a_killed_supervisor(serve: Callable[..., Serve]) -> None:
    service = serve(workers=1).wait_until_ready()
    worker = service.child("worker")
    worker.kill()
    until("word of it", lambda: "the worker 1 was killed by SIGKILL" in service.printed, 10)

    def back() -> bool:
        service.note_family()
        children = psutil.Process(service.process.pid).children()
        return sum("worker" in child.cmdline() and child != worker for child in children if running(child)) == 2

    until("a new worker", back, 20)
    if sys.platform == "linux":  # it has a parent-death signal
        service.process.kill()
        service.process.wait()
        until(f"end of {service.left()}", lambda: not service.left(), STOP_SECONDS)


def test_an_api_that_dies_ends_it_with_the_end_of_its_log(serve: Callable[..., Serve]) -> None:
    service = serve().wait_until_ready()
    service.child("uvicorn").kill()
    assert service.process.wait(STOP_SECONDS) == 1
    assert "the API was killed by SIGKILL" in service.printed
    assert "Uvicorn running on" in service.printed
    assert not service.left()


def test_a_port_held_by_another_program_is_told_before_anything_starts(serve: Callable[..., Serve]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = serve(port=port)
        taken.settimeout(START_SECONDS)
        connection, _ = taken.accept()  # it asks who is there
        connection.close()
        assert service.process.wait(START_SECONDS) == 2
    assert f"port {port} is taken by another program" in service.printed


def test_a_second_signal_does_not_wait_for_anybody(serve: Callable[..., Serve]) -> None:
    service = serve().wait_until_ready()
    stopped = service.child("uvicorn")
    stopped.suspend()  # it would not react to SIGTERM
    service.process.send_signal(signal.SIGINT)
    service.process.send_signal(signal.SIGINT)
    service.process.wait(STOP_SECONDS)
    assert not service.left()
