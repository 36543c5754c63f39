"""A job's life from creation to deletion."""

from __future__ import annotations

from threading import Barrier, Thread
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from store import candidates, catalog, events, fronts, jobs, tasks
from store.errors import IllegalTransitionError, InvalidCursorError, NotFoundError
from store.models import Base, Job, Outbox, Task
from store.session import reading, unit_of_work
from tests.store.factories import SPEC, claim, must_claim, new_candidate, only_task, task_status


def phases(job_id: UUID) -> list[str]:
    with reading() as session:
        return [event.data["status"] for event in events.after(session, job_id, 0) if event.type == "phase"]


def status_of(job_id: UUID) -> str:
    with reading() as session:
        return jobs.get(session, job_id).status


def finish(job_id: UUID, status: str, reason: str | None = None, by: UUID | None = None) -> bool:
    with unit_of_work() as session:
        return jobs.finish(session, job_id, status, reason, by)


def cancel(job_id: UUID) -> Job:
    with unit_of_work() as session:
        return jobs.request_cancel(session, job_id)


def test_creating_stores_job_task_message_and_event_together(job_id: UUID) -> None:
    with reading() as session:
        job = jobs.get(session, job_id)
        task = session.scalars(select(Task).where(Task.job_id == job_id)).one()
        message = session.scalars(select(Outbox).where(Outbox.task_id == task.id)).one()
        (event,) = events.after(session, job_id, 0)
    assert (job.status, job.phase, job.progress, job.name, job.labels) == (
        "queued",
        "queued",
        0,
        "toy",
        {"team": "vision"},
    )
    assert job.reference_point == {"error": 0.9}
    assert job.last_seq == 1
    assert (task.kind, task.queue, task.status) == ("search", "search.cpu", "queued")
    assert (message.queue, message.sent_at) == ("search.cpu", None)
    assert (event.seq, event.type) == (1, "phase")


def test_the_device_asked_for_decides_the_queue() -> None:
    with unit_of_work() as session:
        job = jobs.create(session, {"resources": {"device": "cuda"}}, "", {})
    assert only_task(job.id, "search").queue == "search.cuda"


def test_what_is_not_there_is_named() -> None:
    missing = uuid4()
    with reading() as session, pytest.raises(NotFoundError, match=f"no job '{missing}'"):
        jobs.get(session, missing)
    with unit_of_work() as session, pytest.raises(NotFoundError, match=f"no job '{missing}'"):
        jobs.request_cancel(session, missing)


def test_pages_go_newest_first_through_all_jobs_once() -> None:
    with unit_of_work() as session:
        made = [jobs.create(session, {}, f"job {number}", {}).id for number in range(7)]
    found: list[UUID] = []
    cursor = None
    with reading() as session:
        for length in (3, 3, 1):
            page, cursor = jobs.page(session, cursor=cursor, limit=3)
            assert len(page) == length
            found += [job.id for job in page]
    assert cursor is None
    assert found == made[::-1]


def test_a_job_added_while_paging_moves_no_page() -> None:
    with unit_of_work() as session:
        made = [jobs.create(session, {}, "", {}).id for _ in range(4)]
    with reading() as session:
        _, cursor = jobs.page(session, limit=2)
    with unit_of_work() as session:
        jobs.create(session, {}, "", {})
    with reading() as session:
        page, _ = jobs.page(session, cursor=cursor, limit=2)
    assert [job.id for job in page] == made[1::-1]


def test_pages_are_filtered() -> None:
    with unit_of_work() as session:
        one = jobs.create(session, {}, "one", {"team": "vision", 'odd "key".[0]': "1"}).id
        two = jobs.create(session, {}, "two", {"team": "speech"}).id
    finish(two, "failed", "why")
    with reading() as session:
        for given, expected in (
            ({"status": "failed"}, [two]),
            ({"status": "queued"}, [one]),
            ({"name": "one"}, [one]),
            ({"label": "team=speech"}, [two]),
            ({"label": "team"}, [two, one]),
            ({"label": 'odd "key".[0]=1'}, [one]),
            ({"label": "team=sp"}, []),
            ({"label": "nobody"}, []),
            ({"label": "team=vision", "status": "failed"}, []),
        ):
            found, _ = jobs.page(session, **given)  # type: ignore[arg-type]
            assert [job.id for job in found] == expected, given


@pytest.mark.parametrize("cursor", ["", "x", "bm90IGpzb24", "WzEsMl0", "WyJhIiwiYiJd", "Wy" * 40])
def test_a_made_up_cursor_is_refused(cursor: str) -> None:
    with reading() as session, pytest.raises(InvalidCursorError, match="not one of this list"):
        jobs.page(session, cursor=cursor)


def test_phases_are_told_once_and_progress_silently(job_id: UUID) -> None:
    with unit_of_work() as session:
        for progress in (0.1, 0.2):
            jobs.set_phase(session, job_id, status="searching", phase="warm-up", progress=progress)
        jobs.set_phase(session, job_id, progress=0.3)
    with reading() as session:
        job = jobs.get(session, job_id)
    assert (job.status, job.phase, job.progress) == ("searching", "warm-up", 0.3)
    assert phases(job_id) == ["queued", "searching"]


