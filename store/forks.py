"""A fork takes no open SQLite file along.

SQLite keeps what it has locked in the process (sqlite.org/howtocorrupt.html, "carrying an open database connection
across a fork"). A child that inherits that believes in locks which nobody will ever release, so that all its writes
find the database locked, and takes for its own those that the system did not pass on. So a fork waits until the other
threads have given back their connections, and closes those before it goes on. New ones wait for the fork.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from weakref import WeakSet

from sqlalchemy import QueuePool
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

THREAD = "skyline.thread"


class _Gate:
    """Who has a connection, by thread, and who forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._out: Counter[int] = Counter()
        self._forking: int | None = None

    def enter(self) -> int:
        """The calling thread, which gets a connection; waits while another forks."""
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._forking in (None, thread))
            self._out[thread] += 1
        return thread

    def leave(self, thread: int) -> None:
        with self._changed:
            self._out -= Counter({thread: 1})
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody else in, and waits until nobody else is."""
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._forking is None)
            self._forking = thread
            self._changed.wait_for(lambda: not set(self._out) - {thread})

    def open(self) -> None:
        with self._changed:
            self._forking = None
            self._changed.notify_all()


_gate = _Gate()
_pools: WeakSet[ForkSafePool] = WeakSet()


class ForkSafePool(QueuePool):
    """Connections to one SQLite file. Forking with one in one's own hands is not made safe: do not."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        _pools.add(self)

    def connect(self) -> PoolProxiedConnection:
        thread = _gate.enter()
        try:
            connection = super().connect()
        except BaseException:
            _gate.leave(thread)
            raise
        assert connection.record_info is not None
        connection.record_info[THREAD] = thread
        return connection

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        thread = (record.record_info or {}).pop(THREAD, None)
        super()._do_return_conn(record)
        if thread is not None:  # None: it was never handed out
            _gate.leave(thread)


def _before() -> None:
    _gate.close()
    for pool in [*_pools]:
        pool.dispose()


def _in_parent() -> None:
    _gate.open()


def _in_child() -> None:
    global _gate  # noqa: PLW0603
    _gate = _Gate()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
