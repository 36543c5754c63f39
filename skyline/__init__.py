"""Skyline: what the world sees. Wire schemas, the Python client and the ``skyline`` command."""

from skyline.client import Client
from skyline.errors import ApiError, ClientError, ConnectionFailed

__all__ = ["ApiError", "Client", "ClientError", "ConnectionFailed"]
__version__ = "0.1.0"
