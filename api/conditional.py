"""Conditional requests (RFC 9110, section 13): an answer that the client has is not sent again."""

from __future__ import annotations

from fastapi import Request


def unchanged(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names this entity tag (weak comparison)."""
    given = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return "*" in given or tag.removeprefix("W/") in given
