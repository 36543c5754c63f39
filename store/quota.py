"""How much room artefacts take, how much they may take, and which of them may go.

Exports can be made again from the weights, so they may go once nobody has used them for a while. Weights, weight masks
and states of searches, and what is in use, stay; when these alone fill the quota, nothing new is taken on. What runs
still stores its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from store.artefacts import LASTING
from store.clock import now
from store.errors import QuotaExceededError
from store.models import Artefact
from store.settings import settings

USED_SECONDS = 600.0
"""How coarse ``last_used_at`` is: a download should not be a write."""
IN_USE_SECONDS = 1800.0
"""How long after its last use an export is left alone, because somebody may still be downloading it."""
MB = 2**20

# Of exports; created, where nobody has used it yet.
last_use = func.coalesce(Artefact.last_used_at, Artefact.created_at)


@dataclass(frozen=True, slots=True)
class Usage:
    """Files of one format."""

    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Export:
    """One that may go."""

    id: UUID
    job_id: UUID
    bytes: int


def usage(session: Session) -> dict[str, Usage]:
    """What is stored, by format."""
    query = select(Artefact.format, func.sum(Artefact.bytes), func.count()).group_by(Artefact.format)
    return {format: Usage(int(total), files) for format, total, files in session.execute(query)}


def admit(session: Session) -> None:
    """Raises QuotaExceededError where what must stay fills the quota."""
    limit = settings().artefact_quota_mb
    if not limit:
        return
    stay = or_(Artefact.format.in_(LASTING), last_use >= _in_use_since(session))
    used = int(session.execute(select(func.coalesce(func.sum(Artefact.bytes), 0)).where(stay)).scalar_one())
    if used >= limit * MB:
        raise QuotaExceededError(used, limit)


def note_use(session: Session, artefact_id: UUID) -> None:
    """Somebody asked for the file; noted where the last note is old."""
    at = now(session)
    old = or_(Artefact.last_used_at.is_(None), Artefact.last_used_at < at - timedelta(seconds=USED_SECONDS))
    noted = update(Artefact).where(Artefact.id == artefact_id, old).values(last_used_at=at)
    session.execute(noted.execution_options(synchronize_session=False))


def unnoted(artefact: Artefact, at: datetime) -> bool:
    """Whether it is time to note that this file is used; the use of what stays is never noted."""
    last = artefact.last_used_at
    return artefact.format not in LASTING and (last is None or last < at - timedelta(seconds=USED_SECONDS))


def unused(session: Session) -> list[Export]:
    """Exports that nobody has used for as many days as the settings say, longest unused first."""
    days = settings().keep_exports_days
    if not days:
        return []
    return _exports(session, last_use < now(session) - timedelta(days=days))


def surplus(session: Session) -> list[Export]:
    """The exports, longest unused first, without which the rest meets the quota; all there are, where none would do."""
    limit = settings().artefact_quota_mb
    if not limit:
        return []
    over = sum(one.bytes for one in usage(session).values()) - limit * MB
    found = []
    for export in _exports(session, last_use < _in_use_since(session)) if over > 0 else ():
        if over <= 0:
            break
        found.append(export)
        over -= export.bytes
    return found


def _exports(session: Session, *conditions: ColumnElement[bool]) -> list[Export]:
    columns = (Artefact.id, Artefact.job_id, Artefact.bytes)
    query = select(*columns).where(Artefact.format.not_in(LASTING), *conditions).order_by(last_use, Artefact.id)
    return [Export(id, job_id, bytes) for id, job_id, bytes in session.execute(query)]


def _in_use_since(session: Session) -> datetime:
    return now(session) - timedelta(seconds=IN_USE_SECONDS)
