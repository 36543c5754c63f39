"""Events of a job: numbers without a gap, pages from any number on."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from store import events, jobs
from store.errors import NotFoundError
from store.session import reading, unit_of_work


def append(job_id: UUID, *numbers: int) -> int:
    with unit_of_work() as session:
        return events.append(session, job_id, [("progress", {"n": number}) for number in numbers])


def after(job_id: UUID, seq: int, limit: int = 500) -> list[int]:
    with reading() as session:
        return [event.seq for event in events.after(session, job_id, seq, limit)]


def test_numbers_go_on_over_transactions(job_id: UUID) -> None:
    assert append(job_id, 1, 2) == 3  # the first is that of the job's creation
    assert append(job_id, 3) == 4
    assert after(job_id, 0) == [1, 2, 3, 4]
    assert after(job_id, 2) == [3, 4]
    assert after(job_id, 1, limit=2) == [2, 3]
    assert after(job_id, 4) == []
    with reading() as session:
        last = events.after(session, job_id, 3, 1)[0]
        assert jobs.get(session, job_id).last_seq == 4
    assert (last.type, last.data) == ("progress", {"n": 3})
    assert last.at.tzinfo is not None


def test_what_is_rolled_back_leaves_no_gap(job_id: UUID) -> None:
    with pytest.raises(RuntimeError), unit_of_work() as session:
        events.append(session, job_id, [("progress", {})] * 5)
        raise RuntimeError
    assert append(job_id, 1) == 2
    assert after(job_id, 0) == [1, 2]


def test_nothing_appended_is_nothing(job_id: UUID) -> None:
    assert append(job_id) == 1
    assert after(job_id, 0) == [1]


def test_each_job_counts_for_itself(job_id: UUID) -> None:
    with unit_of_work() as session:
        other = jobs.create(session, {}, "", {}).id
    append(job_id, 1, 2, 3)
    assert append(other, 1) == 2
    assert after(other, 0) == [1, 2]


def test_an_unknown_job_has_no_events() -> None:
    with unit_of_work() as session, pytest.raises(NotFoundError, match="no job"):
        events.append(session, uuid4(), [("progress", {})])
    assert after(uuid4(), 0) == []
