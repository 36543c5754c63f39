"""From rows to the broker: nothing is lost, whatever is down and whenever."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import select

from store import jobs, queue, tasks
from store.models import Outbox, Task
from store.session import now, reading, unit_of_work
from store.settings import settings
from tests.store.factories import SPEC, change, must_claim


@contextmanager
def client(url: str) -> Iterator[Redis]:
    with Redis(unix_socket_path=url.removeprefix("redis+socket://")) as found:
        yield found


@contextmanager
def listening_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The broker's address is that of somebody who never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setenv("SKYLINE_BROKER_URL", f"redis://127.0.0.1:{listening.getsockname()[1]}/0")
        monkeypatch.setattr(queue, "REPLY_SECONDS", 0.1)
        yield listening


def delivered(url: str, name: str = "search.cpu") -> list[UUID]:
    """Task ids in the broker's queue, oldest first."""
    with client(url) as found:
        messages = [json.loads(raw) for raw in found.lrange(name, 0, -1)]
    assert all(message["headers"]["task"] == "worker.run" for message in messages)
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    return [UUID(body[0][0]) for body in bodies][::-1]


def unsent() -> int:
    with reading() as session:
        return len(session.scalars(select(Outbox).where(Outbox.sent_at.is_(None))).all())


def create() -> UUID:
    """A job; returns its search task."""
    with unit_of_work() as session:
        job_id = jobs.create(session, SPEC, "", {}).id
    with reading() as session:
        return session.scalars(select(Task.id).where(Task.job_id == job_id)).one()


def reap() -> int:
    with unit_of_work() as session:
        return tasks.reap(session)


def now_minus(seconds: float) -> datetime:
    with reading() as session:
        return now(session) - timedelta(seconds=seconds)


def age(task_id: UUID, seconds: float) -> None:
    """Lets time pass since the task's messages."""
    at = now_minus(seconds)
    change(Outbox, {"created_at": at, "sent_at": at}, Outbox.task_id == task_id)


def test_a_commit_is_followed_by_its_message(live_broker: str) -> None:
    task_id = create()
    assert delivered(live_broker) == [task_id]
    assert unsent() == 0


def test_a_rollback_sends_nothing(live_broker: str) -> None:
    with pytest.raises(RuntimeError), unit_of_work() as session:
        jobs.create(session, SPEC, "", {})
        raise RuntimeError
    assert queue.relay() == 0
    assert delivered(live_broker) == []


def test_a_dead_broker_fails_no_commit_and_gets_everything_later(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = [create() for _ in range(3)]
    assert unsent() == 3
    assert queue.relay() == 0
    assert "does not answer; 3 messages wait" in caplog.text
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker_url)
    assert queue.relay() == 3
    assert delivered(broker_url) == made
    assert queue.relay() == 0
    assert unsent() == 0


def test_a_crash_between_commit_and_message_is_made_good(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(queue, "flush", lambda: 0)  # the process dies here
        task_id = create()
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker_url)
    assert delivered(broker_url) == []
    assert queue.relay() == 1
    assert delivered(broker_url) == [task_id]


def test_a_dead_broker_is_asked_once_and_never_by_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose client would try again for seconds, in every request that commits."""
    create()
    monkeypatch.delattr(queue, "_celery")
    with listening_only(monkeypatch) as silent:
        assert queue.flush() == 0
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_broker_that_listens_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening_only(monkeypatch):
        assert not queue.ping()
        assert queue.depths() is None


def test_a_broker_that_fails_half_way_keeps_the_rest(
    live_broker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(queue, "flush", lambda: 0)
        made = [create() for _ in range(5)]
    app = queue._celery(live_broker)
    send, sent = app.send_task, list[str]()

    def fail_after_two(*args: object, **options: object) -> None:
        if len(sent) == 2:
            raise ConnectionResetError("broker went away")
        sent.append("one")
        send(*args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(app, "send_task", fail_after_two)
        assert queue.relay() == 2
    assert "failed, 3 messages wait: broker went away" in caplog.text
    assert queue.relay() == 3
    assert delivered(live_broker) == made


def test_more_than_a_batch_goes_in_one_call(live_broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "BATCH", 2)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "flush", lambda: 0)
        made = [create() for _ in range(5)]
    assert queue.relay() == 5
    assert delivered(live_broker) == made


def test_two_relays_at_once_lose_nothing(live_broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(queue, "flush", lambda: 0)
        made = [create() for _ in range(6)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: queue.relay(), range(2)))
    assert set(delivered(live_broker)) == set(made)  # twice is harmless, never is not
    assert unsent() == 0


def test_the_reaper_sends_again_what_an_emptied_broker_lost(live_broker: str) -> None:
    task_id = create()
    with client(live_broker) as found:
        found.flushall()
    assert reap() == 0  # too early: the message may be on its way
    age(task_id, settings().resend_seconds + 1)
    assert reap() == 1
    assert delivered(live_broker) == [task_id]


def test_the_reaper_sends_nothing_that_still_waits_in_the_broker(live_broker: str) -> None:
    task_id = create()
    age(task_id, 3600)  # all workers are busy for an hour
    assert reap() == 0
    assert delivered(live_broker) == [task_id]


def test_the_reaper_sends_as_many_as_the_broker_is_short_of(live_broker: str) -> None:
    made = [create() for _ in range(3)]
    for task_id in made:
        age(task_id, 3600)
    with client(live_broker) as found:
        found.ltrim("search.cpu", 0, 1)  # the oldest is gone
    assert reap() == 1
    assert len(delivered(live_broker)) == 3


def test_the_reaper_sends_no_second_message_while_the_first_is_unsent() -> None:
    task_id = create()
    change(Outbox, {"created_at": now_minus(3600)}, Outbox.task_id == task_id)
    assert reap() == 0
    assert unsent() == 1


def test_old_messages_of_tasks_that_are_over_go(live_broker: str) -> None:
    over, waiting = create(), create()
    claimed = must_claim(over)
    with unit_of_work() as session:
        jobs.finish(session, claimed.job_id, "failed", "no data")
    age(over, tasks.KEEP_SENT_SECONDS + 1)
    age(waiting, tasks.KEEP_SENT_SECONDS + 1)
    reap()
    with reading() as session:
        assert set(session.scalars(select(Outbox.task_id))) == {waiting}


def test_ping_tells_whether_the_broker_answers(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not queue.ping()
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker_url)
    assert queue.ping()
    monkeypatch.setenv("SKYLINE_BROKER_URL", "redis://127.0.0.1:1/0")
    assert not queue.ping()


@pytest.mark.parametrize(
    ("kind", "device", "expected"),
    [
        ("search", "cpu", "search.cpu"),
        ("verify", "cuda:1", "verify.cuda"),
        ("conclude", "cpu", "measure.cpu"),
    ],
)
def test_queues_are_named_by_stage_and_class_of_device(kind: str, device: str, expected: str) -> None:
    assert queue.queue_for(kind, device) == expected


def test_logs_hide_the_brokers_password(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SKYLINE_BROKER_URL", "redis://me:secret@127.0.0.1:1/0")
    create()
    assert "redis://127.0.0.1:1/0 does not answer" in caplog.text
    assert "secret" not in caplog.text
