"""The Celery task: claims a row, runs one attempt of it in a process of its own, and sees it to its end.

The child is a fresh Python process in a session of its own: it may use CUDA and DataLoader workers, it can be killed
with all its children, and it dies with us.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from store import catalog, tasks
from store.session import unit_of_work
from store.settings import settings
from worker.control import DONE, LEASE_LOST, PUT_BACK
from worker.identity import Identity
from worker.logs import Shipper

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
GRACE_SECONDS = 6.0
"""Between asking a child to stop and killing it."""
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
"""glibc keeps freed activations instead of asking the kernel for fresh pages at every step (docs/decisions/0010)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended and what it used."""

    code: int
    """Exit code, or minus the signal."""
    cpu_seconds: float
    peak_memory_mb: float


class Child:
    """The process of one attempt; what it prints goes to the task's log."""

    def __init__(self, task_id: UUID, fence: int) -> None:
        self.log_path = settings().log_dir / f"{task_id}.log"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.child", str(task_id), str(fence), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**ALLOCATOR, **os.environ},
            )
        self.ended: Ended | None = None

    def wait(self, seconds: float) -> Ended | None:
        """Its end, if that comes within ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.ended is None:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._process.returncode = code  # reaped here, for the sake of its resource usage
                scale = 1024 if sys.platform == "linux" else 1024 * 1024
                self.ended = Ended(code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)
            elif time.monotonic() >= deadline:
                return None
            else:
                time.sleep(LOOK_SECONDS)
        return self.ended

    def stop(self) -> Ended:
        """Asks, waits, then kills the whole group."""
        self._signal(signal.SIGTERM)
        ended = self.wait(GRACE_SECONDS)
        self._signal(signal.SIGKILL)  # also whatever the child left behind in its group
        while ended is None:
            ended = self.wait(GRACE_SECONDS)
        return ended

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def supervise(task_id: UUID, identity: Identity) -> None:
    """One attempt, if the task can be claimed; whatever happens to it is on record afterwards."""
    have = settings()
    with unit_of_work() as session:
        claim = tasks.claim(
            session,
            task_id,
            owner=identity.name,
            device=identity.device,
            threads=identity.threads,
            lease_seconds=have.lease_seconds,
            max_attempts=have.max_attempts,
        )
    if claim is None:
        return
    shipper = Shipper(task_id, claim.fence)
    child = Child(task_id, claim.fence)
    asked: str | None = None
    ended = None
    held = time.monotonic()
    try:
        while ended is None:
            ended = child.wait(have.heartbeat_seconds)
            if ended is None:
                try:
                    asked = _asked_to_stop(task_id, claim.fence, identity)
                    held = time.monotonic()
                except SQLAlchemyError:
                    log.exception("no heartbeat for task %s; the lease may outlast this", task_id)
                    asked = "lost" if time.monotonic() - held > have.lease_seconds else None
                shipper.ship()
                if asked is not None:
                    ended = child.stop()
    finally:
        if ended is None:
            child.stop()  # never leave a child that nobody watches
    shipper.ship(last=True)
    _record(claim, child, ended, asked)


def _asked_to_stop(task_id: UUID, fence: int, identity: Identity) -> str | None:
    """Renews the lease; ``cancel``, ``lost`` or ``drain`` when the child has to stop."""
    with unit_of_work() as session:
        beat = tasks.heartbeat(session, task_id, fence, settings().lease_seconds)
        if beat != "ok":
            return beat
        return "drain" if catalog.is_draining(session, identity.name) else None


def _record(claim: tasks.Claim, child: Child, ended: Ended, asked: str | None) -> None:
    """Closes the attempt; the store decides what becomes of the task and the job."""
    used: dict[str, Any] = {
        "exit_signal": -ended.code if ended.code < 0 else None,
        "cpu_seconds": round(ended.cpu_seconds, 3),
        "peak_memory_mb": round(ended.peak_memory_mb, 1),
    }
    if asked == "lost" or ended.code == LEASE_LOST:
        return  # whoever holds the lease now has closed this attempt
    with unit_of_work(settings().outage_seconds) as session:
        if asked == "cancel":
            tasks.end(session, claim.task_id, claim.fence, status="cancelled", end="cancelled", **used)
        elif ended.code == DONE:
            tasks.end(session, claim.task_id, claim.fence, status="done", end="done", **used)
        elif asked == "drain" or ended.code == PUT_BACK:
            tasks.end(session, claim.task_id, claim.fence, status="queued", end="drained", **used)
        else:
            log.error("attempt %s of task %s died: %s", claim.attempt, claim.task_id, ended)
            tasks.end(session, claim.task_id, claim.fence, status="queued", end="died", **used)
