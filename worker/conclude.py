"""The last task of a job: measures what was verified side by side, draws the final front, opens the test data once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import torch
from safetensors.torch import load_file
from sqlalchemy.orm import Session

from nas_core.architecture import Architecture
from nas_core.errors import NasCoreError
from nas_core.evaluation import side_by_side
from nas_core.network import Network
from nas_core.search import Axes
from nas_core.training import misclassified
from store import candidates, events, jobs, nearest, tasks
from store.artefacts import WEIGHTS
from store.session import reading
from store.settings import settings
from worker.assembly import axes_of, splits_of
from worker.attempt import Attempt
from worker.files import fetch
from worker.lookup import Tables, tables_of, test_of
from worker.verify import write_final_front

log = logging.getLogger(__name__)


def run(attempt: Attempt) -> None:
    """Ends with the job: ``succeeded``, or ``failed`` when not one verification worked.

    Where no network holds the job's bounds, a warning says what comes nearest.
    """
    held = tables_of(attempt.spec)
    axes = axes_of(attempt.spec, held)
    with reading(settings().outage_seconds) as session:
        every = candidates.all_values(session, attempt.job_id, "final")
        ordered = tasks.counts(session, attempt.job_id, "verify")
    rows = [row for row in every if row.values and row.status != "failed"]
    if ordered and not rows:
        why = next((row.failure for row in every if row.failure), "unknown")
        raise NasCoreError(f"every verification failed; the first with: {why}")
    measure(attempt, axes, rows)
    with attempt.recording() as session:
        keeper = write_final_front(session, attempt.job_id, axes, attempt.reference_point)
    members = [point.id for point in keeper.members]
    if axes.learnt:
        test(attempt, members)
    else:
        show_tests(attempt, held, members)
    with attempt.recording() as session:
        if not keeper.members:
            tell_nearest(session, attempt.job_id, "final" if ordered else "search")
        jobs.finish(session, attempt.job_id, "succeeded", by=attempt.task_id)


def tell_nearest(session: Session, job_id: UUID, stage: nearest.Stage) -> None:
    """Warns that the bounds leave the final front empty, and says what comes nearest to them."""
    told = nearest.infeasible(session, jobs.get(session, job_id), stage)
    if told is not None:
        text = words(told)
        log.warning("%s", text)
        events.append(session, job_id, [("warning", {"text": text, "infeasible": told})])


def words(told: Mapping[str, Any]) -> str:
    """What comes nearest to a job's bounds, as a sentence."""
    whose = "verified" if told["stage"] == "final" else "found by the search"
    moves = []
    for key, move in told["violations"].items():
        share = "" if move["share"] is None else f", {100 * move['share']:.3g} %"
        bound = f"{move['side']} {move[move['side']]:.10g}"
        moves.append(f"{key} {move['nearest']:.10g} for {bound} (by {move['by']:.6g}{share})")
    return f"no network {whose} holds all bounds; the nearest, {told['nearest'][0]['id'][:8]}, has {'; '.join(moves)}"


def measure(attempt: Attempt, axes: Axes, rows: Sequence[candidates.Row]) -> None:
    """Measured objectives of all verified networks in one interleaved session: one front, one protocol.

    Values in place stay. Where only some are missing, because a verification was retried, the others run along, so that
    the missing ones are taken under the same load.
    """
    for key, objective in axes.objectives.items():
        missing = [row for row in rows if key not in row.values]
        if objective.source != "measured" or not missing:
            continue
        log.info("measuring %s of %d networks side by side", key, len(rows))
        networks = [Architecture.from_json(row.architecture) for row in rows]
        with attempt.room.alone():
            taken = side_by_side(key, objective, networks, attempt.device)
        with attempt.recording() as session:
            for row, value in zip(rows, taken, strict=True):
                if key in row.values:
                    continue
                if isinstance(value, str):
                    candidates.fail(session, row.candidate_id, f"{key} could not be measured: {value}")
                else:
                    candidates.set_final(session, row.candidate_id, {key: value.to_json()})


def show_tests(attempt: Attempt, held: Tables, members: Sequence[UUID]) -> None:
    """Test errors of the members as a table has them, shown and no more."""
    with attempt.recording() as session:
        for candidate in candidates.many(session, members):
            found = test_of(attempt.spec, held, Architecture.from_json(candidate.architecture))
            if found is not None and candidate.test is None:
                candidates.set_test(session, candidate.id, found)


def test(attempt: Attempt, members: Sequence[UUID]) -> None:
    """Test errors of the members, computed once and shown: nothing sorts, filters or chooses by them."""
    splits = splits_of(attempt.spec, settings().data_root)
    for candidate_id in members:
        with reading(settings().outage_seconds) as session:
            candidate = candidates.get(session, candidate_id)
            files = {a.format: a for a in candidates.artefacts_of(session, [candidate_id]).get(candidate_id, [])}
        if candidate.test is not None or WEIGHTS not in files:
            continue
        network = Network(Architecture.from_json(candidate.architecture))
        with attempt.scratch() as scratch:
            network.load_state_dict(load_file(fetch(attempt, files[WEIGHTS], scratch)))
        placed = network.to(attempt.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        count = splits.test.size
        error = misclassified(placed, splits.test, attempt.device) / count
        log.info("candidate %s: error %.4f on %d test images", candidate_id, error, count)
        sd = (error * (1 - error) / count) ** 0.5
        with attempt.recording() as session:
            candidates.set_test(session, candidate_id, {"error": error, "sd": sd, "n": count})
        attempt.between_steps()
