"""Tables of values by architecture, under names of their own.

Jobs refer to them by name and SHA-256. A table that a job under way looks values up in cannot be deleted; who posts a
job and who deletes a table take the table's row first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, undefer

from store import cursors
from store.clock import now
from store.errors import (
    InvalidCursorError,
    NotFoundError,
    TableExistsError,
    TableGoneError,
    TableInUseError,
    TooManyTablesError,
)
from store.models import Job, RegisteredTable

MOST = 1000
"""Registered at most: a job is checked against all of them."""
LISTED = 5
"""Jobs that an error names."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""Statuses of jobs that are over."""
FROM_TABLES = ("error", "accuracy", "tabular")
"""Objectives whose setting ``table`` names one; a user's own may have another such setting."""
OF_IT = ("sha256", "space", "skeleton", "key", "columns", "partial", "description")
"""What two registrations under one name must agree in."""
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def add(session: Session, name: str, **columns: Any) -> tuple[RegisteredTable, bool]:
    """(row, whether it is new). ``columns``: those of the row. The same again changes nothing.

    Raises TableExistsError where the name stands for something else, TooManyTablesError.
    """
    count = session.execute(select(func.count()).select_from(RegisteredTable)).scalar_one()
    if count >= MOST and find(session, name) is None:
        raise TooManyTablesError(MOST)
    make = _INSERTS.get(session.get_bind().dialect.name, insert)
    values = {"name": name, **columns, "created_at": now(session)}
    # who comes at the same time with the same name waits here until this transaction has ended
    made = session.execute(
        make(RegisteredTable).values(values).on_conflict_do_nothing().returning(RegisteredTable.name)
    ).first()
    row = get(session, name)
    if made is None and not same(row, columns):
        raise TableExistsError(name)
    return row, made is not None


def same(row: RegisteredTable, columns: Mapping[str, Any]) -> bool:
    """Whether this is what is registered already."""
    return all(getattr(row, name) == columns[name] for name in OF_IT)


def find(session: Session, name: str) -> RegisteredTable | None:
    """Without its rows of numbers."""
    return session.get(RegisteredTable, name, populate_existing=True)


def get(session: Session, name: str) -> RegisteredTable:
    """As :func:`find`; raises NotFoundError."""
    row = find(session, name)
    if row is None:
        raise NotFoundError("registered table", name)
    return row


def listed(session: Session) -> Sequence[RegisteredTable]:
    """All of them, by name."""
    return session.scalars(select(RegisteredTable).order_by(RegisteredTable.name)).all()


def page(
    session: Session, *, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[RegisteredTable], str | None]:
    """By name, and the cursor of what follows, if anything does. Raises InvalidCursorError."""
    query = select(RegisteredTable).order_by(RegisteredTable.name).limit(limit + 1)
    if cursor is not None:
        (after,) = cursors.unpack(cursor, 1)
        if not isinstance(after, str) or not (after.isascii() and after.isprintable()):
            raise InvalidCursorError(cursor)
        query = query.where(RegisteredTable.name > after)
    rows = session.scalars(query).all()
    more = len(rows) > limit
    return rows[:limit], cursors.pack(rows[limit - 1].name) if more else None


def delete(session: Session, name: str) -> None:
    """Raises NotFoundError, TableInUseError while jobs under way name it."""
    if (
        session.execute(select(RegisteredTable.name).where(RegisteredTable.name == name).with_for_update()).first()
        is None
    ):
        raise NotFoundError("registered table", name)
    users = _users(session, name)
    if users:
        raise TableInUseError(name, users[:LISTED], max(0, len(users) - LISTED))
    statement = delete_rows(RegisteredTable).where(RegisteredTable.name == name)
    session.execute(statement.execution_options(synchronize_session=False))


def _users(session: Session, name: str) -> list[UUID]:
    under_way = select(Job.id, Job.spec).where(Job.status.not_in(ENDED)).order_by(Job.created_at)
    return [job_id for job_id, spec in session.execute(under_way) if name in wanted(spec)]


# --- what jobs name ---------------------------------------------------------------------------------------------------


def wanted(spec: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 by name of the tables that a stored job's objectives name."""
    named = [each for each in spec.get("objectives") or [] if each["name"] in FROM_TABLES and each.get("table")]
    return {each["table"]: each["sha256"] for each in named}


def hold(session: Session, spec: Mapping[str, Any]) -> None:
    """Keeps the tables of a job from being deleted until this transaction ends. Raises TableGoneError."""
    for name, sha256 in sorted(wanted(spec).items()):
        query = select(RegisteredTable.sha256).where(RegisteredTable.name == name)
        found = session.execute(query.with_for_update(read=True)).scalar_one_or_none()
        if found != sha256:
            raise TableGoneError(name, sha256, found)


def read(session: Session, spec: Mapping[str, Any]) -> list[RegisteredTable]:
    """The tables of a job with their rows of numbers. Raises TableGoneError."""
    rows = []
    for name, sha256 in wanted(spec).items():
        options = [undefer(RegisteredTable.hashes), undefer(RegisteredTable.numbers)]
        row = session.get(RegisteredTable, name, options=options, populate_existing=True)
        if row is None or row.sha256 != sha256:
            raise TableGoneError(name, sha256, None if row is None else row.sha256)
        rows.append(row)
    return rows
