"""The same request twice, one job: an ``Idempotency-Key`` is remembered with its body for a day, for each API key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store.clock import now
from store.errors import IdempotencyConflictError
from store.models import IdempotencyKey

KEPT_HOURS = 24.0
_KEPT = timedelta(hours=KEPT_HOURS)
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def digest(document: Mapping[str, Any]) -> str:
    """Of a body as a document: how it was spaced, ordered or written (JSON, YAML) makes no difference."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def find(session: Session, owner: UUID | None, key: str, digest: str) -> UUID | None:
    """The job that this request made before, or None. Raises IdempotencyConflictError for another body."""
    row = session.execute(
        select(IdempotencyKey.digest, IdempotencyKey.job_id).where(
            *_named(owner, key), IdempotencyKey.created_at > now(session) - _KEPT
        )
    ).one_or_none()
    if row is None:
        return None
    if row.digest != digest:
        raise IdempotencyConflictError(key, KEPT_HOURS)
    found: UUID | None = row.job_id
    return found


def reserve(session: Session, owner: UUID | None, key: str, digest: str) -> UUID | None:
    """Takes the key for this transaction, which has to :func:`keep` a job under it; or gives the job it already has.

    Whoever comes at the same time waits here until this transaction has ended. Raises IdempotencyConflictError.
    """
    at = now(session)
    session.execute(
        delete(IdempotencyKey)
        .where(IdempotencyKey.created_at <= at - _KEPT)
        .execution_options(synchronize_session=False)
    )
    make = _INSERTS.get(session.get_bind().dialect.name, insert)
    values = {"owner": _owner(owner), "key": key, "digest": digest, "created_at": at}
    taken = session.execute(make(IdempotencyKey).values(values).on_conflict_do_nothing().returning(IdempotencyKey.key))
    return None if taken.first() else find(session, owner, key, digest)


def keep(session: Session, owner: UUID | None, key: str, job_id: UUID) -> None:
    """Notes the job that was made for a reserved key."""
    session.execute(
        update(IdempotencyKey)
        .where(*_named(owner, key))
        .values(job_id=job_id)
        .execution_options(synchronize_session=False)
    )


def _owner(owner: UUID | None) -> str:
    return "" if owner is None else str(owner)


def _named(owner: UUID | None, key: str) -> tuple[Any, Any]:
    return IdempotencyKey.owner == _owner(owner), IdempotencyKey.key == key
