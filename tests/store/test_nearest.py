"""What comes nearest to a job's bounds, on each database."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from nas_core.objectives.accuracy import Accuracy
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.search import Axes, Bound
from store import candidates, jobs, nearest
from store.session import reading, unit_of_work
from tests.store.factories import SPEC, new_candidate

Values = dict[str, float]


def job(**constraints: dict[str, float | None]) -> UUID:
    with unit_of_work() as session:
        return jobs.create(session, {**SPEC, "constraints": constraints}, "toy").id


def searched(job_id: UUID, *values: Values) -> list[UUID]:
    with unit_of_work() as session:
        items = [new_candidate(number, **each) for number, each in enumerate(values)]
        return [candidate_id for candidate_id, _ in candidates.record(session, job_id, "search", items)]


def verified(candidate_id: UUID, **values: float) -> None:
    with unit_of_work() as session:
        documents = {key: {"value": value, "unit": "", "kind": "trained"} for key, value in values.items()}
        candidates.set_final(session, candidate_id, documents)


def told(job_id: UUID, stage: nearest.Stage = "search") -> dict[str, Any] | None:
    with reading() as session:
        return nearest.infeasible(session, jobs.get(session, job_id), stage)


def must_tell(job_id: UUID, stage: nearest.Stage = "search") -> dict[str, Any]:
    found = told(job_id, stage)
    assert found is not None
    return found


def test_the_nearest_with_their_values_and_how_far_every_bound_would_have_to_move() -> None:
    job_id = job(params={"max": 100.0}, accuracy={"min": 0.9, "max": None})
    ids = searched(
        job_id,
        {"accuracy": 0.45, "params": 100.0, "lat": 3.0},
        {"accuracy": 0.81, "params": 120.0, "lat": 2.0},
        {"accuracy": 0.95, "params": 400.0, "lat": 1.0},
        {"accuracy": 0.1, "params": 900.0, "lat": 1.0},
    )
    found = must_tell(job_id)
    assert found["stage"] == "search"
    assert [near["id"] for near in found["nearest"]] == [str(ids[1]), str(ids[0]), str(ids[2])]
    assert [near["violation"] for near in found["nearest"]] == pytest.approx([0.3, 0.5, 3.0])
    assert {key: value["value"] for key, value in found["nearest"][0]["values"].items()} == {
        "accuracy": 0.81,
        "params": 120.0,
        "lat": 2.0,
    }
    first, accuracy = str(ids[1]), {"min": 0.9, "max": None, "side": "min"}
    assert found["violations"] == {
        "params": {"min": None, "max": 100.0, "side": "max", "nearest": 120.0, "by": 20.0, "share": 0.2}
        | {"candidate": first},
        "accuracy": accuracy
        | {"nearest": 0.81, "by": pytest.approx(0.09), "share": pytest.approx(0.1), "candidate": first},
    }
    assert found["alone"] == {
        "params": {"min": None, "max": 100.0, "side": "max", "nearest": 400.0, "by": 300.0, "share": 3.0}
        | {"candidate": str(ids[2])},
        "accuracy": accuracy | {"nearest": 0.45, "by": 0.45, "share": 0.5, "candidate": str(ids[0])},
    }


def test_both_sides_of_a_bound() -> None:
    job_id = job(params={"min": 200.0, "max": 300.0})
    ids = searched(job_id, {"params": 150.0}, {"params": 420.0})
    found = must_tell(job_id)
    assert [near["id"] for near in found["nearest"]] == [str(ids[0]), str(ids[1])]
    move = {"min": 200.0, "max": 300.0, "side": "min", "nearest": 150.0, "by": 50.0, "share": 0.25}
    assert found["violations"] == found["alone"] == {"params": {**move, "candidate": str(ids[0])}}


def test_a_share_of_nothing_is_unknown() -> None:
    job_id = job(error={"max": 0.0})
    searched(job_id, {"error": 0.25})
    found = must_tell(job_id)
    assert (found["violations"]["error"]["by"], found["violations"]["error"]["share"]) == (0.25, None)
    assert found["nearest"][0]["violation"] == 0.25


def test_nothing_is_said_without_bounds_without_values_and_where_something_holds_them() -> None:
    free, bounded = job(), job(params={"max": 100.0})
    searched(free, {"params": 5.0})
    assert told(free) is None and told(bounded) is None
    searched(bounded, {"params": 101.0}, {"params": 100.0})
    assert told(bounded) is None


def test_what_has_failed_is_not_near() -> None:
    job_id = job(params={"max": 100.0})
    ids = searched(job_id, {"params": 99.0}, {"params": 101.0}, {"params": 110.0})
    with unit_of_work() as session:
        candidates.fail(session, ids[0], "it diverged")
        candidates.fail(session, ids[1], "it diverged")
    assert [near["id"] for near in must_tell(job_id)["nearest"]] == [str(ids[2])]


def test_final_values_count_when_all_bounded_ones_are_there() -> None:
    job_id = job(params={"max": 100.0}, lat={"max": 5.0})
    ids = searched(job_id, *[{"params": 101.0, "lat": 4.0}] * 1, {"params": 102.0, "lat": 4.0})
    verified(ids[0], params=101.0)
    verified(ids[1], params=102.0, lat=6.0)
    found = must_tell(job_id, "final")
    assert [near["id"] for near in found["nearest"]] == [str(ids[1])]
    assert {key: move["nearest"] for key, move in found["violations"].items()} == {"params": 102.0, "lat": 6.0}
    assert found["alone"] == {}, "no bound would do by itself"


def test_a_search_that_left_a_value_out_is_told_of_by_the_others() -> None:
    job_id = job(params={"max": 100.0}, error={"max": 0.1})
    searched(job_id, {"params": 130.0})
    found = must_tell(job_id)
    assert list(found["violations"]) == list(found["alone"]) == ["params"]


def test_a_job_that_verified_nothing_is_told_of_by_its_search_once_it_has_succeeded() -> None:
    job_id = job(params={"max": 100.0})
    (near,) = searched(job_id, {"params": 101.0})
    assert told(job_id, "final") is None, "something may still be verified"
    with unit_of_work() as session:
        jobs.finish(session, job_id, "succeeded")
    found = must_tell(job_id, "final")
    assert (found["stage"], found["nearest"][0]["id"]) == ("search", str(near))


def test_the_order_is_that_of_the_violations_that_fronts_go_by() -> None:
    """The database's arithmetic and that of nas_core agree on who is nearest, and on who holds everything."""
    rng = random.Random(0)
    bounds = {"params": (40.0, 60.0), "accuracy": (0.7, None), "error": (None, 0.2)}
    axes = Axes(
        {"params": Params(), "accuracy": Accuracy(), "error": Error()},
        {key: Bound(low, high) for key, (low, high) in bounds.items()},
    )
    for _ in range(10):
        job_id = job(**{key: {"min": low, "max": high} for key, (low, high) in bounds.items()})
        values = [
            {
                "params": float(rng.randint(0, 100)),
                "accuracy": rng.randint(0, 20) / 20,
                "error": rng.randint(0, 20) / 20,
            }
            for _ in range(12)
        ]
        values = [each for each in values if axes.violation(each) > 0]
        ids = searched(job_id, *values)
        order = sorted(range(len(values)), key=lambda place: axes.violation(values[place]))
        found = must_tell(job_id)
        assert [near["violation"] for near in found["nearest"]] == pytest.approx(
            [axes.violation(values[place]) for place in order[: nearest.NEAREST]]
        )
        for key in bounds:
            others = Axes(axes.objectives, {name: bound for name, bound in axes.bounds.items() if name != key})
            holding = [place for place, each in enumerate(values) if others.violation(each) == 0]
            least = min((axes.violation(values[place]) for place in holding), default=None)
            assert (key in found["alone"]) == (least is not None)
            if least is not None:
                chosen = ids.index(UUID(found["alone"][key]["candidate"]))
                assert axes.violation(values[chosen]) == least
