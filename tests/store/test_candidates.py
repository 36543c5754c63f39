"""Candidates are stored once, in order, with finite values, and found again by page."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from store import candidates, jobs
from store.candidates import NewCandidate
from store.errors import InvalidCursorError, NotFoundError
from store.models import Candidate
from store.session import reading, unit_of_work
from tests.store.factories import new_candidate


def record(job_id: UUID, *items: NewCandidate, stage: Any = "search", revise: bool = False) -> list[tuple[UUID, bool]]:
    with unit_of_work() as session:
        return candidates.record(session, job_id, stage, items, revise=revise)


def stored(candidate_id: UUID) -> Candidate:
    with reading() as session:
        return candidates.get(session, candidate_id)


def values(candidate_id: UUID, stage: Any = "search") -> dict[str, float]:
    with reading() as session:
        found = candidates.values(session, [candidate_id], stage)[candidate_id]
    return {key: document["value"] for key, document in found.items()}


def test_candidates_are_numbered_in_order_and_keep_what_they_are(job_id: UUID) -> None:
    found = record(job_id, new_candidate(0), new_candidate(1)) + record(job_id, new_candidate(2))
    assert [new for _, new in found] == [True] * 3
    with reading() as session:
        rows = candidates.all_values(session, job_id, "search")
        one = candidates.get(session, found[1][0])
    assert [row.candidate_id for row in rows] == [candidate_id for candidate_id, _ in found]
    assert rows[2].values == new_candidate(2).values
    assert rows[2].architecture == new_candidate(2).architecture
    assert (one.number, one.hash, one.status, one.failure, one.test) == (2, "hash-1", "evaluated", None, None)
    assert one.created_at.tzinfo is not None


def test_a_replay_adds_nothing_and_changes_nothing(job_id: UUID) -> None:
    before = record(job_id, *(new_candidate(number) for number in range(3)))
    other_values = NewCandidate("hash-1", {}, 0, {"error": {"value": 0.0, "unit": "", "kind": "exact"}})
    after = record(job_id, new_candidate(0), other_values, new_candidate(3))
    assert after[:2] == [(before[0][0], False), (before[1][0], False)]
    assert after[2][1]
    assert values(before[1][0]) == {"error": 0.5, "params": 1.0}
    assert stored(after[2][0]).number == 4


def test_a_value_that_comes_later_is_new(job_id: UUID) -> None:
    ((candidate_id, _),) = record(job_id, new_candidate(1, error=0.5))
    assert record(job_id, new_candidate(1, error=0.5, params=3.0)) == [(candidate_id, True)]
    assert values(candidate_id) == {"error": 0.5, "params": 3.0}


def test_a_batch_may_hold_the_same_candidate_twice(job_id: UUID) -> None:
    first, second = record(job_id, new_candidate(1), new_candidate(1))
    assert first == (second[0], True)
    assert not second[1]


def test_jobs_do_not_share_candidates(job_id: UUID) -> None:
    with unit_of_work() as session:
        other = jobs.create(session, {}, "", {}).id
    ((one, _),), ((two, _),) = record(job_id, new_candidate(1)), record(other, new_candidate(1))
    assert one != two
    assert stored(two).number == 1


def test_revising_replaces_what_differs(job_id: UUID) -> None:
    ((candidate_id, _),) = record(job_id, new_candidate(1, error=0.5, params=3.0))
    assert record(job_id, new_candidate(1, error=0.25, params=3.0), revise=True) == [(candidate_id, True)]
    assert record(job_id, new_candidate(1, error=0.25, params=3.0), revise=True) == [(candidate_id, False)]
    assert values(candidate_id) == {"error": 0.25, "params": 3.0}
    ((other, new),) = record(job_id, new_candidate(2), revise=True)
    assert new
    assert values(other) == {"error": 1 / 3, "params": 2.0}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_failure(job_id: UUID, number: float) -> None:
    ((candidate_id, new),) = record(job_id, new_candidate(1, error=number, params=3.0))
    found = stored(candidate_id)
    assert new
    assert found.status == "failed"
    assert found.failure == f"error: value is {number}, not a finite number"
    assert values(candidate_id) == {}


def test_a_spread_that_is_not_finite_is_a_failure_too(job_id: UUID) -> None:
    latency = {"value": 1.0, "unit": "ms", "kind": "measured", "iqr": math.nan}
    ((candidate_id, _),) = record(job_id, NewCandidate("h", {}, 0, {"latency_ms": latency}))
    assert stored(candidate_id).failure == "latency_ms: iqr is nan, not a finite number"


def test_a_failed_candidate_keeps_its_reason_and_stays_failed(job_id: UUID) -> None:
    failed = NewCandidate("hash-1", {}, 0, {}, "out of memory")
    ((candidate_id, new),) = record(job_id, failed)
    assert new
    assert record(job_id, failed) == [(candidate_id, False)]
    with unit_of_work() as session:
        candidates.set_final(session, candidate_id, new_candidate(1).values)
    found = stored(candidate_id)
    assert (found.status, found.failure) == ("failed", "out of memory")


def test_what_is_not_scored_is_proposed_until_it_is_verified(job_id: UUID) -> None:
    unscored = replace(new_candidate(1, params=3.0), scored=False)
    ((candidate_id, new),) = record(job_id, unscored)
    assert new and stored(candidate_id).status == "proposed"
    assert record(job_id, unscored) == [(candidate_id, False)]
    assert stored(candidate_id).status == "proposed"
    with unit_of_work() as session:
        candidates.fail(session, candidate_id, "died")
        candidates.restore(session, candidate_id)
    assert (stored(candidate_id).status, stored(candidate_id).failure) == ("proposed", None)
    with unit_of_work() as session:
        candidates.set_final(session, candidate_id, new_candidate(1).values)
        candidates.fail(session, candidate_id, "died")
        candidates.restore(session, candidate_id)
    assert stored(candidate_id).status == "verified"
    ((other, _),) = record(job_id, new_candidate(2))
    with unit_of_work() as session:
        candidates.fail(session, other, "died")
        candidates.restore(session, other)
    assert stored(other).status == "evaluated"


def test_numbers_come_back_bit_for_bit(job_id: UUID) -> None:
    numbers = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789.123456789]
    found = record(job_id, *(new_candidate(index, error=number) for index, number in enumerate(numbers)))
    assert [values(candidate_id)["error"] for candidate_id, _ in found] == numbers
    with reading() as session:
        page, _ = candidates.page(session, job_id, sort="error")
    by_value = sorted(range(len(numbers)), key=lambda index: numbers[index])
    assert [int(candidate.hash.removeprefix("hash-")) for candidate in page] == by_value


def test_text_of_all_kinds_survives(job_id: UUID) -> None:
    odd = 'tab\t newline\n backslash\\ quote" \u00fcber \U0001f600 \\N , {}'
    item = NewCandidate(f"hash {odd}", {odd: [odd, None, True, 1.5]}, 0, {odd: {"value": 1.0, "unit": odd}}, None)
    ((candidate_id, _),) = record(job_id, item, NewCandidate("other", {}, 0, {}, odd))[:1]
    found = stored(candidate_id)
    assert (found.hash, found.architecture) == (item.hash, item.architecture)
    with reading() as session:
        assert candidates.values(session, [candidate_id], "search")[candidate_id] == item.values
        assert candidates.all_values(session, job_id, "search")[1].failure == odd


def test_final_values_verify_and_are_stored_once(job_id: UUID) -> None:
    ((candidate_id, _),) = record(job_id, new_candidate(1))
    with unit_of_work() as session:
        assert candidates.set_final(session, candidate_id, new_candidate(1, error=0.125).values)
        assert not candidates.set_final(session, candidate_id, new_candidate(1, error=0.5).values)
        assert candidates.set_final(session, candidate_id, new_candidate(1, error=0.5, latency_ms=2.0).values)
    assert stored(candidate_id).status == "verified"
    assert values(candidate_id, "final") == {"error": 0.125, "latency_ms": 2.0}
    assert values(candidate_id, "search") == {"error": 0.5, "params": 1.0}
    record(job_id, new_candidate(1, error=0.5, params=1.0, macs=9.0))  # a late search value
    assert stored(candidate_id).status == "verified"


def test_a_final_value_that_is_not_finite_fails_the_candidate(job_id: UUID) -> None:
    ((candidate_id, _),) = record(job_id, new_candidate(1))
    with unit_of_work() as session:
        candidates.set_final(session, candidate_id, new_candidate(1, error=math.nan).values)
    assert stored(candidate_id).failure == "error: value is nan, not a finite number"
    assert values(candidate_id, "final") == {}


def test_recording_the_final_stage_verifies(job_id: UUID) -> None:
    record(job_id, new_candidate(1))
    ((candidate_id, new),) = record(job_id, new_candidate(1, error=0.25), stage="final")
    assert new
    assert stored(candidate_id).status == "verified"
    assert values(candidate_id, "final") == {"error": 0.25}


def test_a_test_result_is_kept_apart(job_id: UUID) -> None:
    ((candidate_id, _),) = record(job_id, new_candidate(1))
    with unit_of_work() as session:
        candidates.set_test(session, candidate_id, {"error": 0.5, "sd": 0.25, "n": 8})
    assert stored(candidate_id).test == {"error": 0.5, "sd": 0.25, "n": 8}
    assert stored(candidate_id).status == "evaluated"


def test_what_is_not_there_is_named() -> None:
    missing = uuid4()
    with reading() as session, pytest.raises(NotFoundError, match=f"no candidate '{missing}'"):
        candidates.get(session, missing)
    with unit_of_work() as session, pytest.raises(NotFoundError, match="no candidate"):
        candidates.fail(session, missing, "why")
    with unit_of_work() as session, pytest.raises(NotFoundError, match="no job"):
        candidates.record(session, missing, "search", [new_candidate(1)])


def test_many_come_in_the_order_asked_for(job_id: UUID) -> None:
    found = [candidate_id for candidate_id, _ in record(job_id, *(new_candidate(number) for number in range(4)))]
    with reading() as session:
        many = candidates.many(session, [found[2], uuid4(), found[0]])
    assert [candidate.id for candidate in many] == [found[2], found[0]]


def test_ids_beyond_one_statement_are_looked_up_in_parts(job_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "CHUNK", 2)
    found = [candidate_id for candidate_id, _ in record(job_id, *(new_candidate(number) for number in range(5)))]
    with reading() as session:
        assert [candidate.id for candidate in candidates.many(session, found)] == found
        assert [len(one) for one in candidates.values(session, found, "search").values()] == [2] * 5


def test_artefacts_are_replaced_by_format(job_id: UUID) -> None:
    (one, _), (two, _) = record(job_id, new_candidate(1), new_candidate(2))
    with unit_of_work() as session:
        for size in (1, 3_000_000_000):
            candidates.add_artefact(session, one, job_id, "safetensors", f"{size}.safetensors", "f" * 64, size)
    with reading() as session:
        found = candidates.artefacts_of(session, [one, two])
    assert [(file.path, file.bytes) for file in found[one]] == [("3000000000.safetensors", 3_000_000_000)]
    assert found[two] == []


def all_pages(job_id: UUID, **options: Any) -> list[int]:
    numbers: list[int] = []
    cursor = None
    with reading() as session:
        while True:
            page, cursor = candidates.page(session, job_id, cursor=cursor, limit=3, **options)
            assert len(page) == 3 or cursor is None
            numbers += [candidate.number for candidate in page]
            if cursor is None:
                return numbers


@pytest.fixture
def ten(job_id: UUID) -> UUID:
    """Ten candidates with values that tie; numbers 4 and 8 failed."""
    errors = [0.5, 0.25, 0.5, None, 0.125, 0.5, 0.25, None, 0.75, 0.5]
    for index, error in enumerate(errors):
        failed = NewCandidate(f"hash-{index}", {}, 0, {}, "diverged")
        record(job_id, failed if error is None else new_candidate(index, error=error))
    return job_id


def test_pages_by_number(ten: UUID) -> None:
    assert all_pages(ten) == list(range(1, 11))
    assert all_pages(ten, descending=True) == list(range(10, 0, -1))
    assert all_pages(ten, status="failed") == [4, 8]


def test_pages_by_value_with_ties_and_the_failed_last(ten: UUID) -> None:
    up, down = all_pages(ten, sort="error"), all_pages(ten, sort="error", descending=True)
    for found, order in ((up, [{5}, {2, 7}, {1, 3, 6, 10}, {9}]), (down, [{9}, {1, 3, 6, 10}, {2, 7}, {5}])):
        start = 0
        for group in order:
            assert set(found[start : start + len(group)]) == group
            start += len(group)
        assert found[8:] == [4, 8]
    assert sorted(all_pages(ten, sort="error", status="evaluated")) == [1, 2, 3, 5, 6, 7, 9, 10]
    assert all_pages(ten, sort="error", status="failed") == [4, 8]
    assert all_pages(ten, sort="unknown") == list(range(1, 11))


@pytest.mark.parametrize("sort", ["number", "error"])
@pytest.mark.parametrize("cursor", ["", "x", "WyJhIiwiYiJd", "WyJhIl0", "W251bGwsIngiXQ"])
def test_a_made_up_cursor_is_refused(ten: UUID, sort: str, cursor: str) -> None:
    with reading() as session, pytest.raises(InvalidCursorError, match="not one of this list"):
        candidates.page(session, ten, sort=sort, cursor=cursor)
