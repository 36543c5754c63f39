"""The pieces of the embedded service that need no worker."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import psutil
import pytest
import redis

from api import broker, demo
from api.embedded import Embedded, cores
from api.processes import ServeError, environment
from skyline.client import Client
from skyline.schemas import JobSpec
from skyline.specs import load

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as sockets need."""
    made = Path(tempfile.mkdtemp(prefix="skyline-"))
    yield made
    shutil.rmtree(made)


def test_cores_are_shared_out_among_workers(folder: Path) -> None:
    assert Embedded(folder).threads_per_worker == cores()
    assert Embedded(folder, workers=10 * cores()).threads_per_worker == 1
    assert Embedded(folder, workers=2, threads=3).threads_per_worker == 3


def test_a_socket_path_too_long_for_the_system_moves_to_a_private_folder(folder: Path) -> None:
    assert broker.socket_path(folder) == folder / "broker.sock"
    far = broker.socket_path(folder / ("x" * 90))
    try:
        assert len(os.fsencode(far)) <= broker.SOCKET_BYTES
        assert stat.S_IMODE(far.parent.stat().st_mode) == 0o700
        assert far == broker.socket_path(folder / ("x" * 90)), "found again by the next start"
        far.parent.chmod(0o755)
        with pytest.raises(ServeError, match="not a private folder"):
            broker.socket_path(folder / ("x" * 90))
    finally:
        far.parent.rmdir()


def test_without_the_wheel_a_server_on_path_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ServeError, match="SKYLINE_BROKER_URL"):
        broker.server()
    (folder / "redis-server").write_text("#!/bin/sh\n")
    (folder / "redis-server").chmod(0o755)
    assert broker.server() == folder / "redis-server"


def test_a_broker_of_ones_own_is_used_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data").mkdir()
    own = broker.start(folder, folder / "broker.log")
    try:
        monkeypatch.setenv("SKYLINE_BROKER_URL", f"redis+socket://{broker.socket_path(folder)}")
        with Embedded(folder / "data", port=0, workers=0) as service, Client(service.url) as client:
            assert client.ready().broker == "ok"
            assert [child.name for child in service.children] == ["API"]
        assert own.code is None, "it is not ours to end"
    finally:
        own.process.terminate()
        own.process.wait()


def test_a_broker_that_dies_is_started_again_with_its_queue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.embedded.FIRST_PAUSE", 0.2)
    with Embedded(folder, port=0, workers=0) as service, Client(service.url) as client:
        with redis.Redis(unix_socket_path=str(broker.socket_path(folder))) as queue:
            queue.lpush("search.cpu", "a message")
        first = service.children[-1]
        first.process.kill()
        first.process.wait()
        (said,) = service.check()
        assert "the broker was killed by SIGKILL" in said and "started again in 0.2 s" in said
        assert service.check() == [], "it waits, and says so once"
        deadline = time.monotonic() + 30
        while service.children[-1].process.pid == first.process.pid:
            assert time.monotonic() < deadline
            assert service.check() == []
        assert client.ready().broker == "ok"
        with redis.Redis(unix_socket_path=str(broker.socket_path(folder))) as queue:
            assert queue.lrange("search.cpu", 0, -1) == [b"a message"]


def test_a_broker_that_cannot_start_is_tried_again_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.embedded.FIRST_PAUSE", 0.05)
    with Embedded(folder, port=0, workers=0) as service:
        service.children[-1].process.kill()
        service.children[-1].process.wait()
        with monkeypatch.context() as away:
            away.setattr("api.broker.server", lambda: Path("/bin/false"))
            said: list[str] = []
            deadline = time.monotonic() + 30
            while not any("it is tried again in" in each for each in said):
                assert time.monotonic() < deadline
                said += service.check()
        while service.children[-1].code is not None:
            assert time.monotonic() < deadline
            service.check()
        with Client(service.url) as client:
            assert client.ready().broker == "ok"


def test_a_start_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "notes.txt").write_text("no database at all\n" * 100)
    monkeypatch.setenv("SKYLINE_DATABASE_URL", f"sqlite:///{folder}/notes.txt")
    before = set(psutil.Process().children())
    with pytest.raises(ServeError, match="the database cannot be opened"):
        Embedded(folder, port=0, workers=0).start()
    assert set(psutil.Process().children()) == before
    monkeypatch.delenv("SKYLINE_DATABASE_URL")
    with Embedded(folder, port=0, workers=0) as service, Client(service.url) as client:
        assert client.ready().status == "ready", "the lock was given back"
    assert (folder / "datasets").is_dir(), "users are told to put theirs there"


def test_packages_of_the_current_folder_are_not_taken_for_ours() -> None:
    env = environment()
    assert env["PYTHONSAFEPATH"] == "1"
    assert str(ROOT) in env["PYTHONPATH"].split(os.pathsep)


def test_the_demo_posts_the_example() -> None:
    shipped = (files("skyline") / "examples" / "digits.yaml").read_text(encoding="utf-8")
    assert shipped == (ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8"), "copy one over the other"
    spec = demo.specification(7)
    assert spec.pop("labels") == {"made-by": "skyline-demo"}
    assert spec == {**load(ROOT / "examples" / "digits.yaml"), "seed": 7}
    assert JobSpec.model_validate(spec).keys == ["error", "params", "latency_ms"]
