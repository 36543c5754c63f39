"""RFC 9457 problem details: what came, what would do, what next."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class FieldError(BaseModel):
    path: str
    """JSON pointer into the request."""
    got: Any = None
    expected: str


class Problem(BaseModel):
    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[FieldError] = []
