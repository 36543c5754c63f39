"""The search task: drives the algorithm, records what it says, and orders the verification of the best."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from nas_core import checkpoint
from nas_core.errors import NasCoreError, NoRoomError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint
from nas_core.search import Axes, drive, start
from nas_core.training.room import release
from nas_core.values import Value
from store import candidates, events, jobs, tasks
from store.session import reading
from store.settings import settings
from worker.assembly import Plan, plan_of, reference_point
from worker.attempt import Attempt
from worker.brought import masks_of_seeds, recording, weights_of_seed
from worker.choice import Scored, choose, doubts, goals_of, unserved
from worker.control import Stopped
from worker.inheritance import ending, inherited
from worker.lookup import front_of, gaps, settle, tables_of
from worker.recorder import SEARCH_SHARE, SearchRecorder, numbers

log = logging.getLogger(__name__)


def run(attempt: Attempt) -> None:
    """From the job's start, or from where an earlier attempt left, to the tasks of verification."""
    kept = attempt.load()
    attempt.seconds_before = float(kept["seconds"]) if kept else 0.0
    found = None
    try:
        found = search(attempt, kept)
    except NoRoomError as error:
        if not error.can_be_halved:
            raise
        text = error.warning
    if found is None:
        release()  # not before the error and what it holds are gone
        attempt.warn(text)
        found = search(attempt, attempt.load())
    order_verification(attempt, *found)


def search(attempt: Attempt, kept: Mapping[str, Any] | None) -> tuple[Axes, dict[str, float], Mapping[str, Any] | None]:
    """Until there is no more to find; the axes, the reference point, and the last checkpoint's state, if there was one.

    When a step does not fit into memory, the last checkpoint is kept with steps in two pieces, and NoRoomError raised.
    """
    limit = attempt.spec.budget.max_seconds
    plan = plan_of(
        attempt.spec,
        settings().data_root,
        attempt.device,
        attempt.between_steps,
        attempt.glance,
        attempt.room.alone,
        lambda: limit is not None and attempt.seconds() > limit,
        attempt.warn,
        int(kept.get("pieces", 1)) if kept else 1,
        tables_of(attempt.spec),
        inherited(attempt),
        masks_of_seeds(attempt),
    )
    reference = complete_reference(attempt, plan)
    axes = plan.problem.axes
    with reading(settings().outage_seconds) as session:
        rows = candidates.all_values(session, attempt.job_id, "search")
    recorder = SearchRecorder(
        attempt.task_id,
        attempt.fence,
        attempt.job_id,
        axes,
        plan.problem.targets,
        reference,
        partial(recording, attempt),
        plan.problem.masks,
        weights_of_seed(attempt),
    )
    recorder.restore(rows)
    journal = {
        row.hash: {key: Value.from_json(value) for key, value in row.values.items()} for row in rows if row.values
    }
    log.info("searching on %s; %d candidates are on record", attempt.device, len(rows))
    last = search_until_done(attempt, plan, recorder, journal, kept["algorithm"] if kept else None)
    return axes, reference, last


def complete_reference(attempt: Attempt, plan: Plan) -> dict[str, float]:
    """The reference point, fixed before the first evaluation and kept for the life of the job."""
    keys = set(plan.problem.axes.keys)
    if keys <= set(attempt.reference_point):
        return {key: float(attempt.reference_point[key]) for key in keys}
    reference = reference_point(plan.problem, attempt.spec.reference_point)
    with attempt.recording() as session:
        jobs.set_reference_point(session, attempt.job_id, reference)
    return reference


def search_until_done(
    attempt: Attempt,
    plan: Plan,
    recorder: SearchRecorder,
    journal: dict[str, dict[str, Value]],
    safe: Mapping[str, Any] | None,
) -> Mapping[str, Any] | None:
    """From a checkpoint's state to the end of the algorithm, and the state of its last checkpoint; it ends itself at
    the next epoch or generation when the seconds are used up.
    """

    def save(pieces: int, now: bool) -> None:
        attempt.save({"algorithm": safe, "seconds": attempt.seconds(), "pieces": pieces}, now)

    search = start(plan.algorithm, plan.problem, checkpoint.copied(safe))  # optimisers go on with what they are given
    try:
        for event in drive(search, Evaluator(plan.problem, journal)):
            if isinstance(event, Checkpoint):
                recorder.flush()
                safe = checkpoint.copied(event.state)
                save(plan.problem.pieces, now=attempt.flag.set)
                attempt.flag.check()
            else:
                recorder.take(event)
    except Stopped:
        recorder.flush()
        raise
    except NoRoomError as error:
        recorder.flush()
        if error.can_be_halved:
            save(pieces=2, now=True)
        raise
    recorder.flush()
    return safe


def order_verification(
    attempt: Attempt, axes: Axes, reference: dict[str, float], state: Mapping[str, Any] | None = None
) -> None:
    """Chooses the best of the search front, and all that a search left unscored; a repeated call chooses and orders the
    same. Where nothing has to be trained, the front's members get their final values at once. The search's last
    ``state`` is kept with it, where other jobs can go on from that.
    """
    with ending(attempt, state) as session:
        rows = candidates.all_values(session, attempt.job_id, "search")
        worked = [row for row in rows if row.failure is None]
        found = [Scored(row.hash, row.target, numbers(row.values), row, goals_of(row.values)) for row in worked]
        if not found:
            why = next((row.failure for row in rows if row.failure), "the search proposed none")
            told = "; ".join([f"the first failed with: {why}", *gaps(session, attempt.spec)])
            raise NasCoreError(f"no candidate could be evaluated; {told}")
        top = attempt.spec.verify.top
        if axes.learnt:
            chosen = choose(found, axes, reference, top)
            for item in chosen:
                tasks.add(session, attempt.job_id, "verify", item.what.candidate_id, attempt.spec.resources.device)
        else:
            members = {row.candidate_id for row in front_of(worked, axes)}
            chosen = [item for item in found if item.what.candidate_id in members]
            if len(chosen) > top:
                chosen = choose(chosen, axes, reference, top)
            settle(session, attempt.job_id, axes, [item.what for item in chosen])
        jobs.set_phase(
            session, attempt.job_id, status="verifying", phase=f"verifying {len(chosen)}", progress=SEARCH_SHARE
        )
        for text in filter(None, (doubts(chosen, axes), unserved(found, chosen, top) if axes.learnt else None)):
            log.warning("%s", text)
            events.append(session, attempt.job_id, [("warning", {"text": text})])
