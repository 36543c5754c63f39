"""What comes nearest where no candidate of a job holds all of its bounds, and by how much which bound would have to
move: an answer's ``infeasible`` as it goes over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Subquery, case, func, or_, select
from sqlalchemy.orm import Session

from store import candidates
from store.candidates import Documents
from store.models import Candidate, Evaluation, Job

Stage = Literal["search", "final"]

NEAREST = 3
"""Candidates that are named."""


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
    broken = _broken(job.id, stage, bounds)
    query = select(broken.c.candidate_id, broken.c.total).order_by(broken.c.total, broken.c.number).limit(NEAREST)
    near = [(candidate_id, total) for candidate_id, total in session.execute(query)]
    if not near and stage == "final" and job.status == "succeeded":
        return infeasible(session, job, "search")
    if not near or near[0][1] <= 0:
        return None
    alone = {key: one for key in bounds if (one := _nearest_by(session, broken, key, bounds)) is not None}
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


def _broken(job_id: UUID, stage: Stage, bounds: Mapping[str, Limits]) -> Subquery:
    """By candidate that has not failed: by how much it breaks each bound (``by0``, ``by1``, ...), as a share of the
    bound, and their sum (``total``).

    Of final values all bounded ones must be there: measured ones come last. A search leaves out the same ones of all.
    """
    of_each = [
        func.sum(case((Evaluation.key == key, _share(limits)), else_=0.0)).label(f"by{place}")
        for place, (key, limits) in enumerate(bounds.items())
    ]
    total = func.sum(case(*((Evaluation.key == key, _share(limits)) for key, limits in bounds.items()), else_=0.0))
    query = (
        select(Evaluation.candidate_id, Candidate.number, total.label("total"), *of_each)
        .join(Candidate, Candidate.id == Evaluation.candidate_id)
        .where(Evaluation.job_id == job_id, Evaluation.stage == stage, Candidate.status != "failed")
        .where(or_(*(Evaluation.key == key for key in bounds)))
        .group_by(Evaluation.candidate_id, Candidate.number)
    )
    if stage == "final":
        query = query.having(func.count() == len(bounds))
    return query.subquery()


def _share(limits: Limits) -> ColumnElement[float]:
    """How far a value lies beyond its bound, as a share of that (of 1, where it is 0)."""
    pairs: list[tuple[Any, Any]] = []
    if limits.max is not None:
        pairs.append((Evaluation.value > limits.max, (Evaluation.value - limits.max) / (abs(limits.max) or 1.0)))
    if limits.min is not None:
        pairs.append((Evaluation.value < limits.min, (limits.min - Evaluation.value) / (abs(limits.min) or 1.0)))
    return case(*pairs, else_=0.0)


def _nearest_by(session: Session, broken: Subquery, key: str, bounds: Mapping[str, Limits]) -> UUID | None:
    """Of those that hold all bounds but this one, the candidate that breaks it least."""
    of = {name: broken.c[f"by{place}"] for place, name in enumerate(bounds)}
    others = [column == 0 for name, column in of.items() if name != key]
    query = select(broken.c.candidate_id).where(of[key] > 0, *others).order_by(of[key], broken.c.number)
    return session.execute(query.limit(1)).scalar()


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
