"""How a child process is told to stop, and how it says why it ended."""

from __future__ import annotations

import signal
from types import FrameType

DONE = 0
PUT_BACK = 75
"""Exit code of a child that was asked to stop and left everything so that another can go on (EX_TEMPFAIL)."""
LEASE_LOST = 76
"""Exit code of a child whose task belongs to another by now."""


class Stopped(BaseException):
    """Asked to stop. Not an Exception: no one in between may take it for a failed candidate."""


class StopFlag:
    """Set by SIGTERM; training looks at it between steps."""

    def __init__(self) -> None:
        self.set = False
        signal.signal(signal.SIGTERM, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.set = True

    def check(self) -> None:
        if self.set:
            raise Stopped
