"""The export task: a verified candidate's network in one format, compared with the network before it counts."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from nas_core.exports import Model, export, exports
from store import candidates
from store.session import reading
from store.settings import settings
from worker.attempt import Attempt

log = logging.getLogger(__name__)


def run(attempt: Attempt, format: str) -> None:
    """Leaves the file and its row, or neither."""
    assert attempt.candidate_id is not None, "an export is of a candidate"
    with reading(settings().outage_seconds) as session:
        candidate = candidates.get(session, attempt.candidate_id)
        stored = {file.format: file for file in candidates.artefacts_of(session, [candidate.id])[candidate.id]}
    model = Model.load(settings().artefact_dir / stored["safetensors"].path)
    relative = Path(str(attempt.job_id), f"{candidate.id}.{format}{exports[format].suffix}")
    target = settings().artefact_dir / relative
    own = target.with_name(f"{target.name}.{attempt.fence}")
    difference = export(format, model, own)
    data = own.read_bytes()
    log.info("candidate %s as %s: %d bytes, logits within %.2g", candidate.id, format, len(data), difference)
    with attempt.recording() as session:
        own.replace(target)
        sha256 = hashlib.sha256(data).hexdigest()
        candidates.add_artefact(session, candidate.id, attempt.job_id, format, str(relative), sha256, len(data))
