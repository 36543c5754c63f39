"""What candidates bring from their search: weight masks and weights, as files of theirs on the way there and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from nas_core import inherited
from nas_core.architecture import Architecture
from nas_core.errors import InvalidGenotypeError
from nas_core.masks import Masks
from store import candidates, origins
from store.artefacts import INHERITED, MASKS
from store.errors import MasksGoneError
from store.models import Artefact
from store.session import reading
from store.settings import settings
from worker.attempt import Attempt
from worker.files import NewFile, fetch, stored_together

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Brought:
    """The content of one file of a candidate."""

    candidate_id: UUID
    format: str
    content: bytes


@contextmanager
def recording(attempt: Attempt, brought: Sequence[Brought]) -> Iterator[Session]:
    """The transaction in which candidates come to be, and what they bring becomes files of theirs: all of it or none.

    Raises LeaseLostError, ArtefactsAwayError.
    """
    if not brought:
        with attempt.recording() as session:
            yield session
        return
    with attempt.scratch() as scratch:
        new = []
        for place, each in enumerate(brought):
            file = scratch / f"brought-{place}"
            file.write_bytes(each.content)
            new.append(NewFile(each.candidate_id, each.format, SUFFIX, file))
        with stored_together(attempt, new) as session:
            yield session


def masks_of(attempt: Attempt, architecture: Architecture, files: Mapping[str, Artefact]) -> Masks | None:
    """The weight masks of a candidate, of whose ``files`` (by format) they are one; None for a network without.

    Raises InvalidGenotypeError where they are not there or not those, and what ``fetch`` raises.
    """
    wanted = architecture.genotype.masks
    if wanted is None:
        return None
    if MASKS not in files:
        raise InvalidGenotypeError(f"the file of the weight masks {wanted} is missing; run the search again")
    masks = _read(attempt, files[MASKS])
    masks.check(architecture)
    return masks


def masks_of_seeds(attempt: Attempt) -> dict[str, Masks]:
    """The weight masks that the job's seeds name, by digest, from whichever candidate has them.

    Raises MasksGoneError, and what ``fetch`` raises.
    """
    found = {}
    for digest in origins.masks_wanted({"seed_genotypes": attempt.spec.seed_genotypes}):
        with reading(settings().outage_seconds) as session:
            artefact = candidates.artefact_with(session, MASKS, digest)
        if artefact is None:
            raise MasksGoneError(digest)
        found[digest] = _read(attempt, artefact)
    return found


def weights_of(attempt: Attempt, artefact: Artefact) -> Mapping[str, Any]:
    """Inherited weights by name. Raises InvalidGenotypeError, and what ``fetch`` raises."""
    with attempt.scratch() as scratch:
        return inherited.from_bytes(fetch(attempt, artefact, scratch).read_bytes())


def files_of(candidate_id: UUID) -> dict[str, Artefact]:
    """A candidate's files by format."""
    with reading(settings().outage_seconds) as session:
        return {file.format: file for file in candidates.artefacts_of(session, [candidate_id])[candidate_id]}


def _read(attempt: Attempt, artefact: Artefact) -> Masks:
    with attempt.scratch() as scratch:
        return Masks.from_bytes(fetch(attempt, artefact, scratch).read_bytes())


__all__ = ["INHERITED", "MASKS", "Brought", "files_of", "masks_of", "masks_of_seeds", "recording", "weights_of"]
