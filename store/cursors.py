"""Opaque cursors of keyset pages: where the page before ended, so that a page costs the same wherever it lies."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from store.errors import InvalidCursorError

MOST = 2**31 - 1
"""Of an integer column. PostgreSQL refuses to compare one with a larger number."""
START: tuple[Any, Any] = (None, None)
"""Position before the first row of a list that is sorted by two things."""


def pack(*position: Any) -> str:
    """The cursor after a row at this position (JSON values)."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def unpack(cursor: str, length: int) -> list[Any]:
    """The position of a cursor made by :func:`pack`; raises InvalidCursorError."""
    try:
        position = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidCursorError(cursor) from error
    if not isinstance(position, list) or len(position) != length:
        raise InvalidCursorError(cursor)
    return position


def is_number(value: object) -> bool:
    """Whether a part of a position can be that of a row: a cursor may be anybody's invention."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST
