"""Devices and their profiles. A name may come to another profile; what was a profile once stays, for jobs noted it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store import cursors
from store.clock import now
from store.errors import InvalidCursorError, NotFoundError, TooManyDevicesError
from store.models import Device, DeviceProfileRow

MOST = 200
"""At once: the catalog lists all of them."""
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def put(session: Session, name: str, sha256: str, profile: Mapping[str, Any]) -> bool:
    """Gives a device its profile, a new one in place of the one before. Whether anything changed.

    Raises TooManyDevicesError.
    """
    before = find(session, name)
    if before is not None and before.sha256 == sha256:
        return False
    if before is None and session.execute(select(func.count()).select_from(Device)).scalar_one() >= MOST:
        raise TooManyDevicesError(MOST)
    make, at = _INSERTS.get(session.get_bind().dialect.name, insert), now(session)
    kept = {"sha256": sha256, "profile": dict(profile), "created_at": at}
    session.execute(make(DeviceProfileRow).values(kept).on_conflict_do_nothing())
    named = {"sha256": sha256, "created_at": at}
    statement = make(Device).values({"name": name, **named})
    session.execute(statement.on_conflict_do_update(index_elements=[Device.name], set_=named))
    return True


def find(session: Session, name: str) -> Device | None:
    return session.get(Device, name, populate_existing=True)


def get(session: Session, name: str) -> Device:
    """Raises NotFoundError."""
    row = find(session, name)
    if row is None:
        raise NotFoundError("device", name)
    return row


def profile(session: Session, sha256: str) -> DeviceProfileRow:
    """Raises NotFoundError."""
    row = session.get(DeviceProfileRow, sha256)
    if row is None:
        raise NotFoundError("device profile", sha256)
    return row


def listed(session: Session) -> dict[str, str]:
    """SHA-256 of every device's profile, by name."""
    return {name: sha256 for name, sha256 in session.execute(select(Device.name, Device.sha256).order_by(Device.name))}


def page(
    session: Session, *, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[tuple[Device, DeviceProfileRow]], str | None]:
    """By name with their profiles, and the cursor of what follows, if anything does. Raises InvalidCursorError."""
    query = select(Device, DeviceProfileRow).join(DeviceProfileRow, Device.sha256 == DeviceProfileRow.sha256)
    query = query.order_by(Device.name).limit(limit + 1)
    if cursor is not None:
        (after,) = cursors.unpack(cursor, 1)
        if not isinstance(after, str) or not (after.isascii() and after.isprintable()):
            raise InvalidCursorError(cursor)
        query = query.where(Device.name > after)
    rows = [(device, kept) for device, kept in session.execute(query)]
    more = len(rows) > limit
    return rows[:limit], cursors.pack(rows[limit - 1][0].name) if more else None


def delete(session: Session, name: str) -> None:
    """Raises NotFoundError."""
    statement = delete_rows(Device).where(Device.name == name).returning(Device.name)
    if session.execute(statement.execution_options(synchronize_session=False)).first() is None:
        raise NotFoundError("device", name)
