"""The one clock that decides about leases and orders rows: the database's."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def now(session: Session) -> datetime:
    """The time in UTC by the database's clock.

    SQLite lives in this process and has this host's clock, which Python reads to the microsecond.
    """
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    at: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return at.astimezone(UTC)
