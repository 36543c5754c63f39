"""Waiting without holding a thread: the database is looked at every quarter of a second, in a few threads of its own.

Endpoints run in forty threads; were live streams to look from those, or wait in them, they would starve the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

LOOK_SECONDS = 0.25
THREADS = 8

T = TypeVar("T")
_limiter: RunVar[CapacityLimiter] = RunVar("live_threads")


async def look(function: Callable[[], T]) -> T:
    """Runs a function that reads the database in one of the threads for that."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return await to_thread.run_sync(function, limiter=limiter)
