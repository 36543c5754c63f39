"""Artefact files as answers: whole or in part, from a folder or from a store of objects."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain

from fastapi import Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers

from api.conditional import RANGE, settle_range, unchanged
from store import artefacts, quota
from store.errors import MissingArtefactError
from store.models import Artefact
from store.session import unit_of_work

log = logging.getLogger(__name__)


def answer(request: Request, file: Artefact, media_type: str) -> Response | None:
    """The file, or the part that ``Range`` asks for; None when it is not there any more, or not whole.

    Raises ProblemError (416) for a part that lies outside, ArtefactsAwayError.
    """
    headers = {"ETag": f'"{file.sha256}"'}
    if unchanged(request, headers["ETag"]):
        return Response()  # whose content nobody will see
    place = artefacts.files()
    if place.size(file.path) != file.bytes:
        return None
    local = place.locate(file.path)
    settle_range(request, headers["ETag"], file.bytes)
    if local is not None:
        return FileResponse(local, media_type=media_type, headers=headers)
    part = part_of(request, file.bytes)
    start, stop = part or (0, file.bytes)
    pieces = place.read(file.path, start, stop)
    try:
        first = next(pieces, b"")  # before the answer begins: whatever is wrong shows here
    except MissingArtefactError:
        return None
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
    status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
    return StreamingResponse(chain((first,), pieces), status, headers, media_type)


def part_of(request: Request, size: int) -> tuple[int, int] | None:
    """What a settled ``Range`` asks for, as (start, stop); None for everything."""
    found = RANGE.fullmatch(Headers(scope=request.scope).get("range", ""))  # request.headers is as it came
    if found is None:
        return None
    first, last, last_ones = (int(text) if text else None for text in found.groups())
    if first is None:
        return max(0, size - (last_ones or 0)), size
    return first, size if last is None else min(last + 1, size)


def note_use(file: Artefact) -> None:
    """An export that is used stays; now and then this is a write."""
    if not quota.unnoted(file, datetime.now(UTC)):
        return
    try:
        with unit_of_work() as session:
            quota.note_use(session, file.id)
    except SQLAlchemyError as error:  # a note, no reason to refuse
        log.warning("the use of a file is not noted: %s", type(error).__name__)
