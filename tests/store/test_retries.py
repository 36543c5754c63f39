"""Second chances for jobs and candidates: what is queued again, what is kept, what is refused."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from store import candidates, events, jobs, retries, tasks
from store.errors import IllegalTransitionError, LeaseLostError, NotFoundError, NotRetriableError
from store.models import Candidate, Job, Task
from store.session import reading, unit_of_work
from tests.store.factories import must_claim, new_candidate, only_task, task_status


def retry(job_id: UUID) -> Job:
    with unit_of_work() as session:
        return retries.retry_job(session, job_id)


def retry_candidate(candidate_id: UUID) -> Candidate:
    with unit_of_work() as session:
        return retries.retry_candidate(session, candidate_id)


def job_of(job_id: UUID) -> Job:
    with reading() as session:
        return jobs.get(session, job_id)


def phases(job_id: UUID) -> list[str]:
    with reading() as session:
        return [event.data["status"] for event in events.after(session, job_id, 0) if event.type == "phase"]


def run(task_id: UUID, how: str = "done", max_attempts: int = 3) -> UUID | None:
    """An attempt that works, or as many as are allowed that die; returns the task's candidate."""
    claimed = must_claim(task_id)
    while how == "died" and claimed.attempt < max_attempts:
        give_back(task_id, claimed.fence, "queued", "died")
        claimed = must_claim(task_id)
    if how == "done" and claimed.candidate_id is not None:
        with unit_of_work() as session:
            document = {"value": 0.1, "unit": "", "kind": "trained"}
            candidates.set_final(session, claimed.candidate_id, {"error": document})
    if how == "done" and claimed.kind == "conclude":
        with unit_of_work() as session:
            jobs.finish(session, claimed.job_id, "succeeded", by=task_id)
    give_back(task_id, claimed.fence, "queued" if how == "died" else "done", how)
    return claimed.candidate_id


def give_back(task_id: UUID, fence: int, status: str, how: str) -> bool:
    with unit_of_work() as session:
        return tasks.end(session, task_id, fence, status=status, end=how)  # type: ignore[arg-type]


def cancel(job_id: UUID) -> None:
    with unit_of_work() as session:
        jobs.request_cancel(session, job_id)


def candidate(candidate_id: UUID) -> tuple[str, str | None]:
    with reading() as session:
        found = candidates.get(session, candidate_id)
        return found.status, found.failure


@pytest.fixture
def one_failed(job_id: UUID, verify_ids: list[UUID]) -> UUID:
    """The candidate of ``job_id`` whose verification died; the job has succeeded with the two others."""
    failed = run(verify_ids[0], "died")
    for task_id in verify_ids[1:]:
        run(task_id)
    run(only_task(job_id, "conclude").id)
    assert job_of(job_id).status == "succeeded" and failed is not None
    return failed


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_failed_search_is_queued_again_and_what_it_found_is_kept(job_id: UUID, search_id: UUID) -> None:
    with unit_of_work() as session:
        candidates.record(session, job_id, "search", [new_candidate(1)])
    run(search_id, "died")
    failed = job_of(job_id)
    assert (failed.status, failed.ended_at is None) == ("failed", False)
    job = retry(job_id)
    assert (job.status, job.phase, job.reason, job.ended_at) == ("queued", "queued", None, None)
    again = must_claim(search_id)
    assert (again.attempt, again.fence, again.status) == (1, 4, "searching")
    with reading() as session:
        assert len(candidates.all_values(session, job_id, "search")) == 1
        assert [attempt.number for attempt in jobs.attempts(session, job_id)] == [1, 2, 3, 4]
        told = [event.data for event in events.after(session, job_id, 0) if event.type == "phase"]
    assert [data["status"] for data in told] == ["queued", "searching", "failed", "queued", "searching"]
    assert told[3]["reason"] == "retried"


