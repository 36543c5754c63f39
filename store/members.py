"""Members of a front as they are read: one query, whose rows are text all the way, so that a thousand cost no parsing.

:mod:`store.fronts` writes what is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, cast, func, null, or_, select
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
