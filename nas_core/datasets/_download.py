"""Fetches a file of a data set: checked by its content, reported while it comes, whole or not there."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from nas_core.datasets._presence import Report
from nas_core.errors import DatasetError, DatasetMissingError

SILENCE_SECONDS = 60
"""A server that says nothing for so long is given up."""
PIECE = 2**18
MOST_BYTES = 2**30
"""Of one file, unpacked."""


def fetch_gzip(url: str, path: Path, sha256: str, progress: Report) -> None:
    """Downloads ``url`` to ``path``, written beside and renamed. ``sha256`` is that of the *unpacked* content.

    (The same images are packed differently by those who hand them on.) Raises DatasetMissingError when it cannot be
    fetched and DatasetError when the content is another one; neither leaves a file.
    """
    _fetch(url, path, sha256, lambda file: _unpacked(url, file, path.name, progress))


def fetch_file(url: str, path: Path, size: int, sha256: str, progress: Report) -> None:
    """Downloads ``url`` to ``path`` as it is: ``size`` bytes whose SHA-256 is ``sha256``. Errors as fetch_gzip."""
    _fetch(url, path, sha256, lambda file: _as_it_is(url, file, size, path.name, progress))


def _fetch(url: str, path: Path, sha256: str, copy: Callable[[IO[bytes]], str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            found = copy(file)
            file.flush()
            os.fsync(file.fileno())
        if found != sha256:
            raise DatasetError(f"{url}: its content has SHA-256 {found}, not {sha256}; nothing was kept")
        beside.chmod(0o644)
        beside.replace(path)
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise DatasetMissingError(f"{url} cannot be fetched: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _as_it_is(url: str, file: IO[bytes], size: int, name: str, progress: Report) -> str:
    """Writes what comes, never more than ``size`` bytes; gives its SHA-256 (hex)."""
    digest, come = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as answer:
        while piece := answer.read(PIECE):
            come += len(piece)
            if come > size:
                raise DatasetError(f"{url}: is longer than the {size} bytes that it should have; nothing was kept")
            file.write(piece)
            digest.update(piece)
            progress(f"downloading {name}", come / size)
    if come < size:
        raise DatasetMissingError(f"{url} cannot be fetched: it ended after {come} of {size} bytes")
    return digest.hexdigest()


def _unpacked(url: str, file: IO[bytes], name: str, progress: Report) -> str:
    """Writes what comes; gives the SHA-256 (hex) of what it unpacks to."""
    digest, unpack = hashlib.sha256(), zlib.decompressobj(zlib.MAX_WBITS | 16)
    come = unpacked = 0
    with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as answer:
        announced = int(answer.headers.get("Content-Length") or 0)
        while piece := answer.read(PIECE):
            file.write(piece)
            come += len(piece)
            while piece:
                try:
                    plain = unpack.decompress(piece, PIECE)
                except zlib.error as error:
                    raise DatasetError(f"{url}: is not a gzip file: {error}; nothing was kept") from error
                digest.update(plain)
                unpacked += len(plain)
                if unpacked > MOST_BYTES:
                    raise DatasetError(f"{url}: unpacks to more than {MOST_BYTES} bytes; nothing was kept")
                piece = unpack.unconsumed_tail
            progress(f"downloading {name}", min(1.0, come / announced) if announced else 0.0)
    if not unpack.eof:
        raise DatasetMissingError(f"{url} cannot be fetched: it ended after {come} bytes")
    return digest.hexdigest()
