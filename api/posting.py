"""How a request becomes a job: checked, stored once under its Idempotency-Key, answered with where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Response
from sqlalchemy.orm import Session

from api import examples, views
from api.keys import Caller
from api.openapi import Responses, answers, problems
from skyline.schemas import Job
from store import idempotency, jobs
from store.session import reading, unit_of_work

Named = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A name for this request, unique for your API key: sent again within 24 h it makes no second job.",
    ),
]
RESPONSES: Responses = {
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
        HTTPStatus.INSUFFICIENT_STORAGE,
    ),
}
Spec = dict[str, Any]
"""A job as it is stored."""


def post(
    request: Mapping[str, Any],
    prepare: Callable[[Session], Callable[[], Spec]],
    response: Response,
    who: Caller | None,
    name: str | None,
) -> Job:
    """Makes a job, or finds the one that the same ``request`` made under the same ``name``.

    ``prepare`` reads what has to be known, and returns what makes the spec of it without the database: counting
    networks takes a while, and a transaction makes others wait. Either may raise ProblemError.
    """
    owner = None if who is None else who.id
    digest = idempotency.digest(request)
    with reading() as session:
        if name is not None:
            there = idempotency.find(session, owner, name, digest)
            if there is not None:
                return _again(session, there, response)
        accepted = prepare(session)
    spec = accepted()
    with unit_of_work() as session:
        if name is not None:
            there = idempotency.reserve(session, owner, name, digest)
            if there is not None:
                return _again(session, there, response)
        row = jobs.create(session, spec, spec["name"], spec["labels"], owner)
        if name is not None:
            idempotency.keep(session, owner, name, row.id)
        created = views.job(session, row)
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    return created


def _again(session: Session, job_id: UUID, response: Response) -> Job:
    """The answer to a request that came before."""
    response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return views.job(session, jobs.get(session, job_id))
