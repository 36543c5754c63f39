"""Skyline: what the world sees. Wire schemas, the Python client and the ``skyline`` command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyline.client import Client
    from skyline.errors import ApiError, ClientError, ConnectionFailed

__all__ = ["ApiError", "Client", "ClientError", "ConnectionFailed"]
__version__ = "0.1.0"

_HOMES = {
    "Client": "skyline.client",
    "ApiError": "skyline.errors",
    "ClientError": "skyline.errors",
    "ConnectionFailed": "skyline.errors",
}


def __getattr__(name: str) -> Any:
    """Imports the client when it is asked for: schemas and ``skyline --help`` need no HTTP library."""
    if name not in _HOMES:
        raise AttributeError(f"module 'skyline' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
