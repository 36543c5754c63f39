"""One request or task, one transaction, one place that commits and then sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from store import queue
from store.clock import now
from store.engine import dispose, engine, reading_engine
from store.schema import check_schema, migrate

__all__ = ["check_schema", "dispose", "engine", "migrate", "now", "reading", "unit_of_work"]


@contextmanager
def unit_of_work() -> Iterator[Session]:
    """A transaction that commits at the end, or rolls back on an error; then sends what was enqueued, if it can."""
    with Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
        if queue.owes(session):
            queue.flush()


@contextmanager
def reading() -> Iterator[Session]:
    """A transaction that sees one moment, blocks no one and refuses writes."""
    with Session(reading_engine(), expire_on_commit=False) as session:
        yield session
