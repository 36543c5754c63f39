"""What a transaction promises, on both databases."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, event, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError

from store import jobs
from store import session as store_session
from store.engine import engine
from store.models import Job, Task
from store.session import now, reading, unit_of_work
from tests.store.factories import SPEC

FORK = """
import os
from sqlalchemy import text
from store.session import engine, reading
identity = {
    "sqlite": "SELECT 1",
    "postgresql": "SELECT pg_backend_pid()",
}
def ask():
    with reading() as session:
        return session.execute(text(identity[session.get_bind().dialect.name])).scalar_one()
before, mine = ask(), engine()
receiving, sending = os.pipe()
child = os.fork()
if child == 0:
    theirs = ask()
    shared = theirs == before and engine().dialect.name == "postgresql"
    os.write(sending, b"shared" if shared or engine() is mine else b"apart")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child failed"
print(os.read(receiving, 10).decode(), ask() == before, engine() is mine)
"""


def count_jobs() -> int:
    with reading() as session:
        return session.execute(select(func.count()).select_from(Job)).scalar_one()


def test_an_error_rolls_back_everything() -> None:
    with pytest.raises(RuntimeError, match="no"), unit_of_work() as session:
        jobs.create(session, SPEC, "", {})
        raise RuntimeError("no")
    assert count_jobs() == 0


def test_reading_refuses_to_write() -> None:
    with reading() as session, pytest.raises(StatementError, match="(?i)read.?only"):
        session.execute(text("DELETE FROM jobs"))
    with unit_of_work() as session:  # the pooled connection writes again
        jobs.create(session, SPEC, "", {})
    assert count_jobs() == 1


def test_reading_sees_one_moment_and_is_not_held_up_by_a_writer(job_id: UUID) -> None:
    with reading() as reader:
        with unit_of_work() as writer:
            jobs.create(writer, SPEC, "", {})
            assert reader.execute(select(func.count()).select_from(Job)).scalar_one() == 1
        assert reader.execute(select(func.count()).select_from(Job)).scalar_one() == 1
    assert count_jobs() == 2


def test_writers_of_one_job_wait_for_each_other(job_id: UUID) -> None:
    order: list[str] = []
    second_starts = threading.Event()

    def second() -> None:
        with unit_of_work() as session:
            second_starts.set()
            jobs.lock(session, job_id)
            order.append("second has the lock")

    thread = threading.Thread(target=second)
    with unit_of_work() as session:
        jobs.lock(session, job_id)
        thread.start()
        assert second_starts.wait(10)
        thread.join(0.2)  # it must still be waiting, however long we look
        assert thread.is_alive()
        order.append("first is done")
    thread.join(10)
    assert order == ["first is done", "second has the lock"]


def test_a_fork_makes_its_own_engine() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", FORK], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["apart", "True", "True"], done.stderr


FORK_BESIDE_A_WRITER = """
import os, sys, threading
from sqlalchemy import text
from store.session import reading, unit_of_work
writing, go = threading.Event(), threading.Event()
def write():
    with unit_of_work() as session:
        session.execute(text("DELETE FROM outbox"))
        writing.set()
        assert go.wait(60)
thread = threading.Thread(target=write)
thread.start()
assert writing.wait(60)
threading.Timer(0.5, go.set).start()
child = os.fork()
if child == 0:
    for _ in range(3):
        with unit_of_work() as session:
            session.execute(text("DELETE FROM outbox"))
    print("the child writes", flush=True)
    os._exit(0)
with unit_of_work() as session:
    session.execute(text("DELETE FROM outbox"))
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
thread.join()
with reading() as session:
    session.execute(text("SELECT 1"))
print("the parent goes on", code)
"""


def test_a_fork_beside_a_writer_can_write() -> None:
    script = [sys.executable, "-W", "error", "-c", FORK_BESIDE_A_WRITER]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines() == ["the child writes", "the parent goes on 0"], done.stderr


def test_threads_share_one_engine() -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(engine())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [engine()] * 4


def test_foreign_keys_are_checked() -> None:
    orphan = Task(job_id=UUID(int=0), kind="search", queue="search.cpu", created_at=datetime.now(UTC))
    with pytest.raises(IntegrityError), unit_of_work() as session:
        session.add(orphan)


def test_sqlite_survives_power_loss_and_waits_for_its_turn() -> None:
    if engine().dialect.name != "sqlite":
        pytest.skip("of SQLite alone")
    with engine().connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_not_a_number_reaches_no_document() -> None:
    with pytest.raises((StatementError, ValueError), match="JSON compliant"), unit_of_work() as session:
        jobs.create(session, {**SPEC, "seed": float("nan")}, "", {})


def test_the_clock_is_the_databases_and_in_utc() -> None:
    with unit_of_work() as session:
        first, second = now(session), now(session)
    assert first.tzinfo is UTC
    assert first <= second
    assert abs(first - datetime.now(UTC)) < timedelta(seconds=10)


def test_times_come_back_as_they_went(job_id: UUID) -> None:
    elsewhere = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC).astimezone()
    with unit_of_work() as session:
        jobs.get(session, job_id).started_at = elsewhere
    with reading() as session:
        found = jobs.get(session, job_id).started_at
    assert found == elsewhere
    assert found.tzinfo is UTC


def test_times_without_zone_are_refused(job_id: UUID) -> None:
    with pytest.raises(StatementError, match="with their zone"), unit_of_work() as session:
        jobs.get(session, job_id).started_at = datetime(2026, 1, 1)


def test_the_data_folder_is_made_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKYLINE_DATABASE_URL")
    monkeypatch.setenv("SKYLINE_DATA_DIR", str(tmp_path / "not" / "there"))
    with engine().connect():
        assert (tmp_path / "not" / "there" / "skyline.db").exists()


def test_a_database_that_is_away_is_waited_for_and_then_given_up(job_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    away = threading.Event()

    @event.listens_for(engine(), "engine_connect")
    def refuse(connection: Connection) -> None:
        if away.is_set():
            raise OperationalError("connect", None, Exception("nobody there"))

    monkeypatch.setattr(store_session, "RETRY_SECONDS", 0.01)
    away.set()
    with pytest.raises(OperationalError), unit_of_work(patience=0.05):
        raise AssertionError("never begun")
    with pytest.raises(OperationalError), reading() as session:
        jobs.get(session, job_id)
    back = threading.Timer(0.1, away.clear)
    back.start()
    with unit_of_work(patience=30) as session:
        jobs.create(session, SPEC, "", {})
    back.join()
    assert count_jobs() == 2


def test_a_client_that_says_nothing_keeps_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    if engine().dialect.name == "sqlite":
        pytest.skip("a file is locked by whoever locked it")
    monkeypatch.setattr("store.engine.SILENT_SECONDS", 1)
    store_session.dispose()
    with unit_of_work() as session:
        job = jobs.create(session, SPEC, "", {})
    hung = engine().connect()  # as of a host that sleeps in the midst of a transaction
    hung.execute(select(Job.id).where(Job.id == job.id).with_for_update())
    with unit_of_work() as session:
        assert jobs.lock(session, job.id)
    with pytest.raises(DBAPIError, match="idle-in-transaction") as raised:
        hung.execute(text("SELECT 1"))
    assert raised.value.connection_invalidated, "as of a database that went away"
    hung.close()