def test_a_search_that_gave_up_is_queued_again(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    with unit_of_work() as session:
        jobs.finish(session, job_id, "failed", "no data", by=search_id)
    retry(job_id)  # before its worker has said that the attempt is over
    assert not give_back(search_id, claimed.fence, "done", "done")
    with pytest.raises(LeaseLostError), unit_of_work() as session:
        tasks.hold(session, search_id, claimed.fence)
    assert must_claim(search_id).fence == claimed.fence + 1
    with reading() as session:
        assert [attempt.end for attempt in jobs.attempts(session, job_id)] == ["failed", None]


def test_a_cancelled_job_goes_on_and_can_be_cancelled_again(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    cancel(job_id)
    give_back(search_id, claimed.fence, "cancelled", "cancelled")
    assert job_of(job_id).status == "cancelled"
    job = retry(job_id)
    assert (job.status, job.cancel_requested_at) == ("queued", None)
    again = must_claim(search_id)
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, again.fence, 30) == "ok"
    cancel(job_id)
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, again.fence, 30) == "cancel"


def test_a_job_cancelled_in_verification_verifies_only_the_rest(
    job_id: UUID, search_id: UUID, verify_ids: list[UUID]
) -> None:
    run(verify_ids[0])
    dead = run(verify_ids[1], "died")
    cancel(job_id)
    assert dead is not None and candidate(dead)[0] == "failed"
    job = retry(job_id)
    assert job.status == "verifying" and 0 < job.progress < 1
    assert [task_status(task_id) for task_id in [search_id, *verify_ids]] == ["done", "done", "queued", "queued"]
    assert candidate(dead) == ("evaluated", None)
    for task_id in verify_ids[1:]:
        run(task_id)
    run(only_task(job_id, "conclude").id)
    assert job_of(job_id).status == "succeeded"


