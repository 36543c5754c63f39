"""What children print: kept, bounded, readable in order, gone with the job."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import func, select

from store import jobs, logs, tasks
from store.errors import LeaseLostError
from store.models import LogChunk
from store.session import reading, unit_of_work
from tests.store.factories import SPEC, must_claim, only_task


def say(task_id: UUID, fence: int, text: str, size: int | None = None) -> None:
    with unit_of_work() as session:
        tasks.hold(session, task_id, fence)
        offset = logs.end(session, task_id, fence)
        logs.append(session, task_id, fence, offset, len(text.encode()) if size is None else size, text)


def read(job_id: UUID, **asked: object) -> list[logs.Piece]:
    with reading() as session:
        return logs.page(session, job_id, **asked)  # type: ignore[arg-type]


def stored_bytes() -> int:
    with reading() as session:
        return session.execute(select(func.sum(LogChunk.size))).scalar_one()


def test_chunks_come_in_order_and_say_whose_they_are(job_id: UUID, verify_ids: list[UUID]) -> None:
    one, two = (must_claim(task_id) for task_id in verify_ids[:2])
    for claimed, text in ((one, "a\n"), (two, "b\n"), (one, "c\n")):
        say(claimed.task_id, claimed.fence, text)
    found = read(job_id)
    assert [(piece.task, piece.text, piece.offset) for piece in found] == [
        (one.task_id, "a\n", 0),
        (two.task_id, "b\n", 0),
        (one.task_id, "c\n", 2),
    ]
    assert {piece.kind for piece in found} == {"verify"}
    assert found[0].candidate == one.candidate_id and found[0].attempt == one.fence
    assert read(job_id, after=found[0].id) == found[1:]
    assert read(job_id, limit=2) == found[:2]
    assert read(job_id, task=two.task_id) == [found[1]]
    assert read(job_id, attempt=2) == []
    with reading() as session:
        assert logs.of_attempt(session, one.task_id, one.fence) == [found[0], found[2]]
        assert logs.attempts(session, job_id)[1:] == [(one.task_id, 1), (two.task_id, 1)]
        assert logs.attempts(session, job_id, task=two.task_id, attempt=1) == [(two.task_id, 1)]


def test_each_attempt_has_a_log_of_its_own(job_id: UUID, search_id: UUID) -> None:
    for text in ("first", "second"):
        claimed = must_claim(search_id, lease_seconds=30)
        say(search_id, claimed.fence, text)
        with unit_of_work() as session:
            assert tasks.end(session, search_id, claimed.fence, status="queued", end="drained")
    assert [(piece.attempt, piece.offset, piece.text) for piece in read(job_id)] == [(1, 0, "first"), (2, 0, "second")]


def test_the_beginning_and_the_end_are_kept_and_what_is_dropped_is_told(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    chunks = 30
    for number in range(chunks):
        say(search_id, claimed.fence, f"{number:02d}" * (logs.CHUNK_BYTES // 2))
    kept = read(job_id)
    assert stored_bytes() == logs.HEAD_BYTES + logs.TAIL_BYTES
    head, tail = logs.HEAD_BYTES // logs.CHUNK_BYTES, logs.TAIL_BYTES // logs.CHUNK_BYTES
    said = [piece.text.rpartition("]\n")[2][:2] for piece in kept]
    assert said == [f"{number:02d}" for number in [*range(head), *range(chunks - tail, chunks)]]
    dropped = (chunks - head - tail) * logs.CHUNK_BYTES
    assert kept[head].text.startswith(f"\n[... {dropped:,} bytes left out ...]\n")
    assert sum("left out" in piece.text for piece in kept) == 1


def test_any_character_can_be_stored(job_id: UUID, search_id: UUID) -> None:
    claimed = must_claim(search_id)
    say(search_id, claimed.fence, "nul \0, \N{SNOWMAN} and \N{REPLACEMENT CHARACTER}", 20)
    (piece,) = read(job_id)
    assert piece.text == "nul \N{REPLACEMENT CHARACTER}, \N{SNOWMAN} and \N{REPLACEMENT CHARACTER}"
    with reading() as session:
        assert logs.end(session, search_id, claimed.fence) == 20


def test_a_zombie_adds_nothing(job_id: UUID, search_id: UUID) -> None:
    zombie = must_claim(search_id, lease_seconds=-1)
    must_claim(search_id, "two")
    with pytest.raises(LeaseLostError):
        say(search_id, zombie.fence, "late")
    assert read(job_id) == []


def test_a_task_that_is_given_up_carries_the_end_of_its_log(job_id: UUID, search_id: UUID) -> None:
    for _ in range(3):
        claimed = must_claim(search_id)
        lines = [f"line {number}\n" for number in range(100)]
        say(search_id, claimed.fence, "".join(lines) + "ValueError: no \0 such thing\n")
        with unit_of_work() as session:
            tasks.end(session, search_id, claimed.fence, status="queued", end="died", exit_signal=6)
    with reading() as session:
        job = jobs.get(session, job_id)
    assert job.status == "failed" and job.reason is not None
    first, *rest = job.reason.splitlines()
    assert first.startswith("the search died 3 times") and first.endswith("SIGABRT")
    assert rest == [f"line {number}" for number in range(81, 100)] + [
        "ValueError: no \N{REPLACEMENT CHARACTER} such thing"
    ]


def test_a_deleted_job_leaves_no_log(job_id: UUID, search_id: UUID) -> None:
    say(search_id, must_claim(search_id).fence, "x")
    with unit_of_work() as session:
        other = jobs.create(session, SPEC).id
    other_search = only_task(other, "search").id
    say(other_search, must_claim(other_search).fence, "y")
    with unit_of_work() as session:
        jobs.finish(session, job_id, "failed", "no data")
        jobs.delete(session, job_id)
    assert read(job_id) == []
    assert [piece.text for piece in read(other)] == ["y"] and stored_bytes() == 1


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("one\ntwo\n\n", "one\ntwo"),
        ("x" * 3000 + "\nshort\n", "short"),
        ("y" * 3000, "..." + "y" * 2000),
    ],
)
def test_a_reason_has_whole_lines(text: str, last: str) -> None:
    assert logs.last_lines(text) == last
