"""Members of a front as they are read: one query, whose rows are text all the way, so that a thousand cost no parsing.

:mod:`store.fronts` writes what is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, case, cast, func, null, or_, select
from sqlalchemy.orm import Session

from store.models import Artefact, Candidate, Evaluation, Front, FrontMember

Stage = Literal["search", "final"]
CANDIDATES, VALUES, MEMBERS, FILES = (
    model.metadata.tables[model.__tablename__] for model in (Candidate, Evaluation, FrontMember, Artefact)
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one objective, and the stage whose values they are held against."""

    stage: Stage
    min: float | None = None
    max: float | None = None


class Member(NamedTuple):
    """A candidate; documents are JSON as text."""

    id: UUID
    number: int
    hash: str
    architecture: str
    status: str
    failure: str | None
    test: str | None
    created_at: datetime
    searched: str
    """Values as the search saw them: an object by objective key."""
    verified: str | None
    """Values of the verification, as far as it has got; not read for the search front."""
    formats: str | None
    """Formats of its files, with commas between."""


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
    conditions = [MEMBERS.c.front_id == front.id, MEMBERS.c.number > after]
    order = [MEMBERS.c.number]
    if version == front.version:
        conditions.append(MEMBERS.c.left_version.is_(None))
        order.insert(0, MEMBERS.c.left_version)  # the same for all; only so does PostgreSQL read in the index's order
    else:
        stayed = or_(MEMBERS.c.left_version.is_(None), MEMBERS.c.left_version > version)
        conditions += [MEMBERS.c.entered_version <= version, stayed]
    conditions += [_within(key, limits).exists() for key, limits in (bounds or {}).items()]
    rows = (
        select(*_COLUMNS[session.get_bind().dialect.name, front.kind])
        .join(CANDIDATES, CANDIDATES.c.id == MEMBERS.c.candidate_id)
        .where(*conditions)
        .order_by(*order)
        .limit(limit)
    )
    return [Member._make(row) for row in session.connection().execute(rows)]  # no objects to make of plain rows


def _columns(dialect: str, kind: str) -> tuple[ColumnElement[Any], ...]:
    """In the order of Member's fields."""
    files = select(func.aggregate_strings(FILES.c.format, ",")).where(FILES.c.candidate_id == MEMBERS.c.candidate_id)
    return (
        CANDIDATES.c.id,
        MEMBERS.c.number,
        CANDIDATES.c.hash,
        cast(CANDIDATES.c.architecture, Text),
        CANDIDATES.c.status,
        CANDIDATES.c.failure,
        cast(CANDIDATES.c.test, Text),
        CANDIDATES.c.created_at,
        func.coalesce("{" + _documents(dialect, "search") + "}", "{}"),
        null() if kind == "search" else "{" + _documents(dialect, "final") + "}",
        files.scalar_subquery(),
    )


def _documents(dialect: str, stage: Stage) -> ColumnElement[Any]:
    """A candidate's values of a stage as the inside of a JSON object; null where it has none."""
    key = func.json_quote(VALUES.c.key) if dialect == "sqlite" else cast(func.to_json(VALUES.c.key), Text)
    documents = func.aggregate_strings(key + ":" + cast(VALUES.c.document, Text), ",")
    of_stage = select(documents).where(VALUES.c.candidate_id == MEMBERS.c.candidate_id, VALUES.c.stage == stage)
    return of_stage.scalar_subquery()


_COLUMNS = {
    (dialect, kind): _columns(dialect, kind) for dialect in ("sqlite", "postgresql") for kind in ("search", "final")
}
"""Made once: the two databases differ in the name of a function, the two fronts in what is read."""


def _within(key: str, limits: Limits) -> Select[Any]:
    """The candidate's value of an objective, if it lies within the limits."""
    found = select(VALUES.c.candidate_id).where(
        VALUES.c.candidate_id == MEMBERS.c.candidate_id, VALUES.c.stage == limits.stage, VALUES.c.key == key
    )
    if limits.min is not None:
        found = found.where(VALUES.c.value >= limits.min)
    if limits.max is not None:
        found = found.where(VALUES.c.value <= limits.max)
    return found.correlate(MEMBERS)


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
