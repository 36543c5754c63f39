"""The Celery task: claims a row, runs one attempt of it in a process of its own, and sees it to its end.

The child is a Python process of its own that runs nothing else, in a group of its own: it may use CUDA and DataLoader
workers, it can be killed with all its children, and it dies with us.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from contextlib import suppress
from dataclasses import replace
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
from worker.template import Ended, Reserve

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
GRACE_SECONDS = 6.0
"""Between asking a child to stop and killing it."""
FAILED = 1
"""Exit code of a process that an exception ended, and for all that is not confirmed."""
LAST_SECONDS = 1.0
"""Between killing it and killing its template, too."""
ORDER_SECONDS = 120.0
"""For a template to import and to make an attempt, on a busy machine."""


class Child:
    """The process of one attempt; what it prints goes to the task's log."""

    def __init__(self, task_id: UUID, fence: int, reserve: Reserve) -> None:
        self.log_path = settings().log_dir / f"{task_id}.log"
        self._order = {"task": str(task_id), "fence": fence, "log": str(self.log_path)}
        self._stopping = False
        self.ended: Ended | None = None
        self.gpu = GpuUse(Identity().device_class)
        self._reserve = reserve
        self._ordered = time.monotonic()
        template, self._waited = reserve.take()
        self.making = template.make(self._order)

    def _lost_on_the_way(self) -> bool:
        """Whether a template that had waited died with the order, or what it made did.

        Then another gets it; the attempt loses only the time.
        """
        if not self._waited or self._stopping or self.making.lines:
            return False
        log.warning("the template process lost an order; what it printed is in the attempt's log")
        self._pass_on_last_words()
        self._reserve.empty()
        try:
            template, self._waited = self._reserve.take()
        except OSError:
            log.exception("no other template process can be made")
            return False
        self._ordered = time.monotonic()
        self.making.close()
        self.making = template.make(self._order)
        return True

    def _pass_on_last_words(self) -> None:
        """What a template printed that could make no attempt is the attempt's log."""
        with suppress(OSError), self.log_path.open("ab") as log_file:
            log_file.write(self.making.template.output.read_bytes())

    def wait(self, seconds: float) -> Ended | None:
        """Its end, if that comes within ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.ended is None:
            ended = self.making.poll()
            if ended is not None:
                if self._lost_on_the_way():
                    continue
                if not self.making.lines:
                    self._pass_on_last_words()
                said = [line for line in self.making.lines[1:] if line]
                self.gpu.ended(said)
                confirmed = any(json.loads(line).get("outcome") == ended.code for line in said)
                # A process that ends without a word has died, whatever its code: a plug-in may exit as it likes.
                self.ended = ended if confirmed or ended.code < 0 else replace(ended, code=FAILED)
            elif time.monotonic() >= deadline:
                return None
            else:
                if time.monotonic() - self._ordered > ORDER_SECONDS and not self.making.lines:
                    log.warning("an order was not taken within %g s; its template is given up", ORDER_SECONDS)
                    self.making.template.signal(signal.SIGKILL)
                time.sleep(LOOK_SECONDS)
        return self.ended

    def look(self) -> None:
        """To be called at every heartbeat, for what can be known only while it lives."""
        if self.making.pid is not None:
            self.gpu.look(self.making.pid)

    def stop(self) -> Ended:
        """Asks, waits, then kills the whole group."""
        self._stopping = True
        self.making.signal(signal.SIGTERM)
        ended = self.wait(GRACE_SECONDS)
        if ended is None:
            self.making.signal(signal.SIGKILL)
            ended = self.wait(LAST_SECONDS)
        while ended is None:  # a template that does not answer has nothing to tell
            self.making.template.signal(signal.SIGKILL)
            ended = self.wait(GRACE_SECONDS)
        return ended

    def close(self) -> None:
        self.making.close()


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
    try:
        child = Child(task_id, claim.fence, reserve)
    except OSError as error:  # no room for a process, a folder that is not ours: the next attempt may find it mended
        log.exception("no process could be made for task %s", task_id)
        said = f"worker {identity.name} could not start it: {error}"
        with unit_of_work(have.outage_seconds) as session:
            tasks.end(session, task_id, claim.fence, status="queued", end="died", detail=said)
        return
    asked: str | None = None
    ended = None
    held = time.monotonic()
    try:
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
    reserve.fill()


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
        "cpu_seconds": None if ended.cpu_seconds is None else round(ended.cpu_seconds, 3),
        "peak_memory_mb": None if ended.peak_memory_mb is None else round(ended.peak_memory_mb, 1),
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
