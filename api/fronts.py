"""A job's Pareto front, read as it is stored: a thousand members are put together from text, unparsed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from sqlalchemy.orm import Session

from api import examples, views
from api.conditional import unchanged
from api.deps import JobId, Reading
from api.errors import Fault, ProblemError, refusal
from api.openapi import answers, problems
from nas_core.objectives import objectives
from skyline.schemas import Front, FrontObjective, JobSpec, ObjectiveSpec
from skyline.schemas.answers import FrontKind
from store import catalog, cursors, fronts, jobs, members, nearest
from store.errors import InvalidCursorError

router = APIRouter(prefix="/v1/jobs", tags=["results"])


class FrontQuery(BaseModel):
    """Which front, and which of its members; also `max.<key>` and `min.<key>`, in the objective's unit."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    kind: FrontKind = "final"
    """`final`: verified networks. `search`: what the search saw, supernet or briefly trained errors."""
    version: Annotated[int, Field(ge=0, le=2**31)] | None = None
    """An older version; default: the newest."""
    cursor: Annotated[str, Field(max_length=500)] | None = None
    """`next` of the page before; stays with that page's version."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


_BOUNDS = [
    {
        "name": f"{side}.params",
        "in": "query",
        "required": False,
        "schema": {"type": "number"},
        "description": f"`{side}.<key>`: {word} an objective may have; any key of the job's objectives.",
    }
    for side, word in (("max", "the most"), ("min", "the least"))
]


@router.get(
    "/{job_id}/front",
    summary="The Pareto front",
    response_model=Front,
    openapi_extra={"parameters": _BOUNDS},
    responses={
        **answers(examples.FRONT),
        304: {"description": "The client has it (`If-None-Match`)."},
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def read_front(job_id: JobId, query: Annotated[FrontQuery, Query()], session: Reading, request: Request) -> Response:
    """Members in order of arrival, with all values and where they come from.

    `kind` is `final` by default, also while it is empty: the two fronts hold errors that do not compare, so none
    stands in for the other. A front never mixes fidelities: in the search front `values` are those of the search.
    The `ETag` changes with membership and status, not with a member's `status` or `artefacts`. When the job's
    bounds leave the front empty, `infeasible` says which candidates come nearest, what they have, and by how much which
    bound would have to move.
    """
    job = jobs.get(session, job_id)
    spec = JobSpec.model_validate(job.spec)
    asked = _bounds(query, spec)
    front = fronts.state(session, job_id, query.kind)
    newest = front.version if front is not None else 0
    version, after = _position(query, newest)
    # an empty front of a job with bounds tells of the nearest candidates, which change with what was tried
    unmet = bool(spec.constraints) and version == newest and (front is None or front.size == 0)
    tag = f'W/"{query.kind}.{version}.{job.status}{f".{job.last_seq}" if unmet else ""}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if unchanged(request, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    found: list[members.Member] = []
    if front is not None and version > 0:
        found = members.page(session, front, version=version, bounds=asked, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    following = cursors.pack(version, shown[-1].number) if len(found) > query.limit else None
    current = front is not None and version == newest
    head = {
        "job": str(job_id),
        "kind": query.kind,
        "version": version,
        "objectives": _objectives(session, spec, query.kind, shown),
        "reference_point": job.reference_point,
        "hypervolume": front.hypervolume if front is not None and current else None,
        "knee": str(front.knee) if front is not None and current and front.knee else None,
        "next": following,
        "infeasible": nearest.infeasible(session, job, query.kind) if unmet else None,
    }
    formats = {files: _formats(files) for files in {member.formats for member in shown}}
    listed = ",".join(_member(member, job_id, query.kind, formats[member.formats]) for member in shown)
    content = f'{json.dumps(head)[:-1]},"members":[{listed}]}}'
    return Response(content, media_type="application/json", headers=headers)


def _position(query: FrontQuery, newest: int) -> tuple[int, int]:
    """(version, number of the last candidate seen)."""
    version, after = query.version, 0
    if query.cursor is not None:
        at, after = cursors.unpack(query.cursor, 2)
        if not (cursors.is_number(at) and cursors.is_number(after)) or version not in (None, at):
            raise InvalidCursorError(query.cursor)
        version = at
    if version is None:
        return newest, after
    if version > newest:
        detail = f"the {query.kind} front has no version {version}; the newest is {newest}"
        raise ProblemError(HTTPStatus.NOT_FOUND, "Not found", detail)
    return version, after


# --- bounds -----------------------------------------------------------------------------------------------------------


def _bounds(query: FrontQuery, spec: JobSpec) -> dict[str, members.Limits]:
    """``max.latency_ms=5``; raises ProblemError (422) for anything else."""
    sides: dict[str, dict[str, float]] = {}
    faults = []
    for name, text in (query.model_extra or {}).items():
        side, _, key = name.partition(".")
        number = _number(text)
        if side not in ("max", "min") or not key:
            known = "kind, version, cursor, limit, max.<objective>, min.<objective>"
            detail = f"unknown parameter '{name:.100}'; known: {known}"
            faults.append(Fault("Unknown parameter", detail, f"/query/{name}", text, f"one of {known}"))
        elif key not in spec.keys:
            detail = f"'{name:.100}' bounds no objective of this job; its objectives: {', '.join(spec.keys)}"
            expected = f"one of {', '.join(f'{side}.{key}' for key in spec.keys)}"
            faults.append(Fault("Unknown objective", detail, f"/query/{name}", text, expected))
        elif number is None:
            detail = f"{name}: got '{text!s:.100}'; expected a number"
            faults.append(Fault("Invalid parameter", detail, f"/query/{name}", text, "a number"))
        else:
            sides.setdefault(key, {})[side] = number
    if faults:
        raise refusal(faults, "Invalid parameters")
    return {key: members.Limits(query.kind, **limits) for key, limits in sides.items()}


def _number(text: object) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# --- answers ----------------------------------------------------------------------------------------------------------


def _objectives(
    session: Session, spec: JobSpec, kind: FrontKind, shown: Sequence[members.Member]
) -> list[dict[str, Any]]:
    first: dict[str, Any] = json.loads((_shown(shown[0], kind) if shown else None) or "{}")
    listed = []
    for objective in spec.objectives:
        key = objective.effective_key
        unit, direction = _described(session, objective)
        seen = first.get(key, {}).get("kind")
        listed.append(FrontObjective(key=key, unit=unit, direction=direction, kind=seen).model_dump())
    return listed


def _described(session: Session, objective: ObjectiveSpec) -> tuple[str, Any]:
    """(unit, direction): our own are known here, those of plug-ins by the catalog, of tables as they were noted."""
    if objective.from_table:
        return objective.settings["unit"], objective.settings["direction"]
    known = objectives.get(objective.name)
    if known is not None:
        return known.unit, known.direction
    for entry in catalog.entries(session, "objective"):
        if entry["name"] == objective.name:
            return entry["facts"].get("unit", ""), entry["facts"].get("direction", "minimize")
    return "", "minimize"


def _member(member: members.Member, job_id: object, kind: FrontKind, formats: str) -> str:
    """A Candidate as JSON; what is text in the database goes as it is."""
    searched = member.searched
    failure = "null" if member.failure is None else json.dumps(member.failure)
    return (
        f'{{"id":"{member.id}","job":"{job_id}","hash":"{member.hash}","architecture":{member.architecture}'
        f',"values":{_shown(member, kind) or searched},"search_values":{searched}'
        f',"test":{member.test or "null"},"status":"{member.status}","failure":{failure}'
        f',"artefacts":{formats},"created_at":{to_json(member.created_at).decode()}}}'
    )


def _shown(member: members.Member, kind: FrontKind) -> str | None:
    """The values that the front goes by."""
    return member.searched if kind == "search" else member.verified


def _formats(files: str | None) -> str:
    return json.dumps(views.formats(files.split(",") if files else []))
