"""Jobs: post, list, read, stop, retry, delete. Nothing but the wire."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import anyio
from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api import examples, files, views
from api.bodies import Document
from api.catalog import known
from api.deps import JobId, Reading, Text, Writing
from api.keys import CallerDep
from api.live import LOOK_SECONDS, look
from api.openapi import answers, job_body, problems
from api.validation import accept
from skyline.schemas import Job, JobPage
from skyline.schemas.answers import ENDED, JobStatus
from store import idempotency, jobs, retries
from store.session import reading, unit_of_work

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


NAMED = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A name for this request, unique for your API key: sent again within 24 h it makes no second job.",
    ),
]


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
    summary="Post a search job",
    openapi_extra=job_body(examples.SPEC),
    responses={
        **answers(examples.JOB, HTTPStatus.CREATED),
        200: {
            **answers(examples.JOB)[200],
            "model": Job,
            "description": "This request came before: its job, as it is now.",
        },
        **problems(
            HTTPStatus.CONFLICT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    },
)
def create_job(document: Document, response: Response, who: CallerDep, idempotency_key: NAMED = None) -> Job:
    """Checks the job against the catalog (names, settings, data, exact floors and ceilings) and queues it.

    422 lists every fault with what came and what would do. 503 while no worker has ever registered. 409 when an
    `Idempotency-Key` comes again with another body, or when the API key has as many jobs under way as it may have.
    """
    owner = None if who is None else who.id
    digest = idempotency.digest(document)
    with reading() as session:  # counting networks takes a while, and a writer makes the others wait
        if idempotency_key is not None:
            there = idempotency.find(session, owner, idempotency_key, digest)
            if there is not None:
                return _again(session, there, response)
        catalog = known(session)
    spec = accept(document, catalog)
    with unit_of_work() as session:
        if idempotency_key is not None:
            there = idempotency.reserve(session, owner, idempotency_key, digest)
            if there is not None:
                return _again(session, there, response)
        row = jobs.create(session, spec, spec["name"], spec["labels"], owner)
        if idempotency_key is not None:
            idempotency.keep(session, owner, idempotency_key, row.id)
        created = views.job(session, row)
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    return created


def _again(session: Session, job_id: UUID, response: Response) -> Job:
    """The answer to a request that came before."""
    response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return views.job(session, jobs.get(session, job_id))


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
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete an ended job",
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def delete_job(job_id: JobId) -> None:
    """Removes the job with its candidates, events and files. 409 unless it has ended."""
    with unit_of_work() as session:
        paths = jobs.delete(session, job_id)
    files.remove(paths)  # after the commit: a row without its file would be worse than a file without its row
