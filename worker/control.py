"""How a child process is told to stop, and how it says why it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from types import FrameType

DONE = 0
PUT_BACK = 75
"""Exit code of a child that was asked to stop and left everything so that another can go on (EX_TEMPFAIL)."""
GAVE_UP = 70
"""Exit code of a child whose task cannot be done: another attempt would meet the same (EX_SOFTWARE)."""
NO_DEVICE = 69
"""Exit code of worker.catalog where the worker's device is not on this host (EX_UNAVAILABLE)."""
NO_STORE = 74
"""Exit code of a child that could not reach the place where artefacts lie; it counts as an attempt (EX_IOERR)."""
LEASE_LOST = 76
"""Exit code of a child whose task belongs to another by now."""


class Stopped(BaseException):
    """Asked to stop. Not an Exception: no one in between may take it for a failed candidate."""


class StopFlag:
    """Set by SIGTERM; training looks at it between steps."""

    def __init__(self) -> None:
        self._since: float | None = None
        signal.signal(signal.SIGTERM, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._since is None:
            self._since = time.monotonic()

    @property
    def set(self) -> bool:
        return self._since is not None

    def check(self, patience: float = 0.0) -> None:
        """Raises Stopped when asked to stop ``patience`` seconds ago or earlier."""
        if self._since is not None and time.monotonic() - self._since >= patience:
            raise Stopped


PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


def die_with(parent: int) -> None:
    """A process without its supervisor has no lease for long: on Linux it is killed together with it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def name_process(name: str) -> None:
    """What ``ps -o comm`` and ``top`` show of this process on Linux; at most 15 letters."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())
