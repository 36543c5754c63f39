"""Artefact files as answers: whole or in part, from a folder or from a store of objects."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain

from fastapi import Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from api.conditional import unchanged
from api.errors import ProblemError
from store import artefacts, quota
from store.errors import MissingArtefactError
from store.models import Artefact
from store.session import unit_of_work

RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)

log = logging.getLogger(__name__)


def answer(request: Request, file: Artefact, media_type: str) -> Response | None:
    """The file, or the part that ``Range`` asks for; None when it is not there any more.

    Raises ProblemError (416) for a part that lies outside, ArtefactsAwayError.
    """
    headers = {"ETag": f'"{file.sha256}"'}
    if unchanged(request, headers["ETag"]):
        return Response()  # whose content nobody will see
    place = artefacts.files()
    local = place.locate(file.path)
    if local is not None:
        return FileResponse(local, media_type=media_type, headers=headers)
    part = wanted(request, file.bytes, headers["ETag"])
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


def wanted(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """What ``Range`` (RFC 9110, section 14) asks for, as (start, stop); None for everything.

    A header that is malformed, names several parts or is for another file (``If-Range``) asks for everything. Raises
    ProblemError (416) for a part that lies outside.
    """
    found = RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or found.groups() == ("", "") or request.headers.get("if-range", tag) != tag:
        return None
    first, last = (int(text) if text else None for text in found.groups())
    if first is not None and last is not None and last < first:
        return None  # malformed
    if first is None:
        start, stop = max(0, size - (last or 0)), size
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    if start >= stop:
        detail = f"the file has {size} bytes; '{found[0][:100]}' asks for none of them"
        outside = {"Content-Range": f"bytes */{size}"}
        raise ProblemError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Range", detail, headers=outside)
    return start, stop


def note_use(file: Artefact) -> None:
    """An export that is used stays; now and then this is a write."""
    if not quota.unnoted(file, datetime.now(UTC)):
        return
    try:
        with unit_of_work() as session:
            quota.note_use(session, file.id)
    except SQLAlchemyError as error:  # a note, no reason to refuse
        log.warning("the use of a file is not noted: %s", type(error).__name__)
