"""The Celery task: claims a row, runs one attempt of it in a process of its own, and sees it to its end.

The child is a Python process of its own that runs nothing else, in a session of its own: it may use CUDA and DataLoader
workers, it can be killed with all its children, and it dies with us.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from store import catalog, tasks
from store.jobs import COURSE
from store.session import unit_of_work
from store.settings import settings
from worker.control import DONE, GAVE_UP, LEASE_LOST, PUT_BACK
from worker.gpu import GpuUse
from worker.identity import Identity
from worker.logs import Shipper
from worker.spare import Reserve, Runner, environment

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
GRACE_SECONDS = 6.0
"""Between asking a child to stop and killing it."""
HEAD_START_SECONDS = 1.0
"""What an attempt has to itself before the next spare is made."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended and what it used."""

    code: int
    """Exit code, or minus the signal."""
    cpu_seconds: float
    peak_memory_mb: float


class Child:
    """The process of one attempt, the spare or a new one; what it prints goes to the task's log."""

    def __init__(self, task_id: UUID, fence: int, reserve: Reserve) -> None:
        self.log_path = settings().log_dir / f"{task_id}.log"
        self._order = {"task": str(task_id), "fence": fence, "log": str(self.log_path)}
        self._stopping = False
        self.ended: Ended | None = None
        self.gpu = GpuUse(Identity().device_class)
        spare = reserve.take()
        self._spare = spare is not None
        self._runner = spare or Runner(environment(), self.log_path)
        self._runner.order(self._order)

    def _died_as_spare(self) -> bool:
        """Whether it ended before it took the order. Then another does; the attempt loses only the time."""
        if not self._spare or self._stopping or self._runner.lines:
            return False
        log.warning("the spare process died; its output is in %s", self._runner.output)
        self._runner.close()
        self._spare, self._runner = False, Runner(environment(), self.log_path)
        self._runner.order(self._order)
        return True

    def wait(self, seconds: float) -> Ended | None:
        """Its end, if that comes within ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.ended is None:
            pid, status, usage = os.wait4(self._runner.process.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._runner.process.returncode = code  # reaped here, for the sake of its resource usage
                if self._died_as_spare():
                    continue
                scale = 1024 if sys.platform == "linux" else 1024 * 1024
                self.gpu.ended(self._runner.lines[1:])
                self.ended = Ended(code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)
            elif time.monotonic() >= deadline:
                return None
            else:
                time.sleep(LOOK_SECONDS)
        return self.ended

    def look(self) -> None:
        """To be called at every heartbeat, for what can be known only while it lives."""
        self.gpu.look(self._runner.process.pid)

    def stop(self) -> Ended:
        """Asks, waits, then kills the whole group."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        ended = self.wait(GRACE_SECONDS)
        self._signal(signal.SIGKILL)  # also whatever the child left behind in its group
        while ended is None:
            ended = self.wait(GRACE_SECONDS)
        return ended

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._runner.process.pid, number)

    def close(self) -> None:
        self._runner.close()


def supervise(task_id: UUID, identity: Identity, reserve: Reserve) -> None:
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
    child = Child(task_id, claim.fence, reserve)
    asked: str | None = None
    ended = None
    held = time.monotonic()
    try:
        ended = child.wait(HEAD_START_SECONDS)
        reserve.fill()
        while ended is None:
            ended = child.wait(have.heartbeat_seconds)
            if ended is None:
                child.look()
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
        child.close()
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
        **child.gpu.facts(),
    }
    if asked == "lost" or ended.code == LEASE_LOST:
        return  # whoever holds the lease now has closed this attempt
    with unit_of_work(settings().outage_seconds) as session:
        if asked == "cancel":
            tasks.end(session, claim.task_id, claim.fence, status="cancelled", end="cancelled", **used)
        elif ended.code == DONE:
            tasks.end(session, claim.task_id, claim.fence, status="done", end="done", **used)
        elif ended.code == GAVE_UP:  # the child has said what becomes of job or candidate
            status: Literal["done", "failed"] = "done" if claim.kind in COURSE else "failed"
            tasks.end(session, claim.task_id, claim.fence, status=status, end="failed", **used)
        elif asked == "drain" or ended.code == PUT_BACK:
            tasks.end(session, claim.task_id, claim.fence, status="queued", end="drained", **used)
        else:
            log.error("attempt %s of task %s died: %s", claim.attempt, claim.task_id, ended)
            tasks.end(session, claim.task_id, claim.fence, status="queued", end="died", **used)
