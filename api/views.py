"""Rows as answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from skyline.schemas import (
    Attempt,
    Candidate,
    CatalogEntry,
    Event,
    FrontCounts,
    Infeasible,
    Job,
    JobSpec,
    LogChunk,
    PluginInfo,
    TestResult,
    Value,
    WorkerInfo,
)
from store import candidates, jobs, logs, models, nearest

Documents = Mapping[str, Mapping[str, Any]]
MADE_FROM_ROW = "json"
"""The format that needs no file."""


def job(session: Session, row: models.Job) -> Job:
    return job_list(session, [row])[0]


def job_list(session: Session, rows: Sequence[models.Job]) -> list[Job]:
    """Jobs with their attempts and fronts, in a few queries for all."""
    ids = [row.id for row in rows]
    attempts, counts = jobs.attempts_of(session, ids), jobs.front_counts(session, ids)
    return [
        Job(
            id=row.id,
            name=row.name,
            status=row.status,  # type: ignore[arg-type]  # text in the table, checked here
            phase=row.phase,
            progress=row.progress,
            spec=JobSpec.model_validate(row.spec),
            created_at=row.created_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            reason=row.reason,
            waiting_for=None if row.status in jobs.ENDED else jobs.waiting_for(session, row),
            attempts=[Attempt.model_validate(attempt, from_attributes=True) for attempt in attempts[row.id]],
            front=FrontCounts(**counts[row.id]),
            infeasible=_infeasible(session, row, counts[row.id]["final"]),
            labels=row.labels,
        )
        for row in rows
    ]


def _infeasible(session: Session, row: models.Job, members: int) -> Infeasible | None:
    """Looked for only where a job came to its end without a network."""
    if row.status != "succeeded" or members:
        return None
    found = nearest.infeasible(session, row, "final")
    return None if found is None else Infeasible.model_validate(found)


def candidate_list(session: Session, rows: Sequence[models.Candidate]) -> list[Candidate]:
    """Candidates with their values and files, in three queries for all."""
    ids = [row.id for row in rows]
    searched, final = candidates.values(session, ids, "search"), candidates.values(session, ids, "final")
    files = candidates.artefacts_of(session, ids)
    return [
        Candidate(
            id=row.id,
            job=row.job_id,
            hash=row.hash,
            architecture=row.architecture,
            values=_values(verified(searched[row.id], final[row.id])),
            search_values=_values(searched[row.id]),
            test=TestResult(**row.test) if row.test else None,
            status=row.status,  # type: ignore[arg-type]
            failure=row.failure,
            artefacts=formats([file.format for file in files[row.id]]),
            created_at=row.created_at,
        )
        for row in rows
    ]


def verified(searched: Documents, final: Documents) -> Documents:
    """The values that count: what verification found, as far as it has got; before that what the search saw."""
    return final or searched


def formats(files: Sequence[str]) -> list[str]:
    return sorted({MADE_FROM_ROW, *files})


def _values(documents: Documents) -> dict[str, Value]:
    return {key: Value.model_validate(document) for key, document in sorted(documents.items())}


def event(row: models.Event) -> Event:
    return Event.model_validate(row, from_attributes=True)


def log_chunk(piece: logs.Piece) -> LogChunk:
    return LogChunk.model_validate(piece, from_attributes=True)


def worker(row: models.Worker, live: bool, entries: Sequence[CatalogEntry] = ()) -> WorkerInfo:
    """``entries``: those of the catalog; the worker's plug-ins are among them."""
    fields = {name: getattr(row, name) for name in WorkerInfo.model_fields if name not in ("live", "plugins")}
    plugins = [
        PluginInfo(name=entry.name, **entry.workers[row.name])
        for entry in entries
        if entry.kind == "plugin" and row.name in entry.workers
    ]
    return WorkerInfo(**fields, live=live, plugins=plugins)
