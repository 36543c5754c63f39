"""Candidates: everything a search tried, and the networks to take home."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from api import examples, files, views
from api.conditional import unchanged
from api.deps import CandidateId, JobId, Reading, Writing
from api.errors import Fault, ProblemError, refusal
from api.openapi import Responses, answers, problems
from skyline.schemas import Candidate, CandidatePage, JobSpec
from store import candidates, jobs, retries

router = APIRouter(prefix="/v1", tags=["results"])

MEDIA = {"json": "application/json", "safetensors": "application/octet-stream"}
"""Formats a network can be had in, and their media types."""


class CandidateQuery(BaseModel):
    """Order, filter and page of a list of candidates."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sort: Annotated[str, Field(max_length=100)] = "number"
    """`number` (order of arrival) or an objective's key; candidates without a value come last."""
    stage: Literal["search", "final"] = "search"
    """Whose values the order goes by: the search's or the verification's."""
    descending: bool = False
    status: Literal["proposed", "evaluated", "verified", "failed"] | None = None
    cursor: Annotated[str, Field(max_length=500)] | None = None
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@router.get(
    "/jobs/{job_id}/candidates",
    summary="Everything a job tried",
    responses={**answers(examples.CANDIDATES), **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def list_candidates(job_id: JobId, query: Annotated[CandidateQuery, Query()], session: Reading) -> CandidatePage:
    keys = ["number", *JobSpec.model_validate(jobs.get(session, job_id).spec).keys]
    if query.sort not in keys:
        expected = f"one of {', '.join(keys)}"
        detail = f"cannot sort by '{query.sort}'; expected {expected}"
        raise refusal([Fault("Unknown objective", detail, "/query/sort", query.sort, expected)])
    rows, following = candidates.page(session, job_id, **query.model_dump())
    return CandidatePage(items=views.candidate_list(session, rows), next=following)


@router.get(
    "/candidates/{candidate_id}",
    summary="One candidate with its architecture",
    responses={**answers(examples.CANDIDATE), **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def read_candidate(candidate_id: CandidateId, session: Reading) -> Candidate:
    """`values` are the verified ones where there are any; `search_values` are what the search saw."""
    return views.candidate_list(session, [candidates.get(session, candidate_id)])[0]


@router.post(
    "/candidates/{candidate_id}/retry",
    summary="Verify a candidate again whose verification failed",
    responses={
        **answers({**examples.CANDIDATE, "status": "evaluated", "values": {}, "test": None, "artefacts": ["json"]}),
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def retry_candidate(candidate_id: CandidateId, session: Writing) -> Candidate:
    """Its job goes back to `verifying`, and concludes once more: the final front is drawn anew. Values and test errors
    of the others stay as they are.

    409 where the verification has not failed, or while the job is being concluded.
    """
    return views.candidate_list(session, [retries.retry_candidate(session, candidate_id)])[0]


_MODEL: Responses = {
    200: {
        "description": "The architecture as JSON, or the weights as a safetensors file.",
        "headers": {
            "ETag": {"description": "The architecture's hash, or the file's SHA-256.", "schema": {"type": "string"}},
            "Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}},
        },
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": examples.ARCHITECTURE},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    206: {"description": "The part of the file that `Range` asked for."},
    304: {"description": "The client has it (`If-None-Match`)."},
    416: {"description": "`Range` lies outside the file."},
}


@router.get(
    "/candidates/{candidate_id}/model",
    summary="A network as a file",
    response_class=Response,
    responses={
        **_MODEL,
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def read_model(
    candidate_id: CandidateId,
    session: Reading,
    request: Request,
    format: Annotated[str, Query(max_length=50, description="`json` or `safetensors`.")] = "json",
) -> Response:
    """`json` is the architecture of any candidate; `safetensors` are the trained weights of a verified one (else 409).

    `ETag` is the file's SHA-256.
    """
    candidate = candidates.get(session, candidate_id)
    stored = {file.format: file for file in candidates.artefacts_of(session, [candidate_id])[candidate_id]}
    if format not in MEDIA:
        there = ", ".join(views.formats(list(stored)))
        detail = f"unknown format '{format}'; this candidate can be had as: {there}"
        raise refusal([Fault("Unknown format", detail, "/query/format", format, f"one of {', '.join(MEDIA)}")])
    name = f"{candidate.hash[:12]}.{format}"
    if format == "json":
        content = json.dumps(candidate.architecture).encode()
        return _conditional(request, f'"{candidate.hash}"', Response(content, media_type=MEDIA[format]), name)
    file = stored.get(format)
    if file is None:
        detail = f"candidate {candidate_id} is {candidate.status}; only verified candidates have weights, others: json"
        raise ProblemError(HTTPStatus.CONFLICT, "Not verified", detail)
    path = files.locate(file.path)
    if path is None:
        detail = f"the {format} file of candidate {candidate_id} is not in the artefact folder of this server any more"
        raise ProblemError(HTTPStatus.NOT_FOUND, "File missing", detail)
    tag = f'"{file.sha256}"'
    return _conditional(request, tag, FileResponse(path, media_type=MEDIA[format], headers={"ETag": tag}), name)


def _conditional(request: Request, tag: str, response: Response, name: str) -> Response:
    if unchanged(request, tag):
        response = Response(status_code=HTTPStatus.NOT_MODIFIED)
    else:
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["ETag"] = tag
    return response
