"""Tables that a job's objectives are looked up in, and what becomes of a search that needs no verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from nas_core.architecture import Architecture, skeleton_from_json
from nas_core.pareto import non_dominated
from nas_core.search import Axes
from nas_core.tables import Column, Table
from nas_core.valuing import settled_value
from skyline.schemas import JobSpec
from skyline.schemas.jobs import QUALITIES
from store import candidates, events, tables
from store.session import reading
from store.settings import settings
from worker.recorder import numbers

Tables = Mapping[str, Table]
"""By name."""


def tables_of(spec: JobSpec) -> Tables:
    """Raises TableGoneError where one is not there any more, or another than the job was posted for."""
    document = _document(spec)
    if not tables.wanted(document):
        return {}
    with reading(settings().outage_seconds) as session:
        rows = tables.read(session, document)
        return {
            row.name: Table(
                row.name,
                row.sha256,
                skeleton_from_json(row.skeleton),
                {
                    column["name"]: Column(column["unit"], column["direction"], *row.ends[column["name"]])
                    for column in row.columns
                },
                row.hashes,
                row.numbers,
            )
            for row in rows
        }


def gaps(session: Session, spec: JobSpec) -> list[str]:
    """Of each table of the job that lacks rows, in words: how many it has, and what evaluates just those.

    Raises TableGoneError.
    """
    return [
        f"table '{row.name}' has a row for {row.rows} of the {row.rows + row.missing} architectures of its space; "
        "algorithm 'given' with those as seed_genotypes evaluates just them"
        for row in tables.read(session, _document(spec))
        if row.missing
    ]


def _document(spec: JobSpec) -> dict[str, Any]:
    return {"objectives": [objective.model_dump() for objective in spec.objectives]}


def front_of(rows: Sequence[candidates.Row], axes: Axes) -> list[candidates.Row]:
    """Those that hold all bounds and that none of the same target dominates."""
    feasible = [row for row in rows if axes.violation(numbers(row.values)) <= 0]
    members: list[candidates.Row] = []
    for target in sorted({row.target for row in feasible}):
        group = [row for row in feasible if row.target == target]
        keep = non_dominated([axes.costs_of(numbers(row.values)) for row in group])
        members += [row for row, stays in zip(group, keep, strict=True) if stays]
    return members


def settle(session: Session, job_id: UUID, axes: Axes, chosen: Sequence[candidates.Row]) -> None:
    """Gives the chosen their final values, as far as these are known without training and measuring."""
    told: list[tuple[str, dict[str, Any]]] = []
    for row in chosen:
        values = {
            key: value.to_json()
            for key, objective in axes.objectives.items()
            if (value := settled_value(key, objective, Architecture.from_json(row.architecture))) is not None
        }
        if candidates.set_final(session, row.candidate_id, values):
            found = {"id": str(row.candidate_id), "hash": row.hash, "stage": "final", "failure": None}
            told.append(("candidate", {**found, "values": numbers(values)}))
    events.append(session, job_id, told)


def test_of(spec: JobSpec, held: Tables, architecture: Architecture) -> dict[str, Any] | None:
    """What a table says of a network on test images; None where the job names no column for that."""
    for objective in spec.objectives:
        column = objective.settings.get("test") if objective.from_table else None
        if objective.name in QUALITIES and column is not None:
            table = held[objective.settings["table"]]
            number = table.number(column, architecture)
            return {"error": table.columns[column].share("error", number), "sd": None, "n": None}
    return None
