"""One request or task, one transaction, one place that commits and then sends."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, SessionTransaction

from store import queue
from store.clock import now
from store.engine import dispose, engine, reading_engine
from store.schema import check_schema, migrate

__all__ = ["check_schema", "dispose", "engine", "migrate", "now", "reading", "unit_of_work"]


log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Between two attempts to begin on a database that is away."""


@contextmanager
def unit_of_work(patience: float = 0.0) -> Iterator[Session]:
    """A transaction that commits at the end, or rolls back on an error; then sends what was enqueued, if it can.

    It begins with the first statement; with ``patience`` now, or within so many seconds on a database that is away.
    """
    with Session(engine(), expire_on_commit=False) as session:
        with _begun(session, patience):
            yield session
        if queue.owes(session):
            queue.flush()


@contextmanager
def reading(patience: float = 0.0) -> Iterator[Session]:
    """A transaction that sees one moment, blocks no one and refuses writes; ``patience`` as in :func:`unit_of_work`."""
    with Session(reading_engine(), expire_on_commit=False) as session:
        _begun(session, patience)
        yield session


def _begun(session: Session, patience: float) -> SessionTransaction:
    """The session's transaction; with patience on a connection that works."""
    if patience <= 0:
        return session.begin()
    deadline = time.monotonic() + patience
    while True:
        transaction = session.begin()
        try:
            session.connection()
        except OperationalError as error:
            transaction.rollback()
            if time.monotonic() >= deadline:
                raise
            log.warning("the database is away, asking again: %s", error.orig)
            time.sleep(RETRY_SECONDS)
        else:
            return transaction
