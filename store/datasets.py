"""Data sets under names of their own. Jobs do not refer to these rows: they hold what the name stood for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store import cursors
from store.clock import now
from store.errors import DatasetExistsError, InvalidCursorError, NotFoundError, TooManyDatasetsError
from store.models import RegisteredDataset

MOST = 1000
"""Registered at most: the catalog lists all of them."""
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def add(
    session: Session, name: str, dataset: Mapping[str, Any], description: str = ""
) -> tuple[RegisteredDataset, bool]:
    """(row, whether it is new). The same again changes nothing.

    Raises DatasetExistsError where the name stands for something else, TooManyDatasetsError.
    """
    count = session.execute(select(func.count()).select_from(RegisteredDataset)).scalar_one()
    if count >= MOST and find(session, name) is None:
        raise TooManyDatasetsError(MOST)
    make = _INSERTS.get(session.get_bind().dialect.name, insert)
    values = {"name": name, "dataset": dict(dataset), "description": description, "created_at": now(session)}
    # who comes at the same time with the same name waits here until this transaction has ended
    made = session.execute(
        make(RegisteredDataset).values(values).on_conflict_do_nothing().returning(RegisteredDataset.name)
    ).first()
    row = get(session, name)
    if made is None and (row.dataset != dict(dataset) or row.description != description):
        raise DatasetExistsError(name)
    return row, made is not None


def find(session: Session, name: str) -> RegisteredDataset | None:
    return session.get(RegisteredDataset, name, populate_existing=True)


def get(session: Session, name: str) -> RegisteredDataset:
    """Raises NotFoundError."""
    row = find(session, name)
    if row is None:
        raise NotFoundError("registered data set", name)
    return row


def listed(session: Session) -> Sequence[RegisteredDataset]:
    """All of them, by name."""
    return session.scalars(select(RegisteredDataset).order_by(RegisteredDataset.name)).all()


def page(
    session: Session, *, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[RegisteredDataset], str | None]:
    """By name, and the cursor of what follows, if anything does. Raises InvalidCursorError."""
    query = select(RegisteredDataset).order_by(RegisteredDataset.name).limit(limit + 1)
    if cursor is not None:
        (after,) = cursors.unpack(cursor, 1)
        if not isinstance(after, str) or not (after.isascii() and after.isprintable()):
            raise InvalidCursorError(cursor)
        query = query.where(RegisteredDataset.name > after)
    rows = session.scalars(query).all()
    more = len(rows) > limit
    return rows[:limit], cursors.pack(rows[limit - 1].name) if more else None


def delete(session: Session, name: str) -> None:
    """Raises NotFoundError."""
    statement = delete_rows(RegisteredDataset).where(RegisteredDataset.name == name).returning(RegisteredDataset.name)
    if session.execute(statement.execution_options(synchronize_session=False)).first() is None:
        raise NotFoundError("registered data set", name)
