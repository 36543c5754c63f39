"""What a worker's main process does beside Celery: publish, show that it lives, relay messages, reap expired leases."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future, wait
from typing import Any

import psutil
from sqlalchemy.exc import SQLAlchemyError

from nas_core.errors import DeviceError
from store import catalog, queue, retention, tasks
from store.errors import SeveralHostsError, StoreError
from store.session import reading, unit_of_work
from store.settings import settings
from worker import leftovers, plugins
from worker.data_root import DataRoot
from worker.identity import Identity
from worker.inspection import inspect_host

log = logging.getLogger(__name__)

TIDY_SECONDS = 60.0
"""How often it is looked for what has had its day."""
LOOK_SECONDS = 5.0
"""How long a round waits for a look at the host; with the pause between rounds less than what a worker lives unseen."""


def publication_of(identity: Identity) -> dict[str, Any]:
    """What this worker makes known. One for short tasks can run no job, so it looks at nothing."""
    if not identity.is_short:
        return inspect_host()
    memory_gb = round(psutil.virtual_memory().total / 2**30, 2)
    versions = {"python": platform.python_version()}
    facts = {"device": identity.device, "threads": identity.threads, "memory_gb": memory_gb, "versions": versions}
    return {"entries": [], **facts}


class Look:
    """One look at what there is, in a thread: a plug-in that hangs must not stop the heartbeat."""

    def __init__(self) -> None:
        self.plugins: plugins.State = plugins.state()
        self._made: Future[dict[str, Any]] = Future()
        threading.Thread(target=self._run, name="look", daemon=True).start()

    def _run(self) -> None:
        try:
            self._made.set_result(publication_of(Identity()))
        except Exception as error:  # raised again where it is asked for
            self._made.set_exception(error)

    def publication(self, patience: float) -> dict[str, Any] | None:
        """None where it takes longer. Raises what making it raised."""
        wait([self._made], patience)
        return self._made.result() if self._made.done() else None


def tidy() -> None:
    """Removes files of tasks that are over, and what is not to be kept any more of jobs and artefacts."""
    try:
        with reading() as session:
            leftovers.forget(session)
        retention.tidy()
    except (SQLAlchemyError, StoreError, OSError):
        log.exception("tidying up failed; it is tried again")


class Keeper:
    """A thread of the worker's main process; every round is short and survives a database or broker that is away."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._data_root = DataRoot()
        self._plugins: plugins.State | None = None
        self._look: Look | None = None
        self._told: list[str] = []
        self._draining = False
        self._tidy_at = 0.0
        self._tidying: threading.Thread | None = None
        self._looked_at: float | None = None
        self._spare_until: float | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Tells the supervisor, through the worker's row, to put its task back."""
        self._draining = True  # to publish would take it back
        try:
            with unit_of_work() as session:
                catalog.drain(session, Identity().name)
        except SQLAlchemyError:
            log.exception("could not mark this worker as draining")

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._tidying is not None:
            self._tidying.join(timeout=5)
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
        self._look_and_publish()
        with unit_of_work() as session:
            if not catalog.seen(session, Identity().name):
                self._data_root.forget()  # the next round publishes again
            if self._may_reap():
                tasks.reap(session)
        queue.relay()
        if time.monotonic() >= self._tidy_at and (self._tidying is None or not self._tidying.is_alive()):
            # Beside: a store that is away or a large job must not make this worker look dead.
            self._tidying = threading.Thread(target=tidy, name="tidy", daemon=True)
            self._tidying.start()
            self._tidy_at = time.monotonic() + TIDY_SECONDS

    def _may_reap(self) -> bool:
        """Not at once after a time in which nobody could renew a lease: the database was away, this host asleep, or a
        clock was set. Those who live get one lease to say so; where every round is slow, that is no reason any more.
        """
        at, lease = time.time(), settings().lease_seconds
        passed = 0.0 if self._looked_at is None else at - self._looked_at
        self._looked_at = at
        if 0 <= passed <= 0.75 * lease:
            if self._spare_until is not None and time.monotonic() >= self._spare_until:
                self._spare_until = None
        elif self._spare_until is None:
            log.warning("%.0f s passed since the last look at leases; none is taken away for %g s", passed, lease)
            self._spare_until = time.monotonic() + lease
        return self._spare_until is None or time.monotonic() >= self._spare_until

    def _look_and_publish(self) -> None:
        if self._draining:
            return
        if self._look is None:
            if not self._data_root.changed(settings().data_root) and plugins.state() == self._plugins:
                return
            self._look = Look()
        look, self._look = self._look, None
        publication = look.publication(LOOK_SECONDS)
        if publication is None:
            self._look = look  # the next round asks again
        elif not self._draining:
            self._publish(publication)
            self._data_root.tell()
            self._plugins = look.plugins

    def _publish(self, publication: dict[str, Any]) -> None:
        identity = Identity()
        with unit_of_work() as session:
            worker = {"name": identity.name, "host": socket.gethostname(), "queues": identity.queue_names}
            catalog.publish(session, worker, publication)
        told, self._told = self._told, [*plugins.remarks(publication)]
        for said in self._told:
            if said not in told:
                print(said, file=sys.stderr, flush=True)
