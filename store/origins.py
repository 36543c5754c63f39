"""What a job may go on from: the state that the search of another ended with, a file of that job; and files of
candidates of others: weight masks that its seeds name, weights that its trainings begin with.

While the search of a job under way is to go on from it, a job cannot be deleted; who posts the one and who deletes the
other take the row of the job gone on from first. A search that is over needs it no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
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


def brought_wanted(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Format and SHA-256 of the files that candidates of other jobs brought and a stored job names."""
    weights = (spec.get("verify") or {}).get("weights")
    named = [(MASKS, digest) for digest in masks_wanted(spec)]
    return named if weights is None else [*named, (INHERITED, weights)]


def hold(session: Session, spec: Mapping[str, Any]) -> None:
    """Keeps the job that this one goes on from, and one for each file that it names of a candidate, until this
    transaction ends.

    Raises OriginGoneError, BroughtGoneError.
    """
    for format, digest in brought_wanted(spec):
        _hold_owner(session, format, digest)
    job_id = wanted(spec)
    if job_id is None:
        return
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update(read=True)).first()
    if state(session, job_id) is None:
        raise OriginGoneError(job_id)


def _hold_owner(session: Session, format: str, digest: str) -> None:
    """The job that has had the file longest: all who want it wait at one row."""
    having = select(Artefact.job_id).where(Artefact.format == format, Artefact.sha256 == digest)
    first = having.order_by(Artefact.created_at, Artefact.id).limit(1)
    while (owner := session.scalars(first).first()) is not None:
        if session.execute(select(Job.id).where(Job.id == owner).with_for_update(read=True)).first() is not None:
            return
    raise BroughtGoneError(format, digest)


def users(session: Session, job_id: UUID) -> Sequence[UUID]:
    """The jobs under way whose search is to go on from this one, oldest first."""
    own = (Artefact.job_id == job_id, Artefact.format.in_((MASKS, INHERITED)))
    brought = {
        (format, sha256) for format, sha256 in session.execute(select(Artefact.format, Artefact.sha256).where(*own))
    }
    under_way = select(Job.id, Job.spec).where(Job.status.in_(SEARCHES)).order_by(Job.created_at, Job.id)
    if not brought:
        under_way = under_way.where(Job.spec[FIELD].as_string() == str(job_id))
    return [
        id
        for id, spec in session.execute(under_way)
        if wanted(spec) == job_id or not brought.isdisjoint(brought_wanted(spec))
    ]
