"""The export task: a verified candidate's network in one format, compared with the network before it counts."""

from __future__ import annotations

import logging

from nas_core.architecture import Architecture
from nas_core.errors import ExportError
from nas_core.exports import Model, export, exports
from store import candidates
from store.artefacts import WEIGHTS
from store.session import reading
from store.settings import settings
from worker.attempt import Attempt
from worker.brought import files_of, masks_of
from worker.files import fetch, stored

log = logging.getLogger(__name__)


def run(attempt: Attempt, format: str) -> None:
    """Leaves the file and its row, or neither."""
    assert attempt.candidate_id is not None, "an export is of a candidate"
    with reading(settings().outage_seconds) as session:
        candidate = candidates.get(session, attempt.candidate_id)
    files = files_of(candidate.id)
    masks = masks_of(attempt, Architecture.from_json(candidate.architecture), files)
    suffix = exports[format].suffix
    with attempt.scratch() as scratch:
        model = Model.load(fetch(attempt, files[WEIGHTS], scratch))
        if masks is not None and (leaks := masks.leaks(model.weights or {})):
            raise ExportError(f"masked weights of {leaks[0]} are not zero; verify the candidate again")
        file = scratch / f"network{suffix}"
        difference = export(format, model, file)
        log.info(
            "candidate %s as %s: %d bytes, logits within %.2g", candidate.id, format, file.stat().st_size, difference
        )
        with stored(attempt, candidate.id, format, suffix, file):
            pass  # the file is all there is
