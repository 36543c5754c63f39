"""All candidates of a job as one table (CSV): in chunks, some hundreds of them in memory at a time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api import examples, views
from api.candidates import CandidateOrder
from api.deps import JobId
from api.openapi import problems
from skyline.schemas import JobSpec
from store import candidates, jobs, models
from store.session import reading

router = APIRouter(prefix="/v1", tags=["results"])

TEXT = "text/csv"
CHUNK = 500
"""Candidates in memory, and in one transaction."""
BEFORE = ("number", "id", "hash", "status", "stage", "target", "cells", "channels", "stem")
AFTER = ("test_error", "test_sd", "nonzero", "failure", "genotype")
FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What spreadsheets take for the beginning of a formula."""
WHOLE = 2.0**53
"""Below this a whole number is exact."""


@router.get(
    "/jobs/{job_id}/candidates.csv",
    summary="Everything a job tried, as CSV",
    response_class=StreamingResponse,
    responses={
        200: {"content": {TEXT: {"schema": {"type": "string"}, "example": examples.TABLE}}},
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def read_table(job_id: JobId, query: Annotated[CandidateOrder, Query()]) -> StreamingResponse:
    """A header, then a row for each candidate, in the order and with the filter of the JSON list, without pages.

    Columns: `number`, `id`, `hash`, `status`; `stage`, `final` where `values` are verified ones, else `search`;
    `target` (its index), `cells`, `channels`, `stem`; for each objective, in the job's order, `KEY` in its unit,
    `KEY.kind` and `KEY.search`, which is what the search saw; `test_error`, `test_sd`; `nonzero`, the parameters that
    weight masks leave, where a candidate has masks and parameters are an objective; `failure`, `genotype` (JSON).
    Empty: not known. Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    with reading() as session:
        keys = JobSpec.model_validate(jobs.get(session, job_id).spec).keys  # 404 before an answer begins
    query.check(keys)
    headers = {"Content-Disposition": f'attachment; filename="candidates-{str(job_id)[:8]}.csv"'}
    return StreamingResponse(_chunks(job_id, query, keys), media_type=f"{TEXT}; header=present", headers=headers)


def _chunks(job_id: UUID, query: CandidateOrder, keys: Sequence[str]) -> Iterator[str]:
    named = [name for key in keys for name in (key, f"{key}.kind", f"{key}.search")]
    yield _written([[*BEFORE, *map(_text, named), *AFTER]])
    cursor: str | None = None
    while True:
        with reading() as session:
            found, cursor = candidates.page(session, job_id, **query.model_dump(), cursor=cursor, limit=CHUNK)
            rows = _rows(session, found, keys)
        if rows:
            yield _written(rows)
        if cursor is None:
            return


def _rows(session: Session, found: Sequence[models.Candidate], keys: Sequence[str]) -> list[list[str]]:
    ids = [candidate.id for candidate in found]
    searched, final = candidates.values(session, ids, "search"), candidates.values(session, ids, "final")
    return [_row(candidate, searched[candidate.id], final[candidate.id], keys) for candidate in found]


def _row(
    candidate: models.Candidate, searched: views.Documents, final: views.Documents, keys: Sequence[str]
) -> list[str]:
    counted = views.verified(searched, final)
    skeleton = candidate.architecture.get("skeleton", {})
    test = candidate.test or {}
    nonzero = [value["nonzero"] for value in counted.values() if "nonzero" in value]
    values = [
        cell
        for key in keys
        for cell in (_number(counted.get(key)), counted.get(key, {}).get("kind", ""), _number(searched.get(key)))
    ]
    return [
        str(candidate.number),
        str(candidate.id),
        candidate.hash,
        candidate.status,
        "final" if final else "search" if searched else "",
        str(candidate.target),
        str(len(skeleton.get("cells", []))),
        str(skeleton.get("channels", "")),
        _text(skeleton.get("stem", "")),
        *values,
        *("" if test.get(name) is None else repr(test[name]) for name in ("error", "sd")),
        str(nonzero[0]) if nonzero else "",
        _text(candidate.failure or ""),
        json.dumps(candidate.architecture.get("genotype"), separators=(",", ":")),
    ]


def _number(value: Mapping[str, Any] | None) -> str:
    """With all its digits; what was counted without a point."""
    if value is None:
        return ""
    number = float(value["value"])
    counted = value.get("kind") == "exact" and number.is_integer() and abs(number) < WHOLE
    return str(int(number)) if counted else repr(number)


def _text(text: str) -> str:
    return f"'{text}" if text.lstrip().startswith(FORMULAS) else text


def _written(rows: Sequence[Sequence[str]]) -> str:
    """As RFC 4180 says."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
