"""The whole service on this machine: broker, database, workers and API under one supervisor.

One folder holds it all. Ended in order (workers, API, broker), each with a grace period; whatever is left then is
killed. A worker or broker that dies is started again, with growing pauses: the broker's queue is on disk, and what of
it was lost is sent again from the database. Without API the service ends.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import IO, Literal, Self

from api import broker, processes
from api.hosts import is_loopback
from api.processes import Child, ChildDiedError, ServeError, environment, python
from skyline.client import Client
from skyline.errors import ApiError, ConnectionFailed
from store.settings import Settings

READY_SECONDS = 120.0
"""A worker imports and looks at its device before it says what it can run; slow disks take their time."""
PLUGIN_SECONDS = 90.0
"""More for each plug-in: a worker gives up on one that hangs, and looks again."""
LOOK_SECONDS = 0.2
WORKER_GRACE = 30.0
"""Seconds a worker has to checkpoint and put its task back."""
GRACE = 5.0
"""Seconds for API and broker."""
GRACEFUL_HTTP = 2
"""Seconds the API gives open requests, live streams among them."""
HANDOVER_SECONDS = 10.0
"""How long a killed predecessor's children may take to let go of the port."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
HEALTHY_SECONDS = 60.0
"""A process that lived this long has the first pause again."""


class FolderInUseError(ServeError):
    """Another ``skyline serve`` owns the data folder."""


class PortError(ServeError):
    """The address cannot be listened at."""


class KeysNeededError(ServeError):
    """The service is to be reached by other machines, and nobody could be asked for a key."""


class StoppedError(ServeError):
    """Somebody asked to stop while the service was starting."""


