"""A job's two fronts, maintained on write; which candidates belong to them is for the caller to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal
from uuid import UUID, uuid4

from sqlalchemy import insert, literal, or_, select, update
from sqlalchemy.orm import Session

from store import events, jobs
from store.models import Candidate, Front, FrontMember

Kind = Literal["search", "final"]


def state(session: Session, job_id: UUID, kind: Kind) -> Front | None:
    """The front as it is now; None before its first version."""
    query = select(Front).where(Front.job_id == job_id, Front.kind == kind)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def member_ids(session: Session, front: Front, version: int | None = None) -> list[UUID]:
    """Its candidates by number, now or in an older version."""
    query = select(FrontMember.candidate_id).where(FrontMember.front_id == front.id)
    if version is None:
        query = query.where(FrontMember.left_version.is_(None))
    else:
        present = or_(FrontMember.left_version.is_(None), FrontMember.left_version > version)
        query = query.where(FrontMember.entered_version <= version, present)
    return list(session.scalars(query.order_by(FrontMember.number)))


def replace(
    session: Session,
    job_id: UUID,
    kind: Kind,
    members: Sequence[UUID],
    hypervolume: float | None,
    knee: UUID | None,
) -> int | None:
    """Makes the front consist of ``members``: a new version and its event, or None when nothing changed."""
    jobs.ensure_locked(session, job_id)
    front = state(session, job_id, kind)
    before = set(member_ids(session, front)) if front is not None else set()
    after = set(members)
    same = before == after
    if same and (front is None or (front.knee == knee and _close(front.hypervolume, hypervolume))):
        return None
    if front is None:
        front = Front(id=uuid4(), job_id=job_id, kind=kind, version=0)
        session.add(front)
    front.version += 1
    front.size, front.hypervolume, front.knee = len(after), hypervolume, knee
    session.flush()
    session.execute(
        update(FrontMember)
        .where(
            FrontMember.front_id == front.id,
            FrontMember.left_version.is_(None),
            FrontMember.candidate_id.in_(before - after),
        )
        .values(left_version=front.version)
        .execution_options(synchronize_session=False)
    )
    entered = select(
        literal(front.id, FrontMember.front_id.type), Candidate.id, literal(front.version), Candidate.number
    ).where(Candidate.id.in_(after - before))
    session.execute(insert(FrontMember).from_select(["front_id", "candidate_id", "entered_version", "number"], entered))
    data = {"kind": kind, "version": front.version, "size": front.size, "hypervolume": hypervolume}
    events.append(session, job_id, [("front", data)])
    return front.version


def _close(one: float | None, other: float | None) -> bool:
    """Equal but for the order of summation."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9)
