"""Which Skyline this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from fastapi import APIRouter

from api.openapi import answers, problems
from skyline.schemas import Version
from store.schema import head

router = APIRouter(prefix="/v1", tags=["health"])


@router.get(
    "/version",
    summary="Versions of service and tables",
    responses={**answers({"version": "0.1.0", "tables": "0007"}), **problems()},
)
def read_version() -> Version:
    """Programs and tables go together; see `docs/server.md` on upgrades."""
    return _version()


@cache
def _version() -> Version:
    return Version(version=version("skyline-nas"), tables=head())
