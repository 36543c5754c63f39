"""What single faults must not do, on real processes: run twice, write late, outlive a cancel, lose an event."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from celery import Celery
from sqlalchemy import select

from skyline import Client
from skyline.schemas import Event, Job
from skyline.schemas.answers import ENDED
from store.models import Task
from store.queue import MESSAGE
from store.session import reading
from store.settings import settings
from tests.chaos.campaign import SPARE, outcome
from tests.chaos.world import World, is_alive, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

LONG: dict[str, Any] = {**SPARE, "budget": {"evaluations": 5000}}
LONG_VERIFICATION: dict[str, Any] = {**SPARE, "verify": {"top": 2, "epochs": 1000, "batch": 16}}


@pytest.fixture(scope="module")
def world(short_folder: Path) -> Iterator[World]:
    with World(short_folder / "life", "sqlite") as made:
        yield made


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with Client(world.url) as made:
        yield made


def ended(client: Client, job_id: UUID) -> Job:
    """The job, once all its attempts are closed."""

    def closed() -> Job | None:
        job = client.job(job_id)
        return job if job.status in ENDED and all(attempt.ended_at for attempt in job.attempts) else None

    return until("end of the job", closed)


def running(world: World, client: Client, job_id: UUID, status: str) -> list[psutil.Process]:
    """The processes that work on a job, once it has reached this status."""
    until(f"status {status}", lambda: client.job(job_id).status == status)
    return until("process", lambda: world.at_work(job_id))


def test_a_message_that_comes_three_times_runs_once(world: World, client: Client) -> None:
    job = client.submit(LONG)
    running(world, client, job.id, "searching")
    with reading() as session:
        task = session.scalars(select(Task).where(Task.job_id == job.id)).one()
    app = Celery(broker=settings().broker_url, set_as_current=False)
    with app.connection_for_write() as connection:
        for _ in range(3):
            app.send_task(MESSAGE, args=[str(task.id)], queue=task.queue, connection=connection)
    other = client.submit(SPARE)  # came after them: once it is through, the second worker has seen them all
    assert ended(client, other.id).status == "succeeded"
    assert [attempt.number for attempt in client.job(job.id).attempts] == [1]
    client.cancel(job.id)
    assert ended(client, job.id).status == "cancelled"


def test_a_worker_that_wakes_up_after_its_lease_changes_nothing(world: World, client: Client) -> None:
    calm = outcome(client, ended(client, client.submit({**SPARE, "seed": 3}).id))
    job = client.submit({**SPARE, "seed": 3})
    asleep = running(world, client, job.id, "searching")
    (sleeper,) = world.busy(job.id)
    with world.suspended(sleeper):
        finished = ended(client, job.id)
    until("end of the process that slept", lambda: not any(is_alive(process) for process in asleep))
    assert outcome(client, finished) == calm
    assert outcome(client, client.job(job.id)) == calm
    ends = {attempt.worker: attempt.end for attempt in finished.attempts if attempt.kind == "search"}
    assert ends[sleeper] == "died" and "done" in ends.values()


@pytest.mark.parametrize("status", ["queued", "searching", "verifying"])
def test_cancel_ends_every_process_and_keeps_what_was_found(world: World, client: Client, status: str) -> None:
    blockers = [client.submit({**LONG, "seed": seed}) for seed in (1, 2)] if status == "queued" else []
    blocking = [process for job in blockers for process in running(world, client, job.id, "searching")]
    job = client.submit(LONG_VERIFICATION if status == "verifying" else LONG)
    mine: list[psutil.Process] = []
    if status != "queued":
        mine = running(world, client, job.id, status)
        until("first candidate", lambda: next(iter(client.candidates(job.id)), None))
    client.cancel(job.id)
    stopped = ended(client, job.id)
    assert stopped.status == "cancelled"
    until("end of the processes", lambda: not any(is_alive(process) for process in mine))
    assert {attempt.end for attempt in stopped.attempts} <= {"cancelled", "done"}
    assert bool(list(client.candidates(job.id))) == (status != "queued")
    assert all(is_alive(process) for process in blocking), "another job's process was hit"
    for blocker in blockers:
        client.cancel(blocker.id)
        assert ended(client, blocker.id).status == "cancelled"


def test_a_stream_misses_nothing_while_the_api_comes_and_goes(world: World, client: Client) -> None:
    job = client.submit({**SPARE, "budget": {"evaluations": 6}})
    seen: list[Event] = []

    def listen() -> None:
        with Client(world.url) as listener:
            seen.extend(listener.watch(job.id))

    listening = threading.Thread(target=listen)
    listening.start()
    for status in ("searching", "verifying"):
        until(f"status {status}", lambda status=status: world.status(job.id)[0] in (status, *ENDED))  # type: ignore[misc]
        world.kill_api()
        world.mend()
    ended(client, job.id)
    listening.join(timeout=120)
    assert not listening.is_alive()
    last = client.events(job.id, after=seen[-1].seq).items
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1)) and len(last) <= 1
    assert seen == client.events(job.id).items[: len(seen)]