def test_what_has_ended_moves_no_more(job_id: UUID) -> None:
    assert finish(job_id, "failed", "no data")
    with unit_of_work() as session:
        jobs.set_phase(session, job_id, status="searching", phase="searching", progress=0.5)
        jobs.set_phase(session, job_id, progress=0.5)
    with reading() as session:
        job = jobs.get(session, job_id)
    assert (job.status, job.progress, job.reason) == ("failed", 0.0, "no data")


def test_the_reference_point_is_fixed_once_given(job_id: UUID) -> None:
    with unit_of_work() as session:
        assert jobs.set_reference_point(session, job_id, {"error": 0.5, "params": 7.0}) == {"error": 0.9, "params": 7.0}
        assert jobs.set_reference_point(session, job_id, {"params": 8.0}) == {"error": 0.9, "params": 7.0}
    with reading() as session:
        assert jobs.get(session, job_id).reference_point == {"error": 0.9, "params": 7.0}


def test_finishing_closes_everything_and_happens_once(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id)
    assert finish(job_id, "succeeded")
    assert not finish(job_id, "failed", "too late")
    with reading() as session:
        job = jobs.get(session, job_id)
        (attempt,) = jobs.attempts(session, job_id)
    assert (job.status, job.phase, job.progress, job.reason) == ("succeeded", "succeeded", 1.0, None)
    assert job.ended_at is not None
    assert attempt.ended_at is not None
    assert attempt.end == "cancelled"
    assert task_status(search_id) == "cancelled"
    assert phases(job_id) == ["queued", "searching", "succeeded"]