@dataclass
class Embedded:
    """A service of one's own; ``with Embedded(folder, port=0) as service: Client(service.url)``.

    ``port`` 0 takes a free one; ``threads`` per worker, None: cores divided by workers; ``workers`` may be 0. Beside
    any worker there is one that does short work alone. ``plugins`` are files and modules of users' own code, parted by
    commas, that the workers load; None: those that SKYLINE_PLUGINS names.
    Start it from a thread that outlives it. ``halt`` ends waiting in :meth:`start`; ``hurry`` ends waiting in
    :meth:`stop`.
    """

    data_dir: Path
    port: int = 8765
    host: str = "127.0.0.1"
    workers: int = 1
    threads: int | None = None
    plugins: str | None = None
    halt: Event = field(default_factory=Event)
    hurry: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.data_dir = self.data_dir.expanduser().absolute()
        self._settings = Settings(data_dir=self.data_dir)
        self._lock: IO[str] | None = None
        self._broker: Child | None = None
        self._api: Child | None = None
        self._workers: dict[int, Child] = {}
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # --- facts ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where a client on this machine finds the service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def keys(self) -> Literal["required", "off"]:
        """Whether the API asks for keys: on any address but this machine's own, and there where the settings say so."""
        if not is_loopback(self.host):
            return "required"
        return self._settings.keys if "keys" in self._settings.model_fields_set else "off"

    @property
    def log_dir(self) -> Path:
        return self._settings.log_dir

    @property
    def threads_per_worker(self) -> int:
        return self.threads or max(1, cores() // max(1, self.workers))

    @property
    def children(self) -> list[Child]:
        """Processes of the service, in the order in which they are ended."""
        return [*self._workers.values(), *(child for child in (self._api, self._broker) if child)]

    # --- life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when the service answers and its workers have registered.

        Raises FolderInUseError, PortError or KeysNeededError before anything runs, ChildDiedError, StoppedError when
        ``halt`` is set, ServeError; nothing is left running then.
        """
        self._make_folder()
        self._take_lock()
        try:
            own_broker = not os.environ.get("SKYLINE_BROKER_URL")
            orphaned = broker.stop_orphan(self.data_dir) if own_broker else False
            self._take_port(HANDOVER_SECONDS if orphaned else 0.0)
            self._note()
            self._migrate()
            self._check_keys()
            if own_broker:
                self._broker = broker.start(self.data_dir, self.log_dir / "broker.log")
            self._api = self._start_api()
            for number in range(self.workers + 1) if self.workers else ():
                self._workers[number] = self._start_worker(number)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def plugin_remarks(self) -> list[str]:
        """What the workers found when they loaded users' plug-ins, in words."""
        from sqlalchemy.orm import Session

        from store import catalog
        from store.engine import build_for_migration, parse_url

        with Session(build_for_migration(parse_url(self._settings.database_url))) as session:
            entries = catalog.entries(session, "plugin")
        own = {self._name(number) for number in self._workers}
        parts = [(entry["name"], part) for entry in entries for name, part in entry["workers"].items() if name in own]
        said = [f"plug-in '{name}' adds {', '.join(part['adds'])}" for name, part in parts if part["adds"]]
        said += [f"warning: plug-in '{name}' cannot be used: {part['error']}" for name, part in parts if part["error"]]
        return list(dict.fromkeys(said))

    def check(self) -> list[str]:
        """To be called every second or so: starts broker and workers again, and returns what happened in words.

        Raises ChildDiedError when the API has ended.
        """
        if self._api is not None and self._api.code is not None:
            raise ChildDiedError(self._api)
        said = self._revive(self._broker, self._restart_broker) if self._broker is not None else []
        for number, child in list(self._workers.items()):
            said += self._revive(child, partial(self._restart_worker, number))
        return said

    def stop(self) -> None:
        """Ends workers, API and broker in this order and gives the folder free; harmless when nothing runs."""
        processes.stop(list(self._workers.values()), WORKER_GRACE, self.hurry.is_set)
        self._workers.clear()
        for child in (self._api, self._broker):
            if child is not None:
                processes.stop([child], GRACE, self.hurry.is_set)
        self._api = self._broker = None
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    # --- steps ------------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.log_dir.mkdir(parents=True, exist_ok=True)
            if self._settings.data_root.is_relative_to(self.data_dir):  # for users' own data sets
                self._settings.data_root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServeError(f"the data folder {self.data_dir} cannot be made: {error.strerror}") from error

    def _take_lock(self) -> None:
        path = self.data_dir / "serve.lock"
        try:
            self._lock = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ServeError(f"{path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.seek(0)
            owner = _owner(self._lock.read())
            self._lock.close()
            self._lock = None
            raise FolderInUseError(
                f"another 'skyline serve'{owner} runs on {self.data_dir}; use that one, stop it, "
                "or choose another folder by --data-dir"
            ) from error

    def _note(self) -> None:
        """Who holds the lock, for the message that the next one gets."""
        if self._lock is not None:
            self._lock.truncate(0)
            json.dump({"pid": os.getpid(), "url": self.url}, self._lock)
            self._lock.flush()

    def _take_port(self, patience: float) -> None:
        """Finds the port free (0: a free one), after at most ``patience`` seconds. Raises PortError."""
        deadline = time.monotonic() + patience
        while True:
            try:
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                with socket.socket(family) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((self.host, self.port))
                    self.port = int(probe.getsockname()[1])
                return
            except OSError as error:
                if error.errno == errno.EADDRINUSE and time.monotonic() < deadline and not self.halt.is_set():
                    time.sleep(processes.POLL_SECONDS)
                    continue
                raise PortError(self._port_message(error)) from error

    def _port_message(self, error: OSError) -> str:
        if error.errno != errno.EADDRINUSE:
            return f"cannot listen at {self.host} port {self.port}: {error.strerror or error}; choose --host and --port"
        try:
            with Client(self.url) as client:
                client.ready()
            who = "another Skyline service"
        except (ConnectionFailed, ApiError):
            who = "another program"
        return f"port {self.port} is taken by {who}; choose another by --port"

    def _migrate(self) -> None:
        from alembic.util import CommandError  # only who serves needs the database
        from sqlalchemy.exc import SQLAlchemyError

        from store.session import migrate

        try:
            migrate(self._settings.database_url)
        except (SQLAlchemyError, CommandError) as error:
            raise ServeError(f"the database cannot be opened or brought up to date: {error}") from error

    def _check_keys(self) -> None:
        from sqlalchemy.orm import Session

        from store import keys
        from store.engine import build_for_migration, parse_url

        if self.keys == "off":
            return
        with Session(build_for_migration(parse_url(self._settings.database_url))) as session:
            if keys.usable(session):
                return
        why = "SKYLINE_KEYS=required" if is_loopback(self.host) else f"other machines may reach {self.host}"
        raise KeysNeededError(
            f"{why}, so the API asks for keys, and there is none yet; make one, then start again: "
            f"skyline keys create NAME --scope admin --data-dir {self.data_dir}"
        )

    def _environment(self) -> dict[str, str]:
        changes = {"SKYLINE_DATA_DIR": str(self.data_dir), "SKYLINE_KEYS": self.keys}
        if self._broker is not None:
            changes["SKYLINE_BROKER_URL"] = f"redis+socket://{broker.socket_path(self.data_dir)}"
        return environment(**changes)

    def _start_api(self) -> Child:
        options = ["--no-access-log", "--timeout-graceful-shutdown", str(GRACEFUL_HTTP)]
        argv = python("uvicorn", "api.app:app", "--host", self.host, "--port", str(self.port), *options)
        return Child("API", argv, self._environment(), self.log_dir / "api.log")

    def _start_worker(self, number: int) -> Child:
        """Number 0 does short work alone, so that an export never waits for a search."""
        which = str(number or "short")
        options = ["--device", "cpu", "--name", self._name(number)]
        options += ["--threads", str(self.threads_per_worker)] if number else ["--threads", "1", "--queues", "short"]
        own = self._environment() if number else {**self._environment(), "SKYLINE_WORKER_SPARE": "false"}
        if self.plugins is not None:
            own["SKYLINE_PLUGINS"] = self.plugins
        return Child(f"worker {which}", python("worker", *options), own, self.log_dir / f"worker-{which}.log")

    def _name(self, number: int) -> str:
        """The name of a worker in the catalog."""
        return f"{socket.gethostname()}-cpu-{number or 'short'}"

    def _revive(self, child: Child, start: Callable[[], None]) -> list[str]:
        """Starts a process again when its pause is over; what there is to say."""
        if child.code is None:
            return []
        now = time.monotonic()
        if child.name not in self._due:
            if now - child.started > HEALTHY_SECONDS:
                self._pauses.pop(child.name, None)
            return [f"{ChildDiedError(child)}\nit is started again in {self._postpone(child.name):g} s"]
        if now < self._due[child.name]:
            return []
        processes.stop([child], 0, lambda: True)  # what it may have left
        try:
            start()
        except ServeError as error:
            return [f"{error}\nit is tried again in {self._postpone(child.name):g} s"]
        del self._due[child.name]
        return []

    def _postpone(self, name: str) -> float:
        """Seconds until the next start, twice as many each time."""
        pause = self._pauses.get(name, FIRST_PAUSE)
        self._pauses[name] = min(LONGEST_PAUSE, 2 * pause)
        self._due[name] = time.monotonic() + pause
        return pause

    def _restart_broker(self) -> None:
        broker.stop_orphan(self.data_dir)  # the socket that the dead one left
        self._broker = broker.start(self.data_dir, self.log_dir / "broker.log")

    def _restart_worker(self, number: int) -> None:
        self._workers[number] = self._start_worker(number)

    def _wait_until_ready(self) -> None:
        patience = READY_SECONDS + PLUGIN_SECONDS * (self.plugins.count(",") + 1 if self.plugins else 0)
        deadline, said = time.monotonic() + patience, ""
        with Client(self.url) as client:
            while time.monotonic() < deadline:
                if self.halt.wait(LOOK_SECONDS):
                    raise StoppedError("stopped while starting")
                for child in self.children:
                    if child.code is not None:
                        raise ChildDiedError(child)
                try:
                    ready = client.ready()
                except (ConnectionFailed, ApiError) as error:
                    said = str(error)
                    continue
                if ready.workers >= self.workers and (ready.status == "ready" or self.workers == 0):
                    return
                there = f"{ready.workers} of {self.workers} workers"
                said = f"{there}, database {ready.database}, broker {ready.broker}"
        raise ServeError(f"not ready after {patience:g} s: {said}; see the logs in {self.log_dir}")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _owner(note: str) -> str:
    """Who left a note in the lock file, in words; it may be half written."""
    try:
        known = json.loads(note)
        return f" (process {known['pid']}, {known['url']})"
    except (ValueError, KeyError, TypeError):
        return ""
