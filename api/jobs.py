"""Jobs: post, list, read, stop, retry, delete. Nothing but the wire."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import anyio
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api import examples, origins, posting, views
from api.bodies import Document
from api.catalog import known
from api.deps import JobId, NoQuery, Reading, Text, Writing
from api.estimates import estimate
from api.keys import CallerDep
from api.live import LOOK_SECONDS, look
from api.openapi import answers, document_body, problems
from api.validation import TITLE, accept
from skyline.schemas import Estimate, Job, JobPage, JobSpec
from skyline.schemas.answers import ENDED, JobStatus
from store import jobs, loose, retries
from store.session import reading, unit_of_work

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class PostQuery(BaseModel):
    """How a job is posted."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    dry_run: bool = False
    """Only check the job and answer what it would be: an `Estimate`. Nothing is stored; an `Idempotency-Key` that comes
    with it stays free."""


class JobQuery(BaseModel):
    """Filters and page of a list of jobs."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    status: JobStatus | None = None
    name: Annotated[Text, Field(max_length=200)] | None = None
    """The whole name."""
    label: Annotated[Text, Field(max_length=400)] | None = None
    """`key=value`, or `key` alone."""
    cursor: Annotated[str, Field(max_length=500)] | None = None
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class WaitQuery(BaseModel):
    """How long to hold the answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    wait: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0
    """Seconds to hold the answer until the job moves on."""


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Post a search job, or only check it",
    response_model=Job,
    openapi_extra=document_body(JobSpec, examples.SPEC),
    responses={
        **posting.RESPONSES,
        200: {
            **answers(examples.ESTIMATE)[200],
            "model": Estimate | Job,
            "description": "With `dry_run`: what the job would be. Else this request came before: its job now.",
        },
    },
)
def create_job(
    document: Document,
    query: Annotated[PostQuery, Query()],
    response: Response,
    who: CallerDep,
    idempotency_key: posting.Named = None,
) -> Job | Response:
    """Checks the job against the catalog (names, settings, seeds, data, exact floors and ceilings) and queues it.

    422 lists faults with what came and what would do; how settings fit each other is looked at once each is right. 503
    while no worker has ever registered. 409 when an `Idempotency-Key` comes again with another body, or when the API
    key has as many jobs under way as it may have. 507 while artefacts take all the room that they may take.

    With `from` it goes on from the search of another job, with `preset` it takes settings by name: see `JobSpec`.

    `dry_run` checks the same and then says what the job would cost; no job comes of it and none is counted.
    """
    if query.dry_run:
        return _estimated(document)
    return posting.post(document, partial(_prepare, document), response, who, idempotency_key)


def _prepare(document: Document, session: Session) -> Callable[[], posting.Spec]:
    catalog, origin = known(session), origins.find(session, document, TITLE)
    return lambda: accept(document, catalog, origin).stored


def _estimated(document: Document) -> Response:
    """The answer to a job that is not to be posted."""
    with reading() as session:
        catalog, origin = known(session), origins.find(session, document, TITLE)
    accepted = accept(document, catalog, origin)
    with reading() as session:
        workers, waiting_for = jobs.takers(session, accepted.stored)
    return Response(estimate(accepted, workers, waiting_for).model_dump_json(), media_type="application/json")


@router.get(
    "",
    summary="List jobs, newest first",
    responses={**answers(examples.JOBS), **problems(HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def list_jobs(query: Annotated[JobQuery, Query()], session: Reading) -> JobPage:
    rows, following = jobs.page(session, **query.model_dump())
    return JobPage(items=views.job_list(session, rows), next=following)


@router.get(
    "/{job_id}",
    summary="One job",
    responses={**answers(examples.JOB), **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)},
)
async def read_job(job_id: JobId, query: Annotated[WaitQuery, Query()]) -> Job:
    """Progress, phase, attempts and what it waits for.

    With `wait` the answer comes when status or phase have changed, at once for a job that has ended.
    """
    before = await look(partial(_stage, job_id))
    with anyio.move_on_after(query.wait):
        while query.wait and before[0] not in ENDED and await look(partial(_stage, job_id)) == before:
            await anyio.sleep(LOOK_SECONDS)
    return await look(partial(_job, job_id))


def _stage(job_id: UUID) -> tuple[str, str]:
    with reading() as session:
        row = jobs.get(session, job_id)
        return row.status, row.phase


def _job(job_id: UUID) -> Job:
    with reading() as session:
        return views.job(session, jobs.get(session, job_id))


@router.post(
    "/{job_id}/cancel",
    dependencies=[NoQuery],
    summary="Stop a job",
    responses={
        **answers({**examples.JOB, "status": "cancelling", "phase": "cancelling"}),
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def cancel_job(job_id: JobId, session: Writing) -> Job:
    """A queued job ends at once, a running one within seconds (`cancelling`); what was found is kept.

    Asking again changes nothing. 409 when it has ended.
    """
    return views.job(session, jobs.request_cancel(session, job_id))


@router.post(
    "/{job_id}/retry",
    dependencies=[NoQuery],
    summary="Go on with a job that failed or was cancelled",
    responses={
        **answers({**examples.JOB, "status": "verifying", "phase": "verifying"}),
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def retry_job(job_id: JobId, session: Writing) -> Job:
    """What failed or was cancelled of it is queued again, with all its attempts; what was found is kept.

    A search goes on from its checkpoint where there is one, verifications that worked are not repeated. 409 for a job
    that runs or has succeeded.
    """
    return views.job(session, retries.retry_job(session, job_id))


@router.delete(
    "/{job_id}",
    dependencies=[NoQuery],
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete an ended job",
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def delete_job(job_id: JobId) -> None:
    """Removes the job with its candidates, events and files. 409 unless it has ended, and while the search of a job
    under way goes on from it.
    """
    with unit_of_work() as session:
        paths = jobs.delete(session, job_id)
    loose.discard(paths)  # after the commit: a row without its file would be worse than a file without its row
