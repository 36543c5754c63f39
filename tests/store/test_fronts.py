"""Fronts: versions without copies, one event a change."""

from __future__ import annotations

from uuid import UUID

import pytest

from store import candidates, events, fronts
from store.session import reading, unit_of_work
from tests.store.factories import new_candidate


@pytest.fixture
def members(job_id: UUID) -> list[UUID]:
    with unit_of_work() as session:
        items = [new_candidate(number) for number in range(4)]
        return [candidate_id for candidate_id, _ in candidates.record(session, job_id, "search", items)]


def replace(job_id: UUID, members: list[UUID], hypervolume: float | None = 0.5, knee: UUID | None = None) -> int | None:
    with unit_of_work() as session:
        return fronts.replace(session, job_id, "search", members, hypervolume, knee)


def at(job_id: UUID, version: int | None = None) -> list[UUID]:
    with reading() as session:
        front = fronts.state(session, job_id, "search")
        assert front is not None
        return fronts.member_ids(session, front, version)


def told(job_id: UUID) -> list[dict[str, object]]:
    with reading() as session:
        return [event.data for event in events.after(session, job_id, 0) if event.type == "front"]


def test_a_job_starts_without_fronts(job_id: UUID) -> None:
    with reading() as session:
        assert fronts.state(session, job_id, "search") is None
    assert replace(job_id, []) is None
    assert told(job_id) == []


def test_every_version_can_be_read_again(job_id: UUID, members: list[UUID]) -> None:
    one, two, three, four = members
    history = [[one, two], [two, three], [one, two, three], [], [one, four]]
    for version, front in enumerate(history, start=1):
        assert replace(job_id, front[::-1], version / 10) == version
    assert at(job_id) == [one, four]
    assert [at(job_id, version) for version in range(1, 6)] == history
    assert at(job_id, 0) == []
    assert told(job_id) == [
        {"kind": "search", "version": version, "size": len(front), "hypervolume": version / 10}
        for version, front in enumerate(history, start=1)
    ]


def test_the_same_front_is_no_change(job_id: UUID, members: list[UUID]) -> None:
    assert replace(job_id, members[:2], 0.1 + 0.2, members[0]) == 1
    assert replace(job_id, members[1::-1], 0.3, members[0]) is None  # other order, sum off by a bit
    assert replace(job_id, [*members[:2], members[0]], 0.3, members[0]) is None
    assert len(told(job_id)) == 1


def test_another_knee_or_hypervolume_is_a_change(job_id: UUID, members: list[UUID]) -> None:
    assert replace(job_id, members[:2], None, None) == 1
    assert replace(job_id, members[:2], 0.5, None) == 2
    assert replace(job_id, members[:2], 0.5, members[1]) == 3
    with reading() as session:
        front = fronts.state(session, job_id, "search")
    assert front is not None
    assert (front.version, front.size, front.hypervolume, front.knee) == (3, 2, 0.5, members[1])
    assert at(job_id) == members[:2]


def test_the_two_fronts_are_apart(job_id: UUID, members: list[UUID]) -> None:
    replace(job_id, members)
    with unit_of_work() as session:
        assert fronts.replace(session, job_id, "final", members[:1], 0.25, None) == 1
        final = fronts.state(session, job_id, "final")
        assert final is not None
        assert fronts.member_ids(session, final) == members[:1]
    assert at(job_id) == members
