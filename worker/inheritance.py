"""The state that a search ends with: kept as a file of its job, and taken up by jobs that go on from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from nas_core import checkpoint
from nas_core.algorithms import algorithms
from nas_core.errors import NasCoreError
from skyline.schemas import JobSpec
from store import origins
from store.artefacts import STATE
from store.errors import OriginGoneError
from store.session import reading
from store.settings import settings
from worker.attempt import Attempt
from worker.files import fetch, stored

SUFFIX = ".pt"

log = logging.getLogger(__name__)


def hands_on(spec: JobSpec) -> bool:
    """Whether other jobs can go on from what the job's algorithm ends with."""
    return bool(getattr(algorithms[spec.algorithm.name], "hands_on", False))


def inherited(attempt: Attempt) -> Mapping[str, Any] | None:
    """The state that the search of the job gone on from ended with; None where the job begins from scratch.

    Raises OriginGoneError, MissingArtefactError, DamagedArtefactError, CheckpointError, ArtefactsAwayError, and
    NasCoreError where the algorithm, as this worker has it, would make no use of it.
    """
    job_id = attempt.spec.origin
    if job_id is None:
        return None
    if not hands_on(attempt.spec):
        name = attempt.spec.algorithm.name
        raise NasCoreError(
            f"algorithm '{name}' of this worker cannot go on from the search of job {job_id}; post a job without 'from'"
        )
    with reading(settings().outage_seconds) as session:
        kept = origins.state(session, job_id)
    if kept is None:
        raise OriginGoneError(job_id)
    with attempt.scratch() as scratch:
        state = checkpoint.load(fetch(attempt, kept, scratch))
    log.info("going on from the search of job %s; its state has %d bytes", job_id, kept.bytes)
    return state


@contextmanager
def ending(attempt: Attempt, state: Mapping[str, Any] | None) -> Iterator[Session]:
    """The transaction that ends a search. Where others can go on from it, its last state is stored before, and becomes
    a file of the job in that transaction. Raises LeaseLostError, ArtefactsAwayError.
    """
    if state is None or not hands_on(attempt.spec):
        with attempt.recording() as session:
            yield session
        return
    with attempt.scratch() as scratch:
        file = scratch / STATE
        checkpoint.save(state, file)
        with stored(attempt, None, STATE, SUFFIX, file) as session:
            yield session
