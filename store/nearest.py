"""What comes nearest where no candidate of a job holds all of its bounds, and by how much which bound would have to
move: an answer's ``infeasible`` as it goes over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, case, func, literal, select, union_all
from sqlalchemy.orm import Session

from store import candidates
from store.candidates import Documents
from store.models import Candidate, Evaluation, Job

Stage = Literal["search", "final"]

NEAREST = 3
"""Candidates that are named."""
ALL = -1
"""In place of a bound's number: the sum over all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A job's bounds of one objective."""

    min: float | None = None
    max: float | None = None


def infeasible(session: Session, job: Job, stage: Stage) -> dict[str, Any] | None:
    """What to say of an empty front; None where bounds are not what keeps it empty, or nothing has values yet.

    Where a job succeeded without a verification, since the search had found nothing that could hold all bounds, its
    final front is told of by the search's values. The returned ``stage`` says whose they are.
    """
    bounds = {key: Limits(**bound) for key, bound in (job.spec.get("constraints") or {}).items()}
    if not bounds:
        return None
    near, alone = _found(session, job.id, stage, bounds)
    if not near and stage == "final" and job.status == "succeeded":
        return infeasible(session, job, "search")
    if not near or near[0][1] <= 0:
        return None
    values = candidates.values(session, [*{id for id, _ in near}, *alone.values()], stage)
    first = near[0][0]
    return {
        "stage": stage,
        "nearest": [{"id": str(id), "violation": total, "values": values[id]} for id, total in near],
        "violations": {
            key: move
            for key, limits in bounds.items()
            if (move := _move(first, values[first], key, limits)) is not None
        },
        "alone": {key: _move(id, values[id], key, bounds[key]) for key, id in alone.items()},
    }


def _found(
    session: Session, job_id: UUID, stage: Stage, bounds: Mapping[str, Limits]
) -> tuple[list[tuple[UUID, float]], dict[str, UUID]]:
    """The nearest with the sum of what they break, and by bound the candidate that holds all others and breaks this one
    least. All in one pass over the values, of which there may be a million.
    """
    broken = _broken(job_id, stage, bounds)
    of = {key: broken.c[f"by{place}"] for place, key in enumerate(bounds)}
    ordered = [select(literal(ALL).label("place"), broken.c.candidate_id, broken.c.total).order_by(broken.c.total)]
    for place, key in enumerate(bounds):
        others = [column == 0 for name, column in of.items() if name != key]
        query = select(literal(place).label("place"), broken.c.candidate_id, of[key].label("total"))
        ordered.append(query.where(of[key] > 0, *others).order_by(of[key]))
    best = [
        select(query.order_by(broken.c.candidate_id).limit(NEAREST if place == 0 else 1).subquery())
        for place, query in enumerate(ordered)
    ]
    near: list[tuple[float, UUID]] = []
    alone: dict[str, UUID] = {}
    keys = list(bounds)
    for place, candidate_id, excess in session.execute(union_all(*best)):
        if place == ALL:
            near.append((excess, candidate_id))
        else:
            alone[keys[place]] = candidate_id
    return [(candidate_id, excess) for excess, candidate_id in sorted(near)], alone


def _broken(job_id: UUID, stage: Stage, bounds: Mapping[str, Limits]) -> CTE:
    """By candidate that has not failed: by how much it breaks each bound (``by0``, ``by1``, ...), as a share of the
    bound, and their sum (``total``).

    Of final values all bounded ones must be there: measured ones come last. A search leaves out the same ones of all.
    """
    failed = select(Candidate.id).where(Candidate.job_id == job_id, Candidate.status == "failed")
    of_each = [
        func.sum(case((Evaluation.key == key, _share(limits)), else_=0.0)).label(f"by{place}")
        for place, (key, limits) in enumerate(bounds.items())
    ]
    total = func.sum(case(*((Evaluation.key == key, _share(limits)) for key, limits in bounds.items()), else_=0.0))
    query = (
        select(Evaluation.candidate_id, total.label("total"), *of_each)
        .where(Evaluation.job_id == job_id, Evaluation.stage == stage, Evaluation.key.in_(list(bounds)))
        .where(Evaluation.candidate_id.not_in(failed))
        .group_by(Evaluation.candidate_id)
    )
    if stage == "final":
        query = query.having(func.count() == len(bounds))
    return query.cte("broken")


def _share(limits: Limits) -> ColumnElement[float]:
    """How far a value lies beyond its bound, as a share of that (of 1, where it is 0)."""
    pairs: list[tuple[Any, Any]] = []
    if limits.max is not None:
        pairs.append((Evaluation.value > limits.max, (Evaluation.value - limits.max) / (abs(limits.max) or 1.0)))
    if limits.min is not None:
        pairs.append((Evaluation.value < limits.min, (limits.min - Evaluation.value) / (abs(limits.min) or 1.0)))
    return case(*pairs, else_=0.0)


def _move(candidate_id: UUID, values: Documents, key: str, limits: Limits) -> dict[str, Any] | None:
    """How a bound would have to move for this candidate; None where that holds it."""
    if key not in values:
        return None
    value = float(values[key]["value"])
    if limits.max is not None and value > limits.max:
        side, bound = "max", limits.max
    elif limits.min is not None and value < limits.min:
        side, bound = "min", limits.min
    else:
        return None
    by = abs(value - bound)
    return {
        "min": limits.min,
        "max": limits.max,
        "nearest": value,
        "side": side,
        "by": by,
        "share": by / abs(bound) if bound else None,
        "candidate": str(candidate_id),
    }
