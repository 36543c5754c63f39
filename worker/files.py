"""Files of an attempt on their way between this host and the place where artefacts lie."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from store import artefacts, candidates, loose
from store.errors import ArtefactsAwayError, LeaseLostError
from store.models import Artefact
from store.settings import settings
from worker.attempt import Attempt

RETRY_SECONDS = 1.0
"""Between two attempts to reach a store that is away."""

log = logging.getLogger(__name__)
T = TypeVar("T")


def fetch(attempt: Attempt, artefact: Artefact, scratch: Path) -> Path:
    """An artefact as a local file, whose bytes are those that were stored; waits for a store that is away.

    Raises MissingArtefactError, DamagedArtefactError, ArtefactsAwayError.
    """
    return patiently(attempt, partial(artefacts.fetch, artefact.path, artefact.sha256, scratch))


@dataclass(frozen=True, slots=True)
class NewFile:
    """A local file that is to become an artefact."""

    candidate_id: UUID | None
    """None: of the job itself."""
    format: str
    suffix: str
    file: Path


@contextmanager
def stored(attempt: Attempt, candidate_id: UUID | None, format: str, suffix: str, file: Path) -> Iterator[Session]:
    """Stores a local file, then gives the transaction that makes it an artefact, of a candidate or of the job itself:
    both, or neither for long.

    Raises LeaseLostError, ArtefactsAwayError.
    """
    with stored_together(attempt, [NewFile(candidate_id, format, suffix, file)]) as session:
        yield session


@contextmanager
def stored_together(attempt: Attempt, new: Sequence[NewFile]) -> Iterator[Session]:
    """As ``stored``, of any number of files. They become artefacts at the transaction's end: candidates that come to be
    in it may have some.
    """
    paths = [
        artefacts.path_of(attempt.job_id, each.candidate_id, each.format, attempt.fence, each.suffix) for each in new
    ]
    if new:
        with attempt.recording() as session:
            for path in paths:
                loose.announce(session, path)
    for path, each in zip(paths, new, strict=True):
        patiently(attempt, partial(artefacts.files().put, path, each.file))
    try:
        with attempt.recording() as session:
            yield session
            for path, each in zip(paths, new, strict=True):
                with each.file.open("rb") as content:
                    sha256 = hashlib.file_digest(content, "sha256").hexdigest()
                size = each.file.stat().st_size
                candidates.add_artefact(session, each.candidate_id, attempt.job_id, each.format, path, sha256, size)
    except LeaseLostError:
        loose.discard(paths)  # nobody else has these paths
        raise


def patiently(attempt: Attempt, ask: Callable[[], T]) -> T:
    """What ``ask`` gives; a store that is away is asked again for as long as a database would be."""
    patience, told = settings().outage_seconds, False
    deadline = time.monotonic() + patience
    while True:
        try:
            return ask()
        except ArtefactsAwayError as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                log.warning("the artefact store %s; asking again for %g s", error.why, patience)
            told = True
        attempt.flag.check()
        time.sleep(RETRY_SECONDS)
