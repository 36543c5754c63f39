"""Files of an attempt on their way between this host and the place where artefacts lie."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def stored(attempt: Attempt, candidate_id: UUID | None, format: str, suffix: str, file: Path) -> Iterator[Session]:
    """Stores a local file, then gives the transaction that makes it an artefact, of a candidate or of the job itself:
    both, or neither for long.

    Raises LeaseLostError, ArtefactsAwayError.
    """
    path = artefacts.path_of(attempt.job_id, candidate_id, format, attempt.fence, suffix)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    with attempt.recording() as session:
        loose.announce(session, path)
    patiently(attempt, partial(artefacts.files().put, path, file))
    try:
        with attempt.recording() as session:
            candidates.add_artefact(session, candidate_id, attempt.job_id, format, path, sha256, file.stat().st_size)
            yield session
    except LeaseLostError:
        loose.discard([path])  # nobody else has this path
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
