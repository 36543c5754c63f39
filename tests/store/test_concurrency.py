"""Many at once: no task is claimed twice, no event number comes out of order, no writer is thrown out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import TypeVar
from uuid import UUID

from sqlalchemy import select

from store import candidates, events, jobs, tasks
from store.models import Outbox, Task
from store.session import reading, unit_of_work
from tests.store.factories import SPEC, claim, must_claim, new_candidate

Result = TypeVar("Result")

CLAIM_ALL = """
import sys
from uuid import UUID
from store import tasks
from store.session import unit_of_work
print("ready", flush=True)
sys.stdin.readline()
for line in sys.argv[2:]:
    with unit_of_work() as session:
        if tasks.claim(session, UUID(line), sys.argv[1], "cpu", 1, 30.0, 3) is not None:
            print(line, flush=True)
"""


def search_tasks(count: int) -> list[UUID]:
    with unit_of_work() as session:
        made = [jobs.create(session, SPEC, "", {}).id for _ in range(count)]
    with reading() as session:
        return list(session.scalars(select(Task.id).where(Task.job_id.in_(made))))


def at_once(runs: list[Callable[[], Result]]) -> list[Result]:
    barrier = Barrier(len(runs))

    def start(run: Callable[[], Result]) -> Result:
        barrier.wait(30)
        return run()

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(start, runs))


def test_two_claimers_get_a_task_once(search_id: UUID) -> None:
    claims = at_once([lambda: claim(search_id, "one"), lambda: claim(search_id, "two")])
    assert sum(found is not None for found in claims) == 1


def test_two_claimers_take_an_expired_lease_once(job_id: UUID, search_id: UUID) -> None:
    must_claim(search_id, lease_seconds=-1)
    claims = at_once([lambda: claim(search_id, "one"), lambda: claim(search_id, "two")])
    assert sorted(found.fence for found in claims if found is not None) == [2]
    with reading() as session:
        assert [attempt.end for attempt in jobs.attempts(session, job_id)] == ["died", None]


def test_six_threads_claim_sixty_tasks_none_twice() -> None:
    waiting = search_tasks(60)

    def take_all(owner: str) -> list[UUID]:
        return [task_id for task_id in waiting if claim(task_id, owner) is not None]

    taken = at_once([lambda owner=f"worker-{number}": take_all(owner) for number in range(6)])  # type: ignore[misc]
    assert sorted(task_id for part in taken for task_id in part) == sorted(waiting)
    with reading() as session:
        found = session.scalars(select(Task)).all()
    assert {(task.status, task.fence, task.attempt) for task in found} == {("running", 1, 1)}


def test_two_processes_claim_twelve_tasks_none_twice() -> None:
    waiting = [str(task_id) for task_id in search_tasks(12)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, name, *waiting], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    taken = [line for worker in workers for line in worker.communicate(timeout=60)[0].split()]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(taken) == sorted(waiting)


def test_events_are_numbered_in_order_of_commit(job_id: UUID) -> None:
    """A reader that goes on from the last number it saw misses nothing, whatever the writers do."""
    done = Event()

    def write(name: int) -> None:
        for number in range(15):
            with unit_of_work() as session:
                events.append(session, job_id, [("progress", {"writer": name, "n": number})] * (1 + number % 3))

    def read() -> list[int]:
        seen: list[int] = []
        while True:
            finished = done.is_set()  # asked before reading, so that the last round sees everything
            with reading() as session:
                found = [event.seq for event in events.after(session, job_id, seen[-1] if seen else 0, limit=1000)]
            seen += found
            if finished and not found:
                return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            at_once([lambda name=name: write(name) for name in range(4)])  # type: ignore[misc]
        finally:
            done.set()
        seen = reader.result(60)
    assert seen == list(range(1, 1 + 4 * 30 + 1))


def test_replays_at_once_store_a_candidate_once(job_id: UUID) -> None:
    items = [new_candidate(number) for number in range(20)]

    def replay() -> list[tuple[UUID, bool]]:
        with unit_of_work() as session:
            return candidates.record(session, job_id, "search", items)

    first, second = at_once([replay, replay])
    assert [candidate_id for candidate_id, _ in first] == [candidate_id for candidate_id, _ in second]
    assert {new for _, new in first} ^ {new for _, new in second} == {True, False}


def test_the_last_verifications_end_at_once_and_bring_one_conclusion(job_id: UUID, verify_ids: list[UUID]) -> None:
    held = [must_claim(task_id) for task_id in verify_ids]

    def end(claimed: tasks.Claim) -> bool:
        with unit_of_work() as session:
            return tasks.end(session, claimed.task_id, claimed.fence, status="done", end="done")

    assert at_once([lambda claimed=claimed: end(claimed) for claimed in held]) == [True] * 3  # type: ignore[misc]
    with reading() as session:
        assert tasks.counts(session, job_id, "conclude") == {"queued": 1}


def test_reapers_at_once_wake_one_worker(search_id: UUID) -> None:
    must_claim(search_id, lease_seconds=-1)

    def reap() -> int:
        with unit_of_work() as session:
            return tasks.reap(session)

    assert sorted(at_once([reap, reap])) == [0, 1]
    with reading() as session:
        assert len(session.scalars(select(Outbox).where(Outbox.task_id == search_id)).all()) == 2


def test_cancelling_recording_and_beating_at_once_end_in_order(job_id: UUID, search_id: UUID) -> None:
    """They meet at the same rows; nobody deadlocks."""
    claimed = must_claim(search_id)

    def record() -> None:
        for number in range(10):
            with unit_of_work() as session:
                tasks.hold(session, search_id, claimed.fence)
                candidates.record(session, job_id, "search", [new_candidate(number)])
                events.append(session, job_id, [("candidate", {})])

    def beat() -> None:
        for _ in range(10):
            with unit_of_work() as session:
                assert tasks.heartbeat(session, search_id, claimed.fence, 30) in ("ok", "cancel")

    def cancel() -> None:
        with unit_of_work() as session:
            jobs.request_cancel(session, job_id)

    at_once([record, beat, cancel])
    with unit_of_work() as session:
        assert tasks.end(session, search_id, claimed.fence, status="cancelled", end="cancelled")
    with reading() as session:
        assert jobs.get(session, job_id).status == "cancelled"
        assert len(candidates.all_values(session, job_id, "search")) == 10
