"""Nobody trains on a host while a latency is measured there: two file locks shared by all its workers.

Training holds the *room* shared. A measurer first closes the *gate*, then waits until it has the room to itself; those
who train look at the gate between steps and, where it is closed, leave the room until it opens.
Nobody waits for ever: a process that is stopped, or hangs, keeps its locks, and must not keep the whole host.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_SECONDS = 0.25
"""How often training looks at the gate."""
STEP_SECONDS = 60.0
"""How long a measurer waits for those who train to end a step; it then measures beside who does not leave."""
MEASURE_SECONDS = 600.0
"""How long others wait for one measurement."""
POLL_SECONDS = 0.05

log = logging.getLogger(__name__)


class Room:
    """One process's place on this host; ``folder`` is the same for all workers of a user."""

    def __init__(self, folder: Path | None = None) -> None:
        where = folder or Path(tempfile.gettempdir(), f"skyline-{os.getuid()}")
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._gate = os.open(where / "gate.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._room = os.open(where / "room.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._looked = 0.0
        self._enter()

    def pass_measurers(self) -> None:
        """To be called between training steps: lets a waiting measurement take its turn."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            fcntl.flock(self._gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            if not _taken(self._gate, fcntl.LOCK_SH, MEASURE_SECONDS):
                log.warning("a measurement on this host has not ended for %g s; training goes on", MEASURE_SECONDS)
            self._enter()
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps everybody else's training away while it is held."""
        fcntl.flock(self._room, fcntl.LOCK_UN)  # first: two measurers must not wait for each other
        if not _taken(self._gate, fcntl.LOCK_EX, MEASURE_SECONDS):
            log.warning("a measurement on this host has not ended for %g s; this one goes on", MEASURE_SECONDS)
        try:
            if not _taken(self._room, fcntl.LOCK_EX, STEP_SECONDS):
                log.warning("a training on this host did not pause for %g s; measured beside it", STEP_SECONDS)
            yield
        finally:
            self._enter()
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _enter(self) -> None:
        if not _taken(self._room, fcntl.LOCK_SH, MEASURE_SECONDS):
            log.warning("a measurement on this host has not ended for %g s; training goes on", MEASURE_SECONDS)

    def close(self) -> None:
        os.close(self._room)
        os.close(self._gate)


def _taken(lock: int, how: int, patience: float) -> bool:
    """Takes a lock; False where it cannot be had for ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True
