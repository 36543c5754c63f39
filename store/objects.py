"""A store of objects (S3 and what speaks it, Google Cloud Storage, Azure) as a place for artefact files.

Endpoint, region and keys come from the variables that obstore knows (``AWS_ENDPOINT``, ``AWS_REGION``, ...). The texts
of its errors stay here: they may hold addresses, signatures, even keys.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from store.artefacts import PIECE_BYTES, is_path
from store.errors import ArtefactsAwayError, ArtefactUrlError, MissingArtefactError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

RETRY: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
}
"""Short, because a request waits for it; who can wait longer asks again."""
CONNECT_SECONDS = 3
REPLY_SECONDS = 30
"""For one piece, either way."""
DELETED_AT_ONCE = 1000
CAUSES = ("Connection refused", "dns error", "timed out", "certificate", "connection closed", "error sending request")
CODE = re.compile(r"<Code>(\w{1,60})</Code>")
STATUS = re.compile(r"\bstatus(?: code)?:? *(?:Some\()?(\d{3})\b", re.IGNORECASE)

log = logging.getLogger(__name__)


class Objects:
    """A bucket or container, below a prefix."""

    def __init__(self, url: str) -> None:
        self.shown = url
        try:
            self._store = from_url(url, client_options=_client(os.environ), retry_config=RETRY)
        except (BaseError, ValueError, OSError) as error:
            log.error("the artefact store %s cannot be used: %s", url, type(error).__name__)
            raise ArtefactUrlError from None

    def put(self, path: str, file: Path) -> None:
        if not is_path(path):
            raise ValueError(f"'{path}' is no path below the artefact store's prefix")
        with file.open("rb") as source, self._asked():
            try:
                obstore.put(self._store, path, source)
            except FileNotFoundError:
                raise ArtefactsAwayError("there is no such bucket") from None

    def size(self, path: str) -> int | None:
        if not is_path(path):
            return None
        with self._asked():
            try:
                return obstore.head(self._store, path)["size"]
            except FileNotFoundError:
                return None

    def read(self, path: str, start: int, stop: int) -> Iterator[bytes]:
        """Each piece is a request of its own: one that waits for a slow reader holds no connection."""
        if not is_path(path):
            raise MissingArtefactError(path)
        for begin in range(start, stop, PIECE_BYTES):
            with self._asked():
                try:
                    piece = obstore.get_range(self._store, path, start=begin, end=min(begin + PIECE_BYTES, stop))
                except FileNotFoundError:
                    raise MissingArtefactError(path) from None
            yield bytes(piece)

    def locate(self, path: str) -> Path | None:
        return None

    def delete(self, paths: Sequence[str]) -> None:
        found = [path for path in paths if is_path(path)]
        for begin in range(0, len(found), DELETED_AT_ONCE):
            with self._asked():
                try:
                    obstore.delete(self._store, found[begin : begin + DELETED_AT_ONCE])
                except FileNotFoundError:
                    pass

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, OSError, ValueError) as error:
            why = cause(error)
            log.warning("the artefact store %s %s", self.shown, why)
            raise ArtefactsAwayError(why) from None


def cause(error: Exception) -> str:
    """What went wrong, in words that are all known beforehand."""
    text = str(error)
    details = [found[1] for found in (STATUS.search(text), CODE.search(text)) if found is not None]
    details = details or [phrase for phrase in CAUSES if phrase in text][:1] or [type(error).__name__]
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError) or {"401", "403"} & set(details)
    return f"{'refused the credentials' if refused else 'did not answer'} ({' '.join(details)})"


def _client(variables: Mapping[str, str]) -> ClientConfig:
    """What is not encrypted is allowed where the endpoint says http, or where the variable does."""
    allowed = variables.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1", "yes", "on")
    endpoints = (value for name, value in variables.items() if name.startswith("AWS_ENDPOINT"))
    return {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=REPLY_SECONDS),
        "allow_http": allowed or any(value.startswith("http://") for value in endpoints),
    }
