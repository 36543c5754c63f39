"""Which workers can do a task: those that serve its queue, have the memory, and know what the job names.

What a job names may be a user's own plug-in, which some workers have and others do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from store import catalog, tables
from store.catalog import Part
from store.models import Worker

COURSE = ("search", "verify", "conclude")
"""Kinds of tasks that make up a job's course. Any other is done beside it, also after its end, and changes nothing of
it: an export.
"""
TABULAR = "tabular"
"""The objective that looks values up; an ``error`` of a table needs it, too."""
LISTED = 5
"""How many workers a sentence names."""


def memory_of(spec: Mapping[str, Any]) -> float:
    """The least memory of a worker that a job asks for, GB."""
    least: float = (spec.get("resources") or {}).get("min_memory_gb", 0.0)
    return least


def needed(spec: Mapping[str, Any], kind: str) -> list[Part]:
    """What a worker must know for a task of this kind: the search all that the job names, what follows its data and
    objectives, what is done beside the job's course nothing.
    """
    if kind not in COURSE:
        return []
    parts = [("space", spec.get("space")), ("algorithm", spec.get("algorithm"))] if kind == "search" else []
    parts += [("dataset", spec.get("dataset")), *(("objective", each) for each in spec.get("objectives") or [])]
    named = [(what, part["name"]) for what, part in parts if part]
    named += [("objective", TABULAR) for _ in tables.wanted(spec)]
    return list(dict.fromkeys(named))


def words(parts: Iterable[Part]) -> str:
    """``objective 'carbon' and data set 'birds'``."""
    said = [f"{'data set' if what == 'dataset' else what} '{name}'" for what, name in parts]
    return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))


def suits(session: Session, worker: Worker, spec: Mapping[str, Any], kind: str) -> bool:
    """Whether a worker takes work and can do this."""
    return not worker.draining and any_can(session, [worker], spec, kind)


def any_can(session: Session, workers: Sequence[Worker], spec: Mapping[str, Any], kind: str) -> bool:
    """Whether one of these has the memory and knows all that is needed."""
    roomy = [worker.name for worker in workers if worker.memory_gb >= memory_of(spec)]
    return not all(catalog.lacking(session, roomy, needed(spec, kind)).values())


def serving(session: Session, queue: str) -> list[Worker]:
    """Live workers on a queue that take work."""
    live = [worker for worker, lives in catalog.workers(session) if lives and not worker.draining]
    return [worker for worker in live if queue in worker.queues]


def missing(session: Session, workers: Sequence[Worker], spec: Mapping[str, Any], kind: str, queue: str) -> str | None:
    """What none of these workers, which serve a queue, has for a task, in words; None where one has all."""
    least = memory_of(spec)
    roomy = [worker for worker in workers if worker.memory_gb >= least]
    if not roomy:
        largest = max(worker.memory_gb for worker in workers)
        return f"a worker on queue {queue} with at least {least:g} GB of memory; the largest has {largest:g} GB"
    lacks = catalog.lacking(session, [worker.name for worker in roomy], needed(spec, kind))
    if not all(lacks.values()):
        return None
    every = [part for part in needed(spec, kind) if any(part in parts for parts in lacks.values())]
    nearest = sorted(lacks.items(), key=lambda item: (len(item[1]), item[0]))
    who = ", ".join(f"{name} has no {words(parts)}" for name, parts in nearest[:LISTED])
    return f"a worker on queue {queue} with {words(every)} (a user's own: `skyline worker --plugins FILE`); {who}"
