"""Keys to the API: made, listed, revoked, looked up, and how many jobs each may have under way.

A key is ``skl_`` and 256 random bits. Nobody can guess that, nor find it from its digest by trying, so a plain SHA-256
is enough and costs a request nothing; slow hashes are for what people choose. The first characters are kept to tell
keys apart and to find the row; the rest is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import UUID, uuid4

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from store.clock import now
from store.errors import InvalidKeyError, NotFoundError, TooManyOpenJobsError
from store.models import ApiKey, Job
from store.settings import settings

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each may do what those before it may."""
MARK = "skl_"
"""What every key begins with, so that it is known for one wherever it turns up."""
RANDOM_BYTES = 32
SHOWN = len(MARK) + 8
"""Characters that are kept of a key."""
FORM = re.compile(rf"{MARK}[A-Za-z0-9_-]{{43}}")
USED_SECONDS = 600
"""How coarse ``last_used_at`` is."""
NAME_CHARACTERS = 200
_ENDED = ("succeeded", "failed", "cancelled")  # store.jobs has them too, and stands on this module


def create(
    session: Session,
    name: str,
    scope: Scope,
    *,
    lifetime: timedelta | None = None,
    requests_per_minute: int | None = None,
    open_jobs: int | None = None,
) -> tuple[ApiKey, str]:
    """(row, key). The key is here and nowhere else: it cannot be had again. ``lifetime`` None: until it is revoked."""
    if scope not in SCOPES or not 0 < len(name) <= NAME_CHARACTERS:
        raise ValueError(f"got name {name!r:.50}, scope {scope!r}: a key has a name and one of {', '.join(SCOPES)}")
    secret = MARK + secrets.token_urlsafe(RANDOM_BYTES)
    at = now(session)
    row = ApiKey(
        id=uuid4(),
        name=name,
        prefix=secret[:SHOWN],
        digest=_digest(secret),
        scope=scope,
        requests_per_minute=requests_per_minute,
        open_jobs=open_jobs,
        created_at=at,
        expires_at=None if lifetime is None else at + lifetime,
    )
    session.add(row)
    session.flush()
    return row, secret


def listed(session: Session) -> Sequence[ApiKey]:
    """All keys, revoked ones too, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()


def usable(session: Session) -> bool:
    """Whether any key opens the API."""
    living = select(ApiKey.id).where(
        ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now(session))
    )
    return session.execute(living.limit(1)).first() is not None


def revoke(session: Session, which: str) -> ApiKey:
    """Ends a key for good, named by id, by its first characters as listed, or by itself; again changes nothing.

    Raises NotFoundError, which never holds a whole key.
    """
    shown = which[:SHOWN] if which.startswith(MARK) else which
    try:
        wanted = ApiKey.id == UUID(shown)
    except ValueError:
        wanted = ApiKey.prefix == shown
    found = session.scalars(select(ApiKey).where(wanted)).all()
    if len(found) != 1:
        raise NotFoundError("API key", shown)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == found[0].id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now(session))
        .execution_options(synchronize_session=False)
    )
    return session.get_one(ApiKey, found[0].id, populate_existing=True)


def verify(session: Session, secret: str) -> ApiKey:
    """The row of a key that opens the API now; raises InvalidKeyError."""
    if not FORM.fullmatch(secret):
        raise InvalidKeyError(f"does not look like one: it begins with {MARK} and has {len(MARK) + 43} characters")
    digest, found = _digest(secret), None
    for row in session.scalars(select(ApiKey).where(ApiKey.prefix == secret[:SHOWN])):
        if hmac.compare_digest(row.digest, digest):
            found = row
    if found is None:
        raise InvalidKeyError("is not known here")
    if found.revoked_at is not None:
        raise InvalidKeyError("was revoked")
    if found.expires_at is not None and found.expires_at <= now(session):
        raise InvalidKeyError(f"expired at {found.expires_at:%Y-%m-%d %H:%M} UTC")
    return found


def stale(session: Session, row: ApiKey) -> bool:
    """Whether it is time to note that this key is used."""
    return row.last_used_at is None or now(session) - row.last_used_at > timedelta(seconds=USED_SECONDS)


def note_use(session: Session, key_id: UUID) -> None:
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id)
        .values(last_used_at=now(session))
        .execution_options(synchronize_session=False)
    )


def admit_job(session: Session, key_id: UUID | None) -> None:
    """Raises TooManyOpenJobsError where one more job under way would be more than the key may have.

    Locks the key's row until this transaction ends, so that two requests at once do not both take the last place.
    """
    if key_id is None:
        return
    own = session.execute(select(ApiKey.open_jobs).where(ApiKey.id == key_id).with_for_update()).scalar_one()
    limit = settings().open_jobs if own is None else own
    if not limit:
        return
    under_way = select(func.count()).where(Job.owner_key == key_id, Job.status.not_in(_ENDED))
    if session.execute(under_way).scalar_one() >= limit:
        raise TooManyOpenJobsError(limit)


def state(row: ApiKey, at: datetime) -> Literal["active", "expired", "revoked"]:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= at else "active"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