def test_the_task_that_finishes_its_job_ends_afterwards(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    assert finish(job_id, "failed", "no data", by=search_id)
    with unit_of_work() as session:
        assert tasks.end(session, search_id, claimed.fence, status="done", end="done", cpu_seconds=2.5)
    with reading() as session:
        (attempt,) = jobs.attempts(session, job_id)
    assert (attempt.end, attempt.cpu_seconds, task_status(search_id)) == ("done", 2.5, "done")
    assert status_of(job_id) == "failed"
    with reading() as session:
        assert tasks.open_count(session, job_id, "conclude") == 0


def test_of_many_that_finish_a_job_one_wins(job_id: UUID) -> None:
    barrier, results = Barrier(4), list[bool]()

    def run(reason: str) -> None:
        barrier.wait(10)
        results.append(finish(job_id, "failed", reason))

    threads = [Thread(target=run, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [False, False, False, True]
    assert phases(job_id) == ["queued", "failed"]


def test_a_job_finishes_only_as_an_end(job_id: UUID) -> None:
    with unit_of_work() as session, pytest.raises(ValueError, match="cancelled, failed, succeeded, not as 'verifying'"):
        jobs.finish(session, job_id, "verifying")


def test_a_queued_job_is_cancelled_at_once(job_id: UUID, search_id: UUID) -> None:
    job = cancel(job_id)
    assert (job.status, job.reason) == ("cancelled", "cancelled on request")
    assert job.ended_at is not None
    assert job.cancel_requested_at is not None
    assert task_status(search_id) == "cancelled"
    assert claim(search_id) is None
    assert phases(job_id) == ["queued", "cancelled"]


def test_a_searching_job_is_cancelled_when_its_worker_has_stopped(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    assert cancel(job_id).status == "cancelling"
    assert cancel(job_id).status == "cancelling"  # asking again is harmless
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, claimed.fence, 30) == "cancel"
        tasks.hold(session, search_id, claimed.fence)  # what was found is still kept
        candidates.record(session, job_id, "search", [new_candidate(1)])
        jobs.set_phase(session, job_id, status="verifying", phase="verifying")
    assert status_of(job_id) == "cancelling"
    with unit_of_work() as session:
        assert tasks.end(session, search_id, claimed.fence, status="cancelled", end="cancelled", exit_signal=15)
    assert status_of(job_id) == "cancelled"
    with reading() as session:
        (attempt,) = jobs.attempts(session, job_id)
        assert len(candidates.all_values(session, job_id, "search")) == 1
    assert (attempt.end, attempt.exit_signal) == ("cancelled", 15)
    assert phases(job_id) == ["queued", "searching", "cancelling", "cancelling", "cancelled"]


def test_a_verifying_job_is_cancelled_when_its_last_worker_has_stopped(job_id: UUID, verify_ids: list[UUID]) -> None:
    first, second = must_claim(verify_ids[0]), must_claim(verify_ids[1])
    assert cancel(job_id).status == "cancelling"
    assert task_status(verify_ids[2]) == "cancelled"
    with unit_of_work() as session:
        assert tasks.end(session, verify_ids[0], first.fence, status="queued", end="died")
    assert (task_status(verify_ids[0]), status_of(job_id)) == ("cancelled", "cancelling")
    with unit_of_work() as session:
        assert tasks.end(session, verify_ids[1], second.fence, status="done", end="done")
    assert (task_status(verify_ids[1]), status_of(job_id)) == ("done", "cancelled")
    with reading() as session:
        assert tasks.open_count(session, job_id, "conclude") == 0


def test_a_job_whose_worker_is_gone_is_cancelled_at_once(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id, lease_seconds=-1)
    assert cancel(job_id).status == "cancelled"


def test_a_cancelled_job_whose_worker_dies_is_closed_by_the_reaper(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    assert cancel(job_id).status == "cancelling"
    with unit_of_work() as session:
        assert tasks.heartbeat(session, search_id, claimed.fence, -1) == "cancel"
    with unit_of_work() as session:
        assert tasks.reap(session) == 1
    assert status_of(job_id) == "cancelled"


def test_failing_while_being_cancelled_is_being_cancelled(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id)
    cancel(job_id)
    assert finish(job_id, "failed", "terminated")
    with reading() as session:
        job = jobs.get(session, job_id)
    assert (job.status, job.reason) == ("cancelled", "cancelled on request")


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_what_has_ended_is_not_cancelled(job_id: UUID, status: str) -> None:
    finish(job_id, status)
    with pytest.raises(IllegalTransitionError, match=f"is {status} and cannot be cancelled"):
        cancel(job_id)


def test_deleting_takes_all_rows_and_names_the_files(job_id: UUID, verify_ids: list[UUID]) -> None:
    with unit_of_work() as session:
        other = jobs.create(session, SPEC, "other", {})
        members = [row.candidate_id for row in candidates.all_values(session, job_id, "search")]
        fronts.replace(session, job_id, "search", members, 0.5, members[0])
        candidates.add_artefact(session, members[0], job_id, "safetensors", "a/b.safetensors", "0" * 64, 10)
    refused = pytest.raises(IllegalTransitionError, match="cannot be deleted before it has ended; cancel it first")
    with refused, unit_of_work() as session:
        jobs.delete(session, job_id)
    finish(job_id, "succeeded")
    with unit_of_work() as session:
        assert jobs.delete(session, job_id) == ["a/b.safetensors"]
    with reading() as session:
        left = {
            table.name: session.execute(select(func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
        }
        assert jobs.get(session, other.id).name == "other"
    remaining = {name: count for name, count in left.items() if count}
    assert remaining == {"jobs": 1, "tasks": 1, "outbox": 1, "events": 1, "loose_files": 1}, "the file is to be removed"


def test_attempts_and_fronts_of_several_jobs_come_in_one_query(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id, "early", lease_seconds=-1)
    must_claim(search_id, "late")
    with unit_of_work() as session:
        other = jobs.create(session, SPEC, "", {}).id
        ((candidate_id, _),) = candidates.record(session, job_id, "search", [new_candidate(1)])
        fronts.replace(session, job_id, "search", [candidate_id], None, None)
    with reading() as session:
        attempts = jobs.attempts_of(session, [job_id, other])
        counts = jobs.front_counts(session, [job_id, other])
    assert [(a.worker, a.kind, a.number, a.end) for a in attempts[job_id]] == [
        ("early", "search", 1, "died"),
        ("late", "search", 2, None),
    ]
    assert attempts[other] == []
    assert counts == {job_id: {"search": 1, "final": 0}, other: {"search": 0, "final": 0}}


def publish(name: str, device: str = "cpu", memory_gb: float = 4.0) -> None:
    queues = [f"{stage}.{device}" for stage in ("search", "verify", "measure")]
    made = {"entries": [], "device": device, "threads": 1, "memory_gb": memory_gb, "versions": {}}
    with unit_of_work() as session:
        catalog.publish(session, {"name": name, "host": "here", "queues": queues}, made)


def test_a_job_says_what_it_waits_for() -> None:
    with unit_of_work() as session:
        job = jobs.create(session, {"resources": {"device": "cuda", "min_memory_gb": 16}}, "", {})

    def waiting() -> str | None:
        with reading() as session:
            return jobs.waiting_for(session, jobs.get(session, job.id))

    assert waiting() == "a worker on queue search.cuda, device cuda (`skyline worker --device cuda`); live: none"
    publish("one")
    assert waiting() == "a worker on queue search.cuda, device cuda (`skyline worker --device cuda`); live: one (cpu)"
    publish("two", "cuda", 8)
    assert waiting() == "a worker on queue search.cuda with at least 16 GB of memory; the largest has 8 GB"
    publish("three", "cuda", 24)
    assert waiting() is None
    with unit_of_work() as session:
        catalog.drain(session, "three")
    assert waiting() is not None


def test_a_running_job_waits_for_nothing(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id)
    with reading() as session:
        assert jobs.waiting_for(session, jobs.get(session, job_id)) is None
