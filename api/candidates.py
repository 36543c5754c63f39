"""Candidates: everything a search tried, and the networks to take home."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api import examples, files, posting, transfer, views
from api.bodies import DocumentIfAny
from api.conditional import unchanged
from api.deps import CandidateId, JobId, NoQuery, Reading, Writing
from api.errors import Fault, ProblemError, refusal
from api.keys import CallerDep
from api.openapi import Responses, answers, document_body, problems
from nas_core.exports import KEPT, exports
from skyline.schemas import Candidate, CandidatePage, ExportState, Job, JobSpec, TransferSpec
from store import artefacts, candidates, jobs, retries, tasks
from store import exports as orders
from store.artefacts import WEIGHTS
from store.session import unit_of_work

router = APIRouter(prefix="/v1", tags=["results"])

FORMATS = (*exports, *KEPT)
"""What a network can be had as."""
RETRY_SECONDS = 1
"""Until a client should ask again for a file that is being made."""


class CandidateOrder(BaseModel):
    """Order and filter of candidates."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sort: Annotated[str, Field(max_length=100)] = "number"
    """`number` (order of arrival) or an objective's key; candidates without a value come last."""
    stage: Literal["search", "final"] = "search"
    """Whose values the order goes by: the search's or the verification's."""
    descending: bool = False
    status: Literal["proposed", "evaluated", "verified", "failed"] | None = None

    def check(self, keys: Sequence[str]) -> None:
        """Raises ProblemError (422) for an order by what is no objective of the job."""
        names = ["number", *keys]
        if self.sort not in names:
            expected = f"one of {', '.join(names)}"
            detail = f"cannot sort by '{self.sort}'; expected {expected}"
            raise refusal([Fault("Unknown objective", detail, "/query/sort", self.sort, expected)])


