"""The API over HTTP on a real migrated database; the broker is dead unless a test asks for a live one."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from api.app import app
from store import catalog
from store.session import dispose, unit_of_work
from tests.api.populated import Service, populate
from tests.api.publications import publication

QUEUES = ["search.cpu", "verify.cpu", "measure.cpu"]


@pytest.fixture
def folder(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder; the settings name it, its database and a broker that is not there."""
    monkeypatch.setenv("SKYLINE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SKYLINE_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("SKYLINE_BROKER_URL", f"redis+socket://{tmp_path}/nobody.sock")
    monkeypatch.setenv("SKYLINE_KEYS", "off")
    return tmp_path


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Address of a real server in a thread. It reads the settings with every request, so each test has its own data."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def empty(folder: Path, server: str) -> Iterator[httpx.Client]:
    """A service that no worker has met."""
    with httpx.Client(base_url=server, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def shared(server: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with one live worker for all tests of a module that leave nothing behind that matters to others."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copyfile(sqlite_template, folder / "skyline.db")
    with pytest.MonkeyPatch.context() as patch, httpx.Client(base_url=server, timeout=30, trust_env=False) as client:
        patch.setenv("SKYLINE_DATA_DIR", str(folder))
        patch.delenv("SKYLINE_DATABASE_URL", raising=False)
        patch.setenv("SKYLINE_BROKER_URL", f"redis+socket://{folder}/nobody.sock")
        patch.setenv("SKYLINE_KEYS", "off")
        publish("worker-1")
        yield client
        dispose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A populated service that asks for keys, on each database in turn; the broker lives. For a whole module."""
    yield from populated_on(request, tmp_path_factory)


def populated_on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """As ``service``, on the database that a fixture's parameter names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYLINE_DATA_DIR", str(tmp_path_factory.mktemp("service")))
        patch.setenv("SKYLINE_DATABASE_URL", request.getfixturevalue(f"{request.param}_for_a_module"))
        patch.setenv("SKYLINE_BROKER_URL", request.getfixturevalue("broker_server"))
        patch.delenv("SKYLINE_KEYS", raising=False)
        publish("worker-1")
        yield populate()
        dispose()


@pytest.fixture
def worker(folder: Path) -> str:
    """Name of a live worker that has published its catalog."""
    publish("worker-1")
    return "worker-1"


@pytest.fixture
def client(empty: httpx.Client, worker: str) -> httpx.Client:
    """A service with one live worker."""
    return empty


@pytest.fixture
def spec() -> dict[str, Any]:
    """A job that is accepted."""
    return {
        "name": "digits-edge",
        "space": {"name": "darts", "cells": 5, "channels": 8},
        "dataset": {"name": "digits"},
        "objectives": ["error", "params", "latency"],
        "constraints": {"params": {"max": 60000}},
        "algorithm": {"name": "nsga2", "population": 8},
        "labels": {"team": "vision"},
    }


def publish(name: str, **changes: Any) -> None:
    with unit_of_work() as session:
        worker = {"name": name, "host": "desk", "queues": QUEUES}
        catalog.publish(session, worker, {**publication(name), **changes})


@contextmanager
def served(request: pytest.FixtureRequest, folder: Path, server: str, **published: Any) -> Iterator[httpx.Client]:
    """A service without keys on the database that a fixture's parameter names, with one live worker that publishes
    what is given.
    """
    url = request.getfixturevalue(f"{request.param}_url")
    with pytest.MonkeyPatch.context() as patch, httpx.Client(base_url=server, timeout=30, trust_env=False) as client:
        patch.setenv("SKYLINE_DATA_DIR", str(folder))
        patch.setenv("SKYLINE_DATABASE_URL", url)
        patch.setenv("SKYLINE_BROKER_URL", f"redis+socket://{folder}/nobody.sock")
        patch.setenv("SKYLINE_KEYS", "off")
        publish("worker-1", **published)
        yield client
