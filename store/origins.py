"""What a job may go on from: the state that the search of another ended with, a file of that job; and files of
candidates of others: weight masks that its seeds name, weights that its trainings begin with.

While the search of a job under way is to go on from it, a job cannot be deleted; who posts the one and who deletes the
other take the row of the job gone on from first. A search that is over needs it no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, or_, select
from sqlalchemy.orm import Session

from store.artefacts import INHERITED, MASKS, STATE
from store.errors import BroughtGoneError, OriginGoneError
from store.models import Artefact, Job

FIELD = "from"
"""Of a stored job: the id of the job that it goes on from."""
SEARCHES = ("queued", "searching")
"""Statuses of jobs whose search is still to be done, or to be done again."""


def wanted(spec: Mapping[str, Any]) -> UUID | None:
    """The job that a stored job goes on from."""
    named = spec.get(FIELD)
    return None if named is None else UUID(named)


def state(session: Session, job_id: UUID) -> Artefact | None:
    """The state that the search of a job ended with."""
    own = (Artefact.job_id == job_id, Artefact.candidate_id.is_(None), Artefact.format == STATE)
    return session.scalars(select(Artefact).where(*own)).one_or_none()


def masks_wanted(spec: Mapping[str, Any]) -> list[str]:
    """SHA-256 of the weight masks that the seeds of a stored job name, in order."""
    return sorted({seed["masks"] for seed in spec.get("seed_genotypes") or () if seed.get("masks") is not None})


def weights_wanted(spec: Mapping[str, Any]) -> str | None:
    """SHA-256 of the inherited weights that a stored job names."""
    found: str | None = (spec.get("verify") or {}).get("weights")
    return found


def hold(session: Session, spec: Mapping[str, Any]) -> None:
    """Keeps the job that this one goes on from, and those whose candidates have what it names, until this transaction
    ends.

    Raises OriginGoneError, BroughtGoneError.
    """
    weights = weights_wanted(spec)
    named = [(MASKS, digest) for digest in masks_wanted(spec)] + ([(INHERITED, weights)] if weights else [])
    for format, digest in named:
        having = (Artefact.format == format, Artefact.sha256 == digest)
        owners = select(Job.id).where(Job.id.in_(select(Artefact.job_id).where(*having))).order_by(Job.id)
        session.execute(owners.with_for_update(read=True)).all()
        if session.scalars(select(Artefact.id).where(*having).limit(1)).first() is None:
            raise BroughtGoneError(format, digest)
    job_id = wanted(spec)
    if job_id is None:
        return
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update(read=True)).first()
    if state(session, job_id) is None:
        raise OriginGoneError(job_id)


def users(session: Session, job_id: UUID) -> Sequence[UUID]:
    """The jobs under way whose search is to go on from this one, oldest first."""
    own = (Artefact.job_id == job_id, Artefact.format.in_((MASKS, INHERITED)))
    brought = session.scalars(select(Artefact.sha256).where(*own).distinct()).all()
    named = or_(
        Job.spec[FIELD].as_string() == str(job_id), *(cast(Job.spec, Text).contains(digest) for digest in brought)
    )
    under_way = select(Job.id).where(Job.status.in_(SEARCHES), named)
    return session.scalars(under_way.order_by(Job.created_at, Job.id)).all()