class CandidateQuery(CandidateOrder):
    """Order, filter and page of a list of candidates."""

    cursor: Annotated[str, Field(max_length=500)] | None = None
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ModelQuery(BaseModel):
    """What the network is wanted as."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format: Annotated[str, Field(max_length=50, description=", ".join(f"`{name}`" for name in FORMATS))] = "json"


@router.get(
    "/jobs/{job_id}/candidates",
    summary="Everything a job tried",
    responses={**answers(examples.CANDIDATES), **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def list_candidates(job_id: JobId, query: Annotated[CandidateQuery, Query()], session: Reading) -> CandidatePage:
    query.check(JobSpec.model_validate(jobs.get(session, job_id).spec).keys)
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
    dependencies=[NoQuery],
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


@router.post(
    "/candidates/{candidate_id}/verify",
    dependencies=[NoQuery],
    status_code=HTTPStatus.CREATED,
    summary="Verify a candidate anew: other data, width, depth or budget",
    openapi_extra=document_body(TransferSpec, examples.TRANSFER, required=False),
    responses={**posting.RESPONSES, **problems(HTTPStatus.NOT_FOUND)},
)
def verify_candidate(
    candidate_id: CandidateId,
    document: DocumentIfAny,
    response: Response,
    who: CallerDep,
    idempotency_key: posting.Named = None,
) -> Job:
    """A new job of the algorithm `given` with this candidate's genotype as its only seed: it is trained from scratch on
    the target that the body says, measured and tested, without a search before.

    What the body does not say is as in the candidate's own job, the target as the candidate itself; the reference point
    is set anew. Checked like a posted job: 422 names places in the body, and none where what the job was completed by
    does not fit. The new job has the label `verifies` with the candidate's id, unless `labels` are given.
    """
    request = {"candidate": str(candidate_id), "body": document}
    return posting.post(request, partial(transfer.prepare, candidate_id, document), response, who, idempotency_key)


_MODEL: Responses = {
    200: {
        "description": "The architecture as JSON, or a file of the network.",
        "headers": {
            "ETag": {"description": "The architecture's hash, or the file's SHA-256.", "schema": {"type": "string"}},
            "Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}},
        },
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": examples.ARCHITECTURE},
            **{
                exporter.media_type: {"schema": {"type": "string", "format": "binary"}}
                for exporter in exports.values()
                if exporter.needs_weights
            },
        },
    },
    202: {
        "description": "The file is being made; ask again after `Retry-After` seconds.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
        "model": ExportState,
        "content": {"application/json": {"example": examples.EXPORT}},
    },
    206: {"description": "The part of the file that `Range` asked for."},
    304: {"description": "The client has it (`If-None-Match`)."},
    416: problems(416)[416],
}


@router.get(
    "/candidates/{candidate_id}/model",
    summary="A network as a file",
    response_class=Response,
    responses={
        **_MODEL,
        **problems(
            HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.INSUFFICIENT_STORAGE
        ),
    },
)
def read_model(
    candidate_id: CandidateId,
    session: Reading,
    request: Request,
    query: Annotated[ModelQuery, Query()],
) -> Response:
    """`json` is the architecture of any candidate. The others are files of a verified one (else 409): `safetensors` is
    there from its verification, unless that was looked up in a table; the rest is made when it is first asked for,
    loaded again and compared with the network before it is offered. Until then the answer is 202.

    `masks` and `inherited` are files of any candidate whose search brought them (else 404): its weight masks, a tensor
    of booleans for each kernel that has one, and the weights that a verification may begin with; both are safetensors.

    `ETag` is the file's SHA-256. 409 with the reason where a file could not be made; asked again after a minute, it is
    tried once more. 507 where a file would have to be made, and artefacts take all the room that they may take.
    """
    candidate, format = candidates.get(session, candidate_id), query.format
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        detail = f"unknown format '{format}'; a network can be had as: {known}"
        raise refusal([Fault("Unknown format", detail, "/query/format", format, f"one of {known}")])
    if format in KEPT:
        return _kept(request, session, candidate_id, candidate.hash, format)
    exporter = exports[format]
    name = f"{candidate.hash[:12]}{exporter.suffix}"
    if not exporter.needs_weights:
        content = json.dumps(candidate.architecture).encode()
        return _conditional(request, f'"{candidate.hash}"', Response(content, media_type=exporter.media_type), name)
    stored = {file.format: file for file in candidates.artefacts_of(session, [candidate_id])[candidate_id]}
    spec = JobSpec.model_validate(jobs.get(session, candidate.job_id).spec) if WEIGHTS not in stored else None
    if spec is not None and spec.looked_up:
        detail = (
            f"the values of candidate {candidate_id} are looked up in a table and nothing was trained, so there are no "
            f"weights; it can be had as json, and POST /v1/candidates/{candidate_id}/verify trains it on a data set"
        )
        raise ProblemError(HTTPStatus.CONFLICT, "Not trained", detail)
    if WEIGHTS not in stored:
        detail = f"candidate {candidate_id} is {candidate.status}; only verified candidates have weights, others: json"
        raise ProblemError(HTTPStatus.CONFLICT, "Not verified", detail)
    file = stored.get(format)
    answer = files.answer(request, file, exporter.media_type) if file is not None else None
    if file is None or answer is None:
        size, expected = artefacts.files().size(stored[WEIGHTS].path), stored[WEIGHTS].bytes
        if size != expected:
            found = "is not" if size is None else f"is damaged ({size} of {expected} bytes), or not"
            found += " where the artefacts of this server lie any more"
            gone = f"the {WEIGHTS} file of candidate {candidate_id} {found}"
            raise ProblemError(HTTPStatus.NOT_FOUND, "File missing", gone)
        return _ordered(candidate_id, format)
    files.note_use(file)
    return _conditional(request, f'"{file.sha256}"', answer, name)


def _kept(request: Request, session: Session, candidate_id: UUID, hash: str, format: str) -> Response:
    """A file that the candidate brought from its search, or 404."""
    kept = KEPT[format]
    stored = {file.format: file for file in candidates.artefacts_of(session, [candidate_id])[candidate_id]}
    if format not in stored:
        detail = f"candidate {candidate_id} has no {kept.what}: its search brought none"
        raise ProblemError(HTTPStatus.NOT_FOUND, "No such file", detail)
    file = stored[format]
    answer = files.answer(request, file, kept.media_type)
    if answer is None:
        detail = f"the {format} file of candidate {candidate_id} is not where the artefacts of this server lie any more"
        raise ProblemError(HTTPStatus.NOT_FOUND, "File missing", detail)
    return _conditional(request, f'"{file.sha256}"', answer, f"{hash[:12]}{kept.suffix}")


def _ordered(candidate_id: UUID, format: str) -> Response:
    """202 while a file is made, 409 when that failed."""
    with unit_of_work() as session:
        task = orders.order(session, candidates.get(session, candidate_id), format)
        if task.status != "failed":
            lacks = orders.waiting_for(session) if task.status == "queued" else None
            state = ExportState(format=format, status=task.status, task=task.id, waiting_for=lacks)  # type: ignore[arg-type]
            headers = {"Retry-After": str(RETRY_SECONDS)}
            return JSONResponse(state.model_dump(mode="json"), HTTPStatus.ACCEPTED, headers)
        why = tasks.why_failed(session, task)
    raise ProblemError(HTTPStatus.CONFLICT, "Export failed", f"{why}\nasked again in a minute, it is tried once more")


def _conditional(request: Request, tag: str, response: Response, name: str) -> Response:
    if unchanged(request, tag):
        response = Response(status_code=HTTPStatus.NOT_MODIFIED)
    else:
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["ETag"] = tag
    return response
