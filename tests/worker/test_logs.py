"""The way of a child's output into the database, and how long files stay on a worker's host."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from store import jobs, logs, tasks
from store.logs import CHUNK_BYTES, HEAD_BYTES, TAIL_BYTES
from store.session import reading, unit_of_work
from store.settings import settings
from tests.store.factories import SPEC, must_claim, only_task
from worker import leftovers
from worker.logs import Shipper, cut


@pytest.fixture
def search_id(environment_on_each: Path) -> UUID:
    with unit_of_work() as session:
        job_id = jobs.create(session, SPEC).id
    return only_task(job_id, "search").id


def write(task_id: UUID, content: bytes, kind: str = "log") -> Path:
    folder = settings().log_dir if kind == "log" else settings().checkpoint_dir
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task_id}.{kind}"
    with path.open("ab") as file:
        file.write(content)
    return path


def read(task_id: UUID, fence: int) -> list[tuple[int, str]]:
    with reading() as session:
        return [(piece.offset, piece.text) for piece in logs.of_attempt(session, task_id, fence)]


def test_each_attempt_ships_what_it_printed_itself(search_id: UUID) -> None:
    write(search_id, b"of an attempt before\n")
    claimed = must_claim(search_id)
    shipper = Shipper(search_id, claimed.fence)
    shipper.ship()
    assert read(search_id, claimed.fence) == []
    write(search_id, b"epoch 1\nepoch ")
    shipper.ship()
    assert read(search_id, claimed.fence) == [(0, "epoch 1\n")]  # the line may go on
    write(search_id, b"2\n\xe2\x98")
    shipper.ship()
    write(search_id, b"\x83 half")
    shipper.ship(last=True)
    assert read(search_id, claimed.fence) == [(0, "epoch 1\n"), (8, "epoch 2\n"), (16, "\N{SNOWMAN} half")]


def test_bytes_that_are_no_text_are_replaced(search_id: UUID) -> None:
    claimed = must_claim(search_id)
    shipper = Shipper(search_id, claimed.fence)
    write(search_id, b"nul \0 and \xff\xfe\n\xe2")
    shipper.ship(last=True)
    mark = "\N{REPLACEMENT CHARACTER}"
    assert "".join(text for _, text in read(search_id, claimed.fence)) == f"nul {mark} and {mark}{mark}\n{mark}"
    with reading() as session:
        assert logs.end(session, search_id, claimed.fence) == 14


def test_a_flood_between_two_heartbeats_is_cut_before_it_is_read(search_id: UUID) -> None:
    claimed = must_claim(search_id)
    shipper = Shipper(search_id, claimed.fence)
    line = b"x" * 99 + b"\n"
    path = write(search_id, line * 20_000)
    shipper.ship(last=True)
    kept = read(search_id, claimed.fence)
    text = "".join(text for _, text in kept)
    size = path.stat().st_size
    assert HEAD_BYTES + TAIL_BYTES - 2 * CHUNK_BYTES < len(text) < HEAD_BYTES + TAIL_BYTES + 2 * CHUNK_BYTES
    assert kept[0][0] == 0 and text.count("bytes left out ...]") == 1
    with reading() as session:
        assert logs.end(session, search_id, claimed.fence) == size


def test_a_database_that_was_away_gets_the_rest_later(search_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = must_claim(search_id)
    shipper = Shipper(search_id, claimed.fence)
    write(search_id, b"one\n")
    with monkeypatch.context() as away:
        away.setenv("SKYLINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
        shipper.ship()
    write(search_id, b"two\n")
    shipper.ship(last=True)
    assert read(search_id, claimed.fence) == [(0, "one\ntwo\n")]


def test_who_lost_the_lease_ships_nothing(search_id: UUID) -> None:
    claimed = must_claim(search_id, lease_seconds=-1)
    shipper = Shipper(search_id, claimed.fence)
    must_claim(search_id, "two")
    write(search_id, b"late\n")
    shipper.ship(last=True)
    assert read(search_id, claimed.fence) == []


@pytest.mark.parametrize(
    ("data", "last", "expected"),
    [
        (b"a\nb", False, (2, "a\n")),
        (b"a\nb", True, (3, "a\nb")),
        (b"bar 50 %\r", False, (9, "bar 50 %\r")),
        (b"\xe2\x98", False, (0, "")),
        (b"\xe2\x98", True, (2, "\N{REPLACEMENT CHARACTER}")),
        (b"y" * CHUNK_BYTES + b"z", True, (CHUNK_BYTES, "y" * CHUNK_BYTES)),
    ],
)
def test_a_chunk_is_whole_lines_or_at_least_whole_characters(data: bytes, last: bool, expected: Any) -> None:
    assert cut(data, last) == expected


def test_files_stay_while_they_are_of_use(search_id: UUID) -> None:
    log, checkpoint = write(search_id, b"x"), write(search_id, b"x", "pt")
    other, unknown = write(uuid4(), b"x"), settings().log_dir / "worker-1.log"
    unknown.write_text("not of a task")

    def left(age: float = 0.0) -> list[Path]:
        for path in (log, checkpoint):
            if path.exists():
                os.utime(path, (time.time() - age,) * 2)
        with reading() as session:
            leftovers.forget(session)
        return [path for path in (log, checkpoint, other, unknown) if path.exists()]

    long = leftovers.KEEP_SECONDS + 60
    assert left(long) == [log, checkpoint, unknown]  # the task waits; no one knows the other one
    claimed = must_claim(search_id)
    with unit_of_work() as session:
        jobs.finish(session, claimed.job_id, "failed", "no data", by=search_id)
        tasks.end(session, search_id, claimed.fence, status="done", end="done")
    assert left() == [log, checkpoint, unknown]  # for a retry
    assert left(long) == [unknown]


def test_what_is_done_leaves_its_log_and_what_is_deleted_nothing(search_id: UUID) -> None:
    log, checkpoint = write(search_id, b"x"), write(search_id, b"x", "pt")
    claimed = must_claim(search_id)
    with unit_of_work() as session:
        jobs.finish(session, claimed.job_id, "succeeded", by=search_id)
        tasks.end(session, search_id, claimed.fence, status="done", end="done")
    with reading() as session:
        leftovers.forget(session)
    assert log.exists() and not checkpoint.exists()
    with unit_of_work() as session:
        jobs.delete(session, claimed.job_id)
    with reading() as session:
        leftovers.forget(session)
    assert not log.exists()
