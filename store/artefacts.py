"""Where artefact files lie: in a folder, or in a store of objects that speaks S3 or the like. API and worker alike go
through here.

A path is relative and made of plain names with slashes between. It is written once, whole or not at all, and then read
or deleted: a file that is made again gets another path (:func:`path_of`), so nobody reads two halves of two files.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

from store.errors import ArtefactsAwayError, ArtefactUrlError, DamagedArtefactError, MissingArtefactError
from store.settings import settings

WEIGHTS = "safetensors"
"""The format that verification stores; all others with weights are made from it, and can be made again."""
STATE = "state"
"""The format of a job's own file: the state that its search ended with, for jobs that go on from it."""
MASKS = "masks"
"""The format of the weight masks that a candidate's genotype names: their file's SHA-256 is that name."""
INHERITED = "inherited"
"""The format of the weights that a candidate brings from its search."""
LASTING = (WEIGHTS, STATE, MASKS, INHERITED)
"""Formats that nothing could be made again from."""
PIECE_BYTES = 4 * 2**20
"""How much is read at once."""
PARTIAL = ".partial"
"""Behind the name of a file that is being written."""
SCHEMES = ("s3", "gs", "az", "file")
CREDENTIALS = ("AWS_", "GOOGLE_", "AZURE_")
"""What the variables begin with that tell a store of objects its endpoint, region and keys."""

log = logging.getLogger(__name__)


class Files(Protocol):
    """A place for files. All raise ArtefactsAwayError where it does not answer or refuses."""

    shown: str
    """Fit for a log."""

    def put(self, path: str, file: Path) -> None:
        """Stores a copy of a local file; readers see all of it or nothing. Raises ValueError for what is no path."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes; None when there is no such file, or when its path is none."""
        ...

    def read(self, path: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from ``start`` to before ``stop``, PIECE_BYTES at most at once. Raises MissingArtefactError."""
        ...

    def locate(self, path: str) -> Path | None:
        """The file itself where it lies in a folder of this host; None when not, or when it is not there."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Removes files, and what is left of an attempt to write them; one that is not there is no error."""
        ...


def files() -> Files:
    """The place that the settings name now. Raises ArtefactUrlError for an address that is none."""
    url = settings().artefact_url
    if not url:
        return Folder(settings().artefact_dir)
    variables = sorted(item for item in os.environ.items() if item[0].startswith(CREDENTIALS))
    return _at(url, tuple(variables))


def path_of(job_id: UUID, candidate_id: UUID | None, format: str, fence: int, suffix: str) -> str:
    """The path of the file that one attempt makes of a candidate, or of the job itself; no other attempt has it."""
    return f"{job_id}/{candidate_id or 'job'}.{format}-{fence}{suffix}"


def is_path(path: str) -> bool:
    """Whether a path stays below whatever it is taken relative to, and means the same everywhere."""
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(path.split("/"))


def fetch(path: str, sha256: str, scratch: Path) -> Path:
    """A local file with these bytes: the file itself where it lies in a folder, else a copy in ``scratch``.

    Raises MissingArtefactError, DamagedArtefactError where the bytes have another SHA-256, ArtefactsAwayError.
    """
    place, digest = files(), hashlib.sha256()
    local = place.locate(path)
    if local is not None:
        with _told("read"), local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    else:
        size = place.size(path)
        if size is None:
            raise MissingArtefactError(path)
        local = scratch / path.rpartition("/")[2]
        with local.open("wb") as file:
            for piece in place.read(path, 0, size):
                digest.update(piece)
                file.write(piece)
    if digest.hexdigest() != sha256:
        raise DamagedArtefactError(path, sha256, digest.hexdigest())
    return local


def trouble() -> str | None:
    """Why files cannot be stored, in words for whoever starts something that stores some; None where they can.

    It stores an empty file and deletes it. Raises ArtefactUrlError, which waiting does not mend.
    """
    place, path = files(), f"probe/{uuid4()}"
    try:
        place.put(path, Path(os.devnull))
        place.delete([path])
    except ArtefactsAwayError as error:
        return f"artefacts at {place.shown}: {error.why}"
    return None


class Folder:
    """A folder of this host, or one that several hosts share."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.shown = str(root)

    def put(self, path: str, file: Path) -> None:
        with file.open("rb") as source, _told("written"):
            target = self._place(path)
            if target is None:
                raise ValueError(f"'{path}' is no path below the artefact folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(target.name + PARTIAL)
            beside.unlink(missing_ok=True)
            with beside.open("xb") as copy:
                shutil.copyfileobj(source, copy, PIECE_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            beside.replace(target)

    def size(self, path: str) -> int | None:
        found = self.locate(path)
        with _told("read"), suppress(FileNotFoundError):
            return None if found is None else found.stat().st_size
        return None

    def read(self, path: str, start: int, stop: int) -> Iterator[bytes]:
        found = self.locate(path)
        if found is None:
            raise MissingArtefactError(path)
        with _told("read"), found.open("rb") as file:
            file.seek(start)
            while piece := file.read(min(PIECE_BYTES, stop - file.tell())):
                yield piece

    def locate(self, path: str) -> Path | None:
        with _told("read"):
            place = self._place(path)
            return place if place is not None and place.is_file() else None

    def delete(self, paths: Sequence[str]) -> None:
        """The others are removed, too, where one cannot be."""
        failed: OSError | None = None
        for path in paths:
            try:
                self._remove(path)
            except OSError as error:
                failed = failed or error
        if failed is not None:
            with _told("written"):
                raise failed

    def _remove(self, path: str) -> None:
        place = self._place(path)
        if place is None:
            log.warning("artefact %s lies outside the artefact folder; it stays", path)
            return
        for name in (place.name, place.name + PARTIAL):
            with suppress(FileNotFoundError, NotADirectoryError):
                place.with_name(name).unlink()
        if place.parent != self._root.resolve():
            with suppress(OSError):  # there are others in it
                place.parent.rmdir()

    def _place(self, path: str) -> Path | None:
        """Where a path leads, links followed; None where that is outside of the folder."""
        root = self._root.resolve()
        if not is_path(path):
            return None
        found = (root / path).resolve()
        return found if found.is_relative_to(root) else None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """An error of the file system is told without the path, which is nobody's business outside."""
    try:
        yield
    except OSError as error:
        log.warning("the artefact folder cannot be %s: %s", what, error)
        raise ArtefactsAwayError(f"the folder cannot be {what} ({error.strerror or type(error).__name__})") from None


@lru_cache(maxsize=4)
def _at(url: str, variables: tuple[tuple[str, str], ...]) -> Files:
    """Made anew when a variable changes that it may depend on."""
    parts = urlsplit(url)
    if any(mark in url for mark in "@?#"):  # where credentials go that belong into variables
        raise ArtefactUrlError
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and len(parts.path) > 1:
        return Folder(Path(unquote(parts.path)))
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise ArtefactUrlError
    from store.objects import Objects  # its library is loaded where it is needed

    return Objects(url)
