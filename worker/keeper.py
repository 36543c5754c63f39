"""What a worker's main process does beside Celery: publish, show that it lives, relay messages, reap expired leases."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import psutil
from sqlalchemy.exc import SQLAlchemyError

from nas_core.errors import DeviceError
from store import catalog, queue, tasks
from store.errors import SeveralHostsError, StoreError
from store.session import reading, unit_of_work
from store.settings import settings
from worker import leftovers
from worker.control import NO_DEVICE
from worker.data_root import DataRoot
from worker.identity import Identity
from worker.spare import environment

log = logging.getLogger(__name__)

TIDY_SECONDS = 60.0
"""How often files of tasks that are over are looked through."""


def inspect_host() -> dict[str, Any]:
    """The publication, made by a process that may import torch and sees this worker's device alone.

    Raises DeviceError when the device is not here.
    """
    argv = [sys.executable, "-m", "worker.catalog"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment())
    if done.returncode == NO_DEVICE:
        raise DeviceError(done.stderr.strip())
    if done.returncode != 0:
        raise RuntimeError(f"python -m worker.catalog failed:\n{done.stderr[-2000:]}")
    publication: dict[str, Any] = json.loads(done.stdout)
    return publication


def publication_of(identity: Identity) -> dict[str, Any]:
    """What this worker makes known. One for short tasks can run no job, so it looks at nothing."""
    if not identity.is_short:
        return inspect_host()
    memory_gb = round(psutil.virtual_memory().total / 2**30, 2)
    versions = {"python": platform.python_version()}
    facts = {"device": identity.device, "threads": identity.threads, "memory_gb": memory_gb, "versions": versions}
    return {"entries": [], **facts}


class Keeper:
    """A thread of the worker's main process; every round is short and survives a database or broker that is away."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._data_root = DataRoot()
        self._tidy_at = 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Tells the supervisor, through the worker's row, to put its task back."""
        try:
            with unit_of_work() as session:
                catalog.drain(session, Identity().name)
        except SQLAlchemyError:
            log.exception("could not mark this worker as draining")

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        try:
            with unit_of_work() as session:
                catalog.retire(session, Identity().name)
        except SQLAlchemyError:
            log.exception("could not retire this worker")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._round()
            except SeveralHostsError:
                log.exception("this worker cannot serve; it stops")
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except (SQLAlchemyError, StoreError, DeviceError, OSError, RuntimeError, ValueError):
                log.exception("a round of the keeper failed; it goes on")
            self._stop.wait(settings().relay_seconds)

    def _round(self) -> None:
        if self._data_root.changed(settings().data_root):
            self._publish(publication_of(Identity()))
            self._data_root.tell()
        with unit_of_work() as session:
            if not catalog.seen(session, Identity().name):
                self._data_root.forget()  # the next round publishes again
            tasks.reap(session)
        queue.relay()
        if time.monotonic() >= self._tidy_at:
            with reading() as session:
                leftovers.forget(session)
            self._tidy_at = time.monotonic() + TIDY_SECONDS

    def _publish(self, publication: dict[str, Any]) -> None:
        identity = Identity()
        with unit_of_work() as session:
            worker = {"name": identity.name, "host": socket.gethostname(), "queues": identity.queue_names}
            catalog.publish(session, worker, publication)
