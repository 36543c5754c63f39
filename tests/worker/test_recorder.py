"""Events of a search become rows, on a real database."""

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest

from nas_core.architecture import Genotype
from nas_core.events import Evaluated, Evaluation, Progress
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.search import Axes
from nas_core.values import Value
from store import candidates, events, fronts, jobs, tasks
from store.errors import LeaseLostError
from store.models import Task
from store.session import reading, unit_of_work
from tests.contracts.problems import SPACE
from worker.recorder import SearchRecorder

AXES = Axes({"error": Error(), "params": Params()})
REFERENCE = {"error": 0.9, "params": 1000.0}
TARGET = SPACE.skeleton((1, 8, 8), 10)


def genotype(seed: int) -> Genotype:
    return SPACE.sample(np.random.default_rng(seed))


def said(seed: int, error: float, params: float, revised: bool = False) -> Evaluated:
    values = {"error": Value(error, "", "supernet"), "params": Value(params, "", "exact")}
    return Evaluated(Evaluation(genotype(seed), (values,)), revised)


@pytest.fixture
def claim(environment: object) -> tasks.Claim:
    with unit_of_work() as session:
        job = jobs.create(session, {"resources": {"device": "cpu"}}, "", {})
        task = session.query(Task).filter_by(job_id=job.id).one()
        made = tasks.claim(session, task.id, "w", "cpu", 1, 60, 3)
    assert made is not None
    return made


def recorder(claim: tasks.Claim) -> SearchRecorder:
    return SearchRecorder(claim.task_id, claim.fence, claim.job_id, AXES, (TARGET,), REFERENCE)


def front_errors(job_id: UUID) -> list[float]:
    with reading() as session:
        front = fronts.state(session, job_id, "search")
        assert front is not None
        members = fronts.member_ids(session, front)
        found = candidates.values(session, members, "search")
    return sorted(values["error"]["value"] for values in found.values())


def test_a_point_that_a_revised_value_kept_off_comes_back(claim: tasks.Claim) -> None:
    taking = recorder(claim)
    taking.take(said(0, 0.1, 100))
    taking.take(said(1, 0.2, 120))
    taking.flush()
    assert front_errors(claim.job_id) == [0.1]
    taking.take(said(1, 0.2, 120, revised=True))
    taking.take(said(0, 0.3, 100, revised=True))
    taking.flush()
    assert front_errors(claim.job_id) == [0.2, 0.3]


def test_a_replay_adds_nothing_and_restores_the_front(claim: tasks.Claim) -> None:
    first = recorder(claim)
    for event in (said(0, 0.1, 100), said(1, 0.05, 120), Progress("search", 2, 4)):
        first.take(event)
    first.flush()
    again = recorder(claim)
    with reading() as session:
        again.restore(candidates.all_values(session, claim.job_id, "search"))
    for event in (said(0, 0.1, 100), said(1, 0.05, 120), said(2, 0.5, 90)):
        again.take(event)
    again.flush()
    assert front_errors(claim.job_id) == [0.05, 0.1, 0.5]
    with reading() as session:
        assert len(candidates.all_values(session, claim.job_id, "search")) == 3
        told = [event for event in events.after(session, claim.job_id, 0) if event.type == "candidate"]
        assert jobs.get(session, claim.job_id).progress == pytest.approx(0.3)
    assert len(told) == 3


@pytest.mark.slow
def test_failures_are_rows_too_and_never_on_the_front(claim: tasks.Claim) -> None:
    taking = recorder(claim)
    taking.take(said(0, 0.1, 100))
    taking.take(Evaluated(Evaluation(genotype(1), (), "out of memory")))
    taking.flush()
    with reading() as session:
        rows = candidates.all_values(session, claim.job_id, "search")
    assert [row.failure for row in rows] == [None, "out of memory"]
    assert front_errors(claim.job_id) == [0.1]


def test_a_width_that_failed_is_a_failed_candidate_and_the_others_are_not(claim: tasks.Claim) -> None:
    targets = (TARGET, replace(TARGET, channels=2 * TARGET.channels))
    taking = SearchRecorder(claim.task_id, claim.fence, claim.job_id, AXES, targets, REFERENCE)
    values = {"error": Value(0.1, "", "supernet"), "params": Value(100.0, "", "exact")}
    taking.take(Evaluated(Evaluation(genotype(0), ({}, values), failures=("no board", None))))
    taking.flush()
    with reading() as session:
        rows = candidates.all_values(session, claim.job_id, "search")
    assert [(row.target, row.status, row.failure) for row in rows] == [
        (0, "failed", "no board"),
        (1, "evaluated", None),
    ]
    assert front_errors(claim.job_id) == [0.1]


def test_what_is_unscored_is_proposed_and_makes_no_front(claim: tasks.Claim) -> None:
    taking = recorder(claim)
    taking.take(Evaluated(Evaluation(genotype(0), ({"params": Value(100, "", "exact")},))))
    taking.flush()
    with reading() as session:
        (row,) = candidates.all_values(session, claim.job_id, "search")
        assert fronts.state(session, claim.job_id, "search") is None
    assert (row.status, row.failure, set(row.values)) == ("proposed", None, {"params"})
    again = recorder(claim)
    again.restore([row])
    assert again.front.members == []


def test_a_recorder_without_the_lease_writes_nothing(claim: tasks.Claim) -> None:
    stale = SearchRecorder(claim.task_id, claim.fence - 1, claim.job_id, AXES, (TARGET,), REFERENCE)
    stale.take(said(0, 0.1, 100))
    with pytest.raises(LeaseLostError):
        stale.flush()
    with reading() as session:
        assert candidates.all_values(session, claim.job_id, "search") == []
