"""Members of a front as they are read: documents stay text, so that a thousand of them cost no parsing.

:mod:`store.fronts` writes what is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Text, case, cast, func, or_, select
from sqlalchemy.orm import Session

from store.models import Artefact, Candidate, Evaluation, Front, FrontMember

Stage = Literal["search", "final"]
CHUNK = 10_000
"""Ids in one statement; both databases allow more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one objective, and the stage whose values they are held against."""

    stage: Stage
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A candidate; ``architecture``, ``test`` and the values are JSON as text."""

    id: UUID
    number: int
    hash: str
    architecture: str
    status: str
    failure: str | None
    test: str | None
    created_at: datetime
    values: dict[Stage, dict[str, str]] = field(default_factory=lambda: {"search": {}, "final": {}})
    """By stage and objective key."""
    formats: list[str] = field(default_factory=list)
    """Formats of its artefacts."""


def page(
    session: Session,
    front: Front,
    *,
    version: int,
    bounds: Mapping[str, Limits] | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[Member]:
    """Members at ``version`` that meet the bounds, by number, from the one behind number ``after`` on."""
    query = (
        select(
            Candidate.id,
            Candidate.number,
            Candidate.hash,
            cast(Candidate.architecture, Text),
            Candidate.status,
            Candidate.failure,
            cast(Candidate.test, Text),
            Candidate.created_at,
        )
        .join(FrontMember, FrontMember.candidate_id == Candidate.id)
        .where(FrontMember.front_id == front.id, Candidate.number > after)
        .order_by(Candidate.number)
        .limit(limit)
    )
    if version == front.version:
        query = query.where(FrontMember.left_version.is_(None))
    else:
        stayed = or_(FrontMember.left_version.is_(None), FrontMember.left_version > version)
        query = query.where(FrontMember.entered_version <= version, stayed)
    for key, limits in (bounds or {}).items():
        value = select(Evaluation.candidate_id).where(
            Evaluation.candidate_id == Candidate.id, Evaluation.stage == limits.stage, Evaluation.key == key
        )
        if limits.min is not None:
            value = value.where(Evaluation.value >= limits.min)
        if limits.max is not None:
            value = value.where(Evaluation.value <= limits.max)
        query = query.where(value.exists())
    members = {row[0]: Member(*row) for row in session.execute(query)}
    _complete(session, members)
    return list(members.values())


def _complete(session: Session, members: Mapping[UUID, Member]) -> None:
    """Adds values and artefacts, each in one query."""
    ids = list(members)
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        values = select(Evaluation.candidate_id, Evaluation.stage, Evaluation.key, cast(Evaluation.document, Text))
        for candidate_id, stage, key, text in session.execute(values.where(Evaluation.candidate_id.in_(part))):
            members[candidate_id].values["final" if stage == "final" else "search"][key] = text
        files = select(Artefact.candidate_id, Artefact.format).where(Artefact.candidate_id.in_(part))
        for candidate_id, name in session.execute(files.order_by(Artefact.format)):
            members[candidate_id].formats.append(name)


@dataclass(frozen=True, slots=True)
class Near:
    """A candidate that meets no front because of its bounds."""

    id: UUID
    violation: float
    """Sum over objectives of how far the value lies beyond its bound, as a share of the bound."""
    values: dict[str, float]
    """Of the bounded objectives."""


def nearest(session: Session, job_id: UUID, bounds: Mapping[str, Limits], count: int) -> list[Near]:
    """The candidates with a value for every bounded objective that violate the bounds least."""
    chosen = or_(
        *((Evaluation.key == key) & (Evaluation.stage == limits.stage) for key, limits in bounds.items()),
    )
    total = func.sum(case(*((Evaluation.key == key, _violation(limits)) for key, limits in bounds.items()), else_=0.0))
    query = (
        select(Evaluation.candidate_id, total)
        .where(Evaluation.job_id == job_id, chosen)
        .group_by(Evaluation.candidate_id)
        .having(func.count() == len(bounds))
        .order_by(total, Evaluation.candidate_id)
        .limit(count)
    )
    found = session.execute(query).all()
    values = _values(session, [candidate_id for candidate_id, _ in found], chosen)
    return [Near(candidate_id, violation, values[candidate_id]) for candidate_id, violation in found]


def _violation(limits: Limits) -> ColumnElement[float]:
    pairs = []
    if limits.max is not None:
        pairs.append((Evaluation.value > limits.max, (Evaluation.value - limits.max) / (abs(limits.max) or 1.0)))
    if limits.min is not None:
        pairs.append((Evaluation.value < limits.min, (limits.min - Evaluation.value) / (abs(limits.min) or 1.0)))
    return case(*pairs, else_=0.0)


def _values(session: Session, ids: Sequence[UUID], chosen: ColumnElement[bool]) -> dict[UUID, dict[str, float]]:
    found: dict[UUID, dict[str, float]] = {candidate_id: {} for candidate_id in ids}
    query = select(Evaluation.candidate_id, Evaluation.key, Evaluation.value)
    for candidate_id, key, value in session.execute(query.where(Evaluation.candidate_id.in_(ids), chosen)):
        found[candidate_id][key] = value
    return found