def test_a_job_cancelled_after_ordering_its_verifications_does_not_search_again(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    with unit_of_work() as session:
        tasks.hold(session, search_id, claimed.fence)
        ((found, _),) = candidates.record(session, job_id, "search", [new_candidate(1)])
        verification = tasks.add(session, job_id, "verify", found).id
    cancel(job_id)
    give_back(search_id, claimed.fence, "cancelled", "cancelled")
    retry(job_id)
    assert [task_status(search_id), task_status(verification)] == ["cancelled", "queued"]
    run(verification)
    assert task_status(only_task(job_id, "conclude").id) == "queued"


def test_a_failed_conclusion_alone_is_done_again(job_id: UUID, verify_ids: list[UUID]) -> None:
    for task_id in verify_ids:
        run(task_id)
    conclusion = only_task(job_id, "conclude").id
    run(conclusion, "died")
    assert job_of(job_id).status == "failed"
    assert retry(job_id).status == "verifying"
    assert [task_status(task_id) for task_id in [*verify_ids, conclusion]] == ["done", "done", "done", "queued"]
    run(conclusion)
    assert job_of(job_id).status == "succeeded"


def test_when_every_verification_failed_all_are_done_again_and_then_the_conclusion(
    job_id: UUID, verify_ids: list[UUID]
) -> None:
    for task_id in verify_ids:
        run(task_id, "died")
    conclusion = only_task(job_id, "conclude").id
    claimed = must_claim(conclusion)
    with unit_of_work() as session:
        jobs.finish(session, job_id, "failed", "every verification failed", by=conclusion)
    give_back(conclusion, claimed.fence, "done", "done")
    retry(job_id)
    assert {task_status(task_id) for task_id in verify_ids} == {"queued"}
    assert task_status(conclusion) == "done"
    for task_id in verify_ids:
        run(task_id)
    assert task_status(conclusion) == "queued"
    run(conclusion)
    assert job_of(job_id).status == "succeeded"
    assert phases(job_id)[-4:] == ["verifying", "failed", "verifying", "succeeded"]


def test_a_job_that_runs_or_has_succeeded_is_not_retried(job_id: UUID, search_id: UUID) -> None:
    with pytest.raises(IllegalTransitionError, match="is queued and cannot be retried; only a job that failed or was"):
        retry(job_id)
    must_claim(search_id)
    with pytest.raises(IllegalTransitionError, match="is searching and cannot be retried"):
        retry(job_id)
    cancel(job_id)
    with pytest.raises(IllegalTransitionError, match="is cancelling and cannot be retried"):
        retry(job_id)
    with pytest.raises(NotFoundError):
        retry(uuid4())


def test_a_retried_job_is_not_retried_twice(job_id: UUID, search_id: UUID) -> None:
    run(search_id, "died")
    retry(job_id)
    with pytest.raises(IllegalTransitionError, match="is queued and cannot be retried"):
        retry(job_id)


# --- candidates -------------------------------------------------------------------------------------------------------


def test_a_failed_verification_is_done_again_and_the_job_concludes_once_more(job_id: UUID, one_failed: UUID) -> None:
    assert candidate(one_failed)[0] == "failed"
    with unit_of_work() as session:
        (other, *_) = [row for row in candidates.all_values(session, job_id, "final") if row.values]
        candidates.set_test(session, other.candidate_id, {"error": 0.2})
    again = retry_candidate(one_failed)
    assert (again.status, again.failure) == ("evaluated", None)
    job = job_of(job_id)
    assert (job.status, job.ended_at) == ("verifying", None) and job.progress < 1
    conclusion = only_task(job_id, "conclude")
    assert conclusion.status == "done"
    with reading() as session:
        waiting = session.scalars(select(Task).where(Task.job_id == job_id, Task.status == "queued")).all()
    assert [(task.candidate_id, task.attempt, task.fence) for task in waiting] == [(one_failed, 0, 3)]
    run(waiting[0].id)
    assert candidate(one_failed) == ("verified", None)
    run(conclusion.id)
    job = job_of(job_id)
    assert (job.status, job.progress, job.reason) == ("succeeded", 1.0, None)
    with reading() as session:
        assert candidates.get(session, other.candidate_id).test == {"error": 0.2}
    assert phases(job_id)[-3:] == ["succeeded", "verifying", "succeeded"]


def test_a_candidate_that_fails_again_leaves_the_job_as_it_was(job_id: UUID, one_failed: UUID) -> None:
    retry_candidate(one_failed)
    with reading() as session:
        task_id = session.scalars(select(Task.id).where(Task.candidate_id == one_failed)).one()
    run(task_id, "died")
    run(only_task(job_id, "conclude").id)
    assert candidate(one_failed)[0] == "failed"
    assert job_of(job_id).status == "succeeded"


def test_one_that_could_not_be_measured_keeps_its_other_values(job_id: UUID, one_failed: UUID) -> None:
    with unit_of_work() as session:
        row = next(row for row in candidates.all_values(session, job_id, "final") if row.values)
        candidates.fail(session, row.candidate_id, "latency_ms could not be measured")
    assert retry_candidate(row.candidate_id).status == "verified"


def test_a_candidate_is_retried_while_the_others_are_verified(job_id: UUID, verify_ids: list[UUID]) -> None:
    failed = run(verify_ids[0], "died")
    assert failed is not None
    retry_candidate(failed)
    assert task_status(verify_ids[0]) == "queued"
    assert job_of(job_id).status == "verifying"
    with pytest.raises(NotRetriableError, match="its verification is queued"):
        retry_candidate(failed)


def test_what_did_not_fail_in_its_verification_is_refused_with_the_reason(job_id: UUID, verify_ids: list[UUID]) -> None:
    failed = run(verify_ids[0], "died")
    verified = run(verify_ids[1])
    assert failed is not None and verified is not None
    with unit_of_work() as session:
        broken = candidates.NewCandidate("broken", {}, 0, {}, "out of memory")
        (other, _), (bad, _) = candidates.record(session, job_id, "search", [new_candidate(7), broken])
    for candidate_id, why in (
        (verified, "it is verified; only what failed"),
        (other, "not chosen for verification"),
        (bad, "it failed in the search"),
    ):
        with pytest.raises(NotRetriableError, match=f"candidate {candidate_id} cannot be verified again: .*{why}"):
            retry_candidate(candidate_id)
    run(verify_ids[2])
    with pytest.raises(NotRetriableError, match="is being concluded; ask again when it has ended"):
        retry_candidate(failed)
    cancel(job_id)
    with pytest.raises(NotRetriableError, match="is cancelled; retry the job itself"):
        retry_candidate(failed)
    with pytest.raises(NotFoundError):
        retry_candidate(uuid4())


def test_fates_of_tasks(job_id: UUID, search_id: UUID, verify_ids: list[UUID]) -> None:
    run(verify_ids[0])
    run(verify_ids[1], "died")
    with reading() as session:
        fates = tasks.fates(session, [search_id, *verify_ids, uuid4()])
    one, two, three = verify_ids
    assert fates == {search_id: "done", one: "done", two: "failed", three: "open"}
    cancel(job_id)
    with reading() as session:
        assert tasks.fates(session, [three, search_id]) == {three: "failed", search_id: "failed"}
