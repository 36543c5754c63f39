"""Nobody trains on a host while a latency is measured there: two file locks shared by all its workers.

Training holds the *room* shared. A measurer first closes the *gate*, then waits until it has the room to itself; those
who train look at the gate between steps and, where it is closed, leave the room until it opens.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_SECONDS = 0.25
"""How often training looks at the gate."""


class Room:
    """One process's place on this host; ``folder`` is the same for all workers of a user."""

    def __init__(self, folder: Path | None = None) -> None:
        where = folder or Path(tempfile.gettempdir(), f"skyline-{os.getuid()}")
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._gate = os.open(where / "gate.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._room = os.open(where / "room.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._looked = 0.0
        fcntl.flock(self._room, fcntl.LOCK_SH)

    def pass_measurers(self) -> None:
        """To be called between training steps: lets a waiting measurement take its turn."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            fcntl.flock(self._gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            fcntl.flock(self._gate, fcntl.LOCK_SH)
            fcntl.flock(self._room, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps everybody else's training away while it is held."""
        fcntl.flock(self._room, fcntl.LOCK_UN)  # first: two measurers must not wait for each other
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_SH)
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._room)
        os.close(self._gate)
