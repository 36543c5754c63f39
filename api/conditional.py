"""Requests for less than the whole (RFC 9110, sections 13 and 14): an answer that the client has, a part of a file."""

from __future__ import annotations

import re
from http import HTTPStatus

from fastapi import Request

from api.errors import ProblemError

RANGE = re.compile(r"\s*bytes\s*=\s*(?:(\d{1,18})\s*-\s*(\d{1,18})?|-\s*(\d{1,18}))\s*", re.ASCII | re.IGNORECASE)
"""One stretch of bytes: from the first on, or the last ones."""


def unchanged(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names this entity tag (weak comparison)."""
    given = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return "*" in given or tag.removeprefix("W/") in given


def settle_range(request: Request, tag: str, size: int) -> None:
    """Leaves of the request's ``Range`` what the framework can answer.

    Ranges of another kind, several at once and those of another version (``If-Range``) are passed over: the whole file
    is sent, as the RFC allows. Raises ProblemError (416) for one that lies outside a file of ``size`` bytes.
    """
    asked = request.headers.get("range")
    if asked is None:
        return
    found = RANGE.fullmatch(asked)
    if found is None or request.headers.get("if-range", tag) != tag or not _forward(found):
        request.scope["headers"] = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
        return
    first, _, last_ones = found.groups()
    if int(first) >= size if first is not None else not int(last_ones):
        detail = f"range '{asked:.100}' lies outside the file, which has {size} bytes"
        headers = {"Content-Range": f"bytes */{size}"}
        raise ProblemError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Range outside the file", detail, headers=headers
        )


def _forward(found: re.Match[str]) -> bool:
    first, last, _ = found.groups()
    return first is None or last is None or int(first) <= int(last)
