"""What the store's tests make: jobs, claims, candidates, and the passing of time."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from store import candidates, tasks
from store.models import Task
from store.session import reading, unit_of_work

SPEC: dict[str, Any] = {
    "name": "toy",
    "objectives": [{"name": "error"}, {"name": "params"}],
    "reference_point": {"error": 0.9},
    "resources": {"device": "cpu", "min_memory_gb": 0.0},
}


def claim(task_id: UUID, owner: str = "one", lease_seconds: float = 30, max_attempts: int = 3) -> tasks.Claim | None:
    """Claims in a transaction of its own; a negative lease has run out at once."""
    with unit_of_work() as session:
        return tasks.claim(session, task_id, owner, "cpu", 1, lease_seconds, max_attempts)


def must_claim(task_id: UUID, owner: str = "one", lease_seconds: float = 30) -> tasks.Claim:
    claimed = claim(task_id, owner, lease_seconds)
    assert claimed is not None
    return claimed


def only_task(job_id: UUID, kind: str) -> Task:
    with reading() as session:
        return session.scalars(select(Task).where(Task.job_id == job_id, Task.kind == kind)).one()


def task_status(task_id: UUID) -> str:
    with reading() as session:
        return session.get_one(Task, task_id).status


def new_candidate(number: int, **values: float) -> candidates.NewCandidate:
    documents = values or {"error": 1 / (number + 1), "params": float(number)}
    return candidates.NewCandidate(
        hash=f"hash-{number}",
        architecture={"genotype": {"space": "toy", "number": number}, "skeleton": {"cells": []}},
        target=0,
        values={key: {"value": value, "unit": "", "kind": "exact"} for key, value in documents.items()},
    )


def change(model: type[Any], values: dict[str, Any], *where: Any) -> None:
    """Changes rows behind the store's back, as the passing of time would."""
    with unit_of_work() as session:
        session.execute(update(model).where(*where).values(values))
