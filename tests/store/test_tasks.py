"""Claims, leases, fences and what becomes of a task whose worker died."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from store import candidates, catalog, events, jobs, tasks
from store.errors import LeaseLostError
from store.models import Outbox, Task
from store.session import reading, unit_of_work
from tests.store.factories import SPEC, claim, must_claim, new_candidate, only_task, task_status


def end(task_id: UUID, fence: int, status: str, how: str, **used: object) -> bool:
    with unit_of_work() as session:
        return tasks.end(session, task_id, fence, status=status, end=how, **used)  # type: ignore[arg-type]


def reap() -> int:
    with unit_of_work() as session:
        return tasks.reap(session)


def job(job_id: UUID) -> tuple[str, str | None]:
    with reading() as session:
        found = jobs.get(session, job_id)
        return found.status, found.reason


def messages(task_id: UUID) -> int:
    with reading() as session:
        return len(session.scalars(select(Outbox).where(Outbox.task_id == task_id)).all())


def test_a_claim_has_all_that_a_worker_needs(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id, "worker-1")
    assert (claimed.task_id, claimed.job_id, claimed.kind, claimed.candidate_id) == (search_id, job_id, "search", None)
    assert (claimed.fence, claimed.attempt, claimed.spec, claimed.status) == (1, 1, SPEC, "searching")
    with reading() as session:
        found = jobs.get(session, job_id)
        (attempt,) = jobs.attempts(session, job_id)
    assert (found.status, found.phase) == ("searching", "searching")
    assert found.started_at is not None
    assert (attempt.worker, attempt.device, attempt.threads, attempt.ended_at) == ("worker-1", "cpu", 1, None)


def test_a_task_is_claimed_once(search_id: UUID) -> None:
    must_claim(search_id)
    assert claim(search_id, "two") is None


def test_what_is_done_or_unknown_is_not_claimed(search_id: UUID) -> None:
    claimed = must_claim(search_id)
    assert end(search_id, claimed.fence, "done", "done")
    assert claim(search_id) is None
    assert claim(uuid4()) is None


def test_an_expired_lease_is_taken_over_and_the_attempt_before_died(job_id: UUID, search_id: UUID) -> None:
    first = must_claim(search_id, "one", lease_seconds=-1)
    second = must_claim(search_id, "two")
    assert (second.fence, second.attempt) == (first.fence + 1, 2)
    with reading() as session:
        attempts = jobs.attempts(session, job_id)
    assert [(attempt.number, attempt.worker, attempt.end) for attempt in attempts] == [
        (1, "one", "died"),
        (2, "two", None),
    ]
    assert attempts[0].ended_at is not None


def test_a_zombie_changes_no_row(job_id: UUID, search_id: UUID) -> None:
    zombie = must_claim(search_id, "one", lease_seconds=-1)
    successor = must_claim(search_id, "two")
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, zombie.fence, 30) == "lost"
    with pytest.raises(LeaseLostError, match=f"no longer held under fence {zombie.fence}"), unit_of_work() as session:
        tasks.hold(session, search_id, zombie.fence)
        candidates.record(session, job_id, "search", [new_candidate(1)])
    for status in ("done", "failed", "queued", "cancelled"):
        assert not end(search_id, zombie.fence, status, "done")
    with reading() as session:
        task = session.get_one(Task, search_id)
        assert (task.status, task.lease_owner, task.fence) == ("running", "two", successor.fence)
        assert candidates.all_values(session, job_id, "search") == []
        assert [attempt.end for attempt in jobs.attempts(session, job_id)] == ["died", None]
    with unit_of_work() as session:
        tasks.hold(session, search_id, successor.fence)


def test_a_zombie_of_a_reaped_task_changes_no_row_either(search_id: UUID) -> None:
    zombie = must_claim(search_id, lease_seconds=-1)
    assert reap() == 1
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, zombie.fence, 30) == "lost"
    with unit_of_work() as session, pytest.raises(LeaseLostError):
        tasks.hold(session, search_id, zombie.fence)
    assert not end(search_id, zombie.fence, "done", "done")
    assert task_status(search_id) == "queued"


def test_a_deleted_task_is_lost(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    with unit_of_work() as session:
        jobs.finish(session, job_id, "failed", "no data")
    with unit_of_work() as session:
        jobs.delete(session, job_id)
    with unit_of_work() as session, pytest.raises(LeaseLostError):
        tasks.hold(session, search_id, claimed.fence)
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, claimed.fence, 30) == "lost"


def test_a_heartbeat_keeps_the_lease(search_id: UUID) -> None:
    claimed = must_claim(search_id, lease_seconds=-1)
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, claimed.fence, 30) == "ok"
    assert claim(search_id, "two") is None
    assert reap() == 0


def test_a_drained_attempt_does_not_count(job_id: UUID, search_id: UUID) -> None:
    for round_ in range(1, 6):
        claimed = must_claim(search_id)
        assert (claimed.attempt, claimed.fence) == (1, round_)
        assert end(search_id, claimed.fence, "queued", "drained", cpu_seconds=1.0)
        assert messages(search_id) == round_ + 1
    assert job(job_id) == ("searching", None)
    with reading() as session:
        ends = [(attempt.number, attempt.end) for attempt in jobs.attempts(session, job_id)]
    assert ends == [(number, "drained") for number in range(1, 6)]


def test_a_search_that_always_dies_fails_its_job_with_signal_and_log(job_id: UUID, search_id: UUID) -> None:
    for _ in range(3):
        claimed = must_claim(search_id, "w1")
        used = {"exit_signal": 9, "cpu_seconds": 1.5, "peak_memory_mb": 80.0, "detail": "Killed, says the log"}
        assert end(search_id, claimed.fence, "queued", "died", **used)
    assert claim(search_id) is None
    status, reason = job(job_id)
    assert status == "failed"
    assert reason == (
        "the search died 3 times, the most that is allowed; the last time on worker w1: killed (SIGKILL): often the "
        "system's out-of-memory killer; peak memory 80 MB\nKilled, says the log"
    )
    assert task_status(search_id) == "failed"
    with reading() as session:
        attempts = jobs.attempts(session, job_id)
    assert [(a.end, a.exit_signal, a.cpu_seconds, a.peak_memory_mb) for a in attempts] == [("died", 9, 1.5, 80.0)] * 3


def test_a_verification_that_always_dies_costs_one_candidate(job_id: UUID, verify_ids: list[UUID]) -> None:
    for _ in range(3):
        claimed = must_claim(verify_ids[0])
        assert end(verify_ids[0], claimed.fence, "queued", "died", exit_signal=11)
    assert job(job_id) == ("verifying", None)
    with reading() as session:
        assert claimed.candidate_id is not None
        candidate = candidates.get(session, claimed.candidate_id)
        assert tasks.counts(session, job_id, "verify") == {"failed": 1, "queued": 2}
        warning = events.after(session, job_id, 0)[-1]
    assert candidate.status == "failed"
    assert candidate.failure is not None
    assert "the verification died 3 times" in candidate.failure
    assert "SIGSEGV" in candidate.failure
    assert (warning.type, warning.data["candidate"]) == ("warning", str(candidate.id))


def test_the_conclusion_comes_after_the_last_verification_however_it_ends(job_id: UUID, verify_ids: list[UUID]) -> None:
    for task_id, status in ((verify_ids[0], "done"), (verify_ids[1], "failed")):
        claimed = must_claim(task_id)
        assert end(task_id, claimed.fence, status, status)
    with reading() as session:
        assert tasks.open_count(session, job_id, "verify") == 1
        assert tasks.open_count(session, job_id, "conclude") == 0
    for _ in range(3):
        must_claim(verify_ids[2], lease_seconds=-1)
    assert reap() == 1
    conclude = only_task(job_id, "conclude")
    assert (conclude.queue, conclude.status, messages(conclude.id)) == ("measure.cpu", "queued", 1)
    claimed = must_claim(conclude.id)
    assert (claimed.kind, claimed.status) == ("conclude", "verifying")


def test_a_search_without_verification_is_concluded(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    assert end(search_id, claimed.fence, "done", "done")
    assert only_task(job_id, "conclude").status == "queued"


def test_verifications_that_end_before_the_search_conclude_nothing(job_id: UUID, search_id: UUID) -> None:
    search = must_claim(search_id)
    with unit_of_work() as session:
        ((candidate_id, _),) = candidates.record(session, job_id, "search", [new_candidate(1)])
        verify_id = tasks.add(session, job_id, "verify", candidate_id).id
    verify = must_claim(verify_id)
    assert end(verify_id, verify.fence, "done", "done")
    with reading() as session:
        assert tasks.open_count(session, job_id, "conclude") == 0
    assert end(search_id, search.fence, "done", "done")
    with reading() as session:
        assert tasks.open_count(session, job_id, "conclude") == 1


def test_a_conclusion_that_always_dies_fails_the_job(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    assert end(search_id, claimed.fence, "done", "done")
    conclude_id = only_task(job_id, "conclude").id
    for _ in range(3):
        must_claim(conclude_id, lease_seconds=-1)
    assert claim(conclude_id) is None  # a message for it finds the attempts used up
    status, reason = job(job_id)
    assert status == "failed"
    assert reason is not None
    assert reason.startswith("the conclusion died 3 times")


def test_used_up_attempts_end_at_the_claim_too(job_id: UUID, search_id: UUID) -> None:
    for _ in range(2):
        assert claim(search_id, "one", -1, max_attempts=2) is not None
    assert claim(search_id, "one", 30, max_attempts=2) is None
    assert job(job_id) == (
        "failed",
        "the search died 2 times, the most that is allowed; the last time on worker one: died",
    )


def test_the_reaper_wakes_workers_for_dead_ones(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id, lease_seconds=-1)
    assert reap() == 1
    assert (task_status(search_id), messages(search_id)) == ("queued", 2)
    with reading() as session:
        (attempt,) = jobs.attempts(session, job_id)
        told = events.after(session, job_id, 0)[-1]
    assert attempt.end == "died"
    assert (told.type, told.data["end"]) == ("attempt", "died")
    assert reap() == 0  # once is enough
    assert must_claim(search_id).attempt == 2


def test_the_reaper_ends_what_is_used_up(job_id: UUID, search_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_MAX_ATTEMPTS", "1")
    must_claim(search_id, lease_seconds=-1)
    assert reap() == 1
    assert job(job_id)[0] == "failed"


def test_the_reaper_closes_what_a_finished_job_left(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id, lease_seconds=-1)
    with unit_of_work() as session:
        jobs.finish(session, job_id, "succeeded", by=search_id)
    assert reap() == 1
    assert (task_status(search_id), messages(search_id)) == ("cancelled", 1)
    assert job(job_id) == ("succeeded", None)


def test_adding_twice_adds_once(job_id: UUID) -> None:
    with unit_of_work() as session:
        ((candidate_id, _),) = candidates.record(session, job_id, "search", [new_candidate(1)])
        first = tasks.add(session, job_id, "verify", candidate_id, "cuda:1")
        assert tasks.add(session, job_id, "verify", candidate_id).id == first.id
        assert tasks.add(session, job_id, "conclude").id == tasks.add(session, job_id, "conclude").id
        assert tasks.open_count(session, job_id, "verify") == 1
    assert first.queue == "verify.cuda"
    assert messages(first.id) == 1


def register(name: str, memory_gb: float) -> None:
    made = {"entries": [], "device": "cpu", "threads": 1, "memory_gb": memory_gb, "versions": {}}
    with unit_of_work() as session:
        catalog.publish(session, {"name": name, "host": "here", "queues": ["search.cpu"]}, made)


def test_a_worker_takes_nothing_that_is_too_large_for_it() -> None:
    with unit_of_work() as session:
        job_id = jobs.create(session, {"resources": {"min_memory_gb": 16}}, "", {}).id
    task_id = only_task(job_id, "search").id
    register("small", 8)
    register("large", 32)
    assert claim(task_id, "small") is None
    assert claim(task_id, "large") is not None


def test_a_draining_worker_takes_nothing(search_id: UUID) -> None:
    register("leaving", 8)
    with unit_of_work() as session:
        catalog.drain(session, "leaving")
    assert claim(search_id, "leaving") is None
    assert claim(search_id, "staying") is not None


def test_a_lease_is_compared_by_the_databases_clock(search_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    must_claim(search_id, lease_seconds=3600)
    with unit_of_work() as session:
        if session.get_bind().dialect.name == "sqlite":
            pytest.skip("SQLite's clock is this host's")

    class Fast:
        @staticmethod
        def now(zone: object) -> object:
            raise AssertionError("this host's clock was asked")

    monkeypatch.setattr("store.clock.datetime", Fast)
    assert claim(search_id, "two") is None
