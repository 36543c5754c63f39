"""Waiting on conditions, never for a time that is hoped to be enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 150.0
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.15
"""Seconds between two looks. A look is often a request, which a service answers at the cost of what is waited for."""


def until(what: str, condition: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """The first true answer. Fails after ``seconds``."""
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(pause)
        pause = min(LONGEST_PAUSE, 1.2 * pause)
    return found
