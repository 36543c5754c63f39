"""What candidates bring from their search: weight masks and weights, as files of theirs on the way there and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session
from torch import Tensor

from nas_core import inherited
from nas_core.architecture import Architecture
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.masks import Masks
from store import candidates, origins
from store.artefacts import INHERITED, MASKS
from store.errors import BroughtGoneError
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
    masks = Masks.from_bytes(_content(attempt, files[MASKS]))
    masks.check(architecture)
    return masks


def masks_of_seeds(attempt: Attempt) -> dict[str, Masks]:
    """The weight masks that the job's seeds name, by digest, from whichever candidate has them.

    Raises BroughtGoneError, and what ``fetch`` raises.
    """
    wanted = origins.masks_wanted({"seed_genotypes": attempt.spec.seed_genotypes})
    return {digest: Masks.from_bytes(_content(attempt, _named(MASKS, digest))) for digest in wanted}


def weights_of_seed(attempt: Attempt) -> bytes | None:
    """The file of the inherited weights that the job names for its one seed, from whichever candidate has them.

    Raises BroughtGoneError, and what ``fetch`` raises.
    """
    digest = attempt.spec.verify.weights
    return None if digest is None else _content(attempt, _named(INHERITED, digest))


def weights_of(attempt: Attempt, files: Mapping[str, Artefact]) -> Mapping[str, Tensor] | None:
    """What a candidate's trainings begin with, by name; None where the job wants them to begin from scratch.

    Raises InvalidSettingsError for a candidate that brought no weights, InvalidGenotypeError for a file that is none of
    weights, and what ``fetch`` raises.
    """
    if attempt.spec.verify.start == "scratch":
        return None
    if INHERITED not in files:
        raise InvalidSettingsError(
            "verify.start is 'inherited', but this candidate brought no weights from its search; verify it from scratch"
        )
    return inherited.from_bytes(_content(attempt, files[INHERITED]))


def files_of(candidate_id: UUID) -> dict[str, Artefact]:
    """A candidate's files by format."""
    with reading(settings().outage_seconds) as session:
        return {file.format: file for file in candidates.artefacts_of(session, [candidate_id])[candidate_id]}


def _named(format: str, digest: str) -> Artefact:
    with reading(settings().outage_seconds) as session:
        artefact = candidates.artefact_with(session, format, digest)
    if artefact is None:
        raise BroughtGoneError(format, digest)
    return artefact


def _content(attempt: Attempt, artefact: Artefact) -> bytes:
    with attempt.scratch() as scratch:
        return fetch(attempt, artefact, scratch).read_bytes()
