"""What is verified, and which points stand on a front."""

from uuid import UUID, uuid4

import numpy as np
import pytest

from nas_core.errors import NasCoreError
from nas_core.objectives.accuracy import Accuracy
from nas_core.objectives.error import Error
from nas_core.objectives.latency_ms import LatencyMs
from nas_core.objectives.macs import Macs
from nas_core.objectives.params import Params
from nas_core.pareto import non_dominated
from nas_core.search import Axes, Bound
from worker.choice import Scored, choose, doubts, goals_of, unserved
from worker.conclude import words
from worker.recorder import FrontKeeper

AXES = Axes({"error": Error(), "params": Params()})
REFERENCE = {"error": 0.9, "params": 1000.0}


def scored(name: str, error: float, params: float, target: int = 0, goals: tuple[int, ...] = ()) -> Scored[str]:
    return Scored(name, target, {"error": error, "params": params}, name, goals)


def test_choice_spreads_over_the_front_and_then_takes_the_next_rank() -> None:
    items = [
        scored("small", 0.5, 10),
        scored("middle", 0.2, 200),
        scored("large", 0.05, 800),
        scored("twin", 0.21, 210),
        scored("bad", 0.8, 900),
    ]
    assert {item.what for item in choose(items, AXES, REFERENCE, 3)} == {"small", "middle", "large"}
    assert {item.what for item in choose(items, AXES, REFERENCE, 4)} == {"small", "middle", "large", "twin"}


def test_every_target_gets_its_share_and_a_small_one_leaves_it_to_the_others() -> None:
    items = [scored(f"a{n}", 0.1 + n / 10, 500 - 100 * n) for n in range(4)]
    items += [scored(f"b{n}", 0.1 + n / 10, 900 - 100 * n, target=1) for n in range(4)]
    chosen = choose(items, AXES, REFERENCE, 4)
    assert sorted(item.target for item in chosen) == [0, 0, 1, 1]
    few = [items[0], *items[4:]]
    assert sorted(item.target for item in choose(few, AXES, REFERENCE, 4)) == [0, 1, 1, 1]


def names(items: list[Scored[str]]) -> list[str]:
    return [item.what for item in items]


def test_each_network_that_was_asked_for_comes_before_what_the_search_prefers() -> None:
    """The supernet thinks best of the smallest, which dominates what serves the other goals."""
    items = [
        scored("small", 0.3, 100, goals=(3,)),
        scored("smaller", 0.35, 90, goals=(3,)),
        scored("middle", 0.5, 300, goals=(2,)),
        scored("worse", 0.6, 290, goals=(2,)),
        scored("large", 0.6, 700, goals=(1,)),
        scored("seed", 0.34, 95),
    ]
    assert names(choose(items, AXES, REFERENCE, 3)) == ["large", "middle", "small"]
    assert set(names(choose(items, AXES, REFERENCE, 4))) == {"large", "middle", "small", "smaller"}
    assert set(names(choose(items, AXES, REFERENCE, 6))) == set(names(items))
    bare = [scored(item.what, *item.values.values()) for item in items]
    assert set(names(choose(bare, AXES, REFERENCE, 3))) == {"small", "smaller", "seed"}


def test_a_network_may_serve_several_goals_and_is_chosen_once() -> None:
    items = [scored("both", 0.3, 300, goals=(1, 2)), scored("second", 0.4, 310, goals=(2,)), scored("front", 0.2, 50)]
    assert names(choose(items, AXES, REFERENCE, 2)) == ["both", "front"]


def test_goals_that_hold_the_bounds_come_first() -> None:
    axes = Axes(AXES.objectives, {"error": Bound(max=0.5), "params": Bound(max=500)})
    items = [
        scored("over", 0.8, 400, goals=(1,)),
        scored("within", 0.4, 300, goals=(2,)),
        scored("beyond", 0.01, 501, goals=(3,)),
        scored("other", 0.4, 90),
    ]
    assert names(choose(items, axes, REFERENCE, 1)) == ["within"]
    assert names(choose(items, axes, REFERENCE, 9)) == ["within", "over", "other"]


def test_targets_share_the_goals_where_there_is_not_room_for_all_of_both() -> None:
    items = [
        scored(f"{target}-{goal}", 0.1 * goal, 1000 - 200 * goal, target, (goal,))
        for target in (0, 1)
        for goal in (1, 2, 3)
    ]
    assert names(choose(items, AXES, REFERENCE, 4)) == ["0-1", "0-2", "1-3", "1-1"]
    assert unserved(items, choose(items, AXES, REFERENCE, 4), 4) is None
    told = unserved(items, choose(items, AXES, REFERENCE, 2), 2)
    assert told is not None and "bounds, weights or targets 3 of 3 is verified; verify.top is 2" in told


def test_goals_are_read_from_what_the_search_found_on_its_supernet() -> None:
    error = {"value": 0.1, "unit": "", "kind": "supernet", "goals": [2, 3]}
    params = {"value": 10.0, "unit": "", "kind": "exact", "goals": "fast"}
    assert goals_of({"params": params, "error": error}) == (2, 3) and goals_of({"params": params}) == ()


def test_what_breaks_a_bound_for_good_is_never_chosen() -> None:
    axes = Axes(AXES.objectives, {"params": Bound(max=100)})
    items = [scored("over", 0.01, 101), scored("under", 0.5, 100)]
    assert [item.what for item in choose(items, axes, REFERENCE, 2)] == ["under"]
    assert choose(items[:1], axes, REFERENCE, 2) == []


def test_a_bound_on_the_error_puts_last_and_does_not_rule_out() -> None:
    """Verification trains anew; the least excess comes first, whatever the front says."""
    axes = Axes(AXES.objectives, {"error": Bound(max=0.1), "params": Bound(max=500)})
    items = [scored("far", 0.5, 10), scored("near", 0.2, 400), scored("over", 0.01, 501), scored("in", 0.1, 500)]
    assert [item.what for item in choose(items, axes, REFERENCE, 4)] == ["in", "near", "far"]
    assert [item.what for item in choose(items[:3], axes, REFERENCE, 1)] == ["near"]
    assert [item.what for item in choose(items, axes, REFERENCE, 1)] == ["in"]


def test_what_was_measured_too_slow_is_not_trained_for_nothing() -> None:
    axes = Axes({**AXES.objectives, "lat": LatencyMs()}, {"lat": Bound(max=2.0), "error": Bound(max=0.1)})
    items = [
        Scored(name, 0, {"error": 0.3, "params": 10.0, "lat": lat}, name)
        for name, lat in (("slow", 2.1), ("fast", 2.0))
    ]
    chosen = choose(items, axes, {**REFERENCE, "lat": 9.0}, 2)
    assert [item.what for item in chosen] == ["fast"]


def test_constrained_choice_on_every_target() -> None:
    axes = Axes(AXES.objectives, {"error": Bound(max=0.15)})
    items = [scored(f"a{n}", 0.2 + n / 10, 500 - 100 * n) for n in range(3)]
    items += [scored(f"b{n}", 0.1 + n / 10, 900 - 100 * n, target=1) for n in range(3)]
    assert [item.what for item in choose(items, axes, REFERENCE, 4)] == ["a0", "a1", "b0", "b1"]


def test_what_is_told_of_a_choice_that_bounds_were_in_the_way_of() -> None:
    axes = Axes(AXES.objectives, {"error": Bound(max=0.1), "params": Bound(max=500)})
    assert doubts([scored("in", 0.1, 500)], axes) is None
    assert doubts([Scored("unscored", 0, {"params": 500.0}, "unscored")], axes) is None
    told = doubts([scored("in", 0.1, 500), scored("near", 0.2, 400)], axes)
    assert told is not None and told.startswith("1 of the 2 networks to be verified break the bound on error by")
    none: list[Scored[str]] = []
    told = doubts(none, axes)
    assert told is not None and "no candidate can hold all bounds, so none is verified" in told


def test_the_nearest_in_words() -> None:
    move = {"side": "max", "max": 990.0, "min": None, "nearest": 995.0, "by": 5.0, "share": 5 / 990}
    least = {"side": "min", "max": None, "min": 0.0, "nearest": -0.5, "by": 0.5, "share": None}
    found = {"stage": "final", "nearest": [{"id": "aaaaaaaa-bbbb"}], "violations": {"params": move, "gain": least}}
    assert words(found) == (
        "no network verified holds all bounds; the nearest, aaaaaaaa, has params 995 for max 990 (by 5, 0.505 %); "
        "gain -0.5 for min 0 (by 0.5)"
    )
    assert words({**found, "stage": "search"}).startswith("no network found by the search holds all bounds")


def test_what_has_no_search_value_is_verified_whole() -> None:
    axes = Axes(AXES.objectives, {"params": Bound(max=100)})
    items = [Scored(str(n), n % 2, {"params": 90.0 + n}, str(n)) for n in range(14)]
    assert [item.what for item in choose(items, axes, REFERENCE, 11)] == [str(n) for n in range(11)]
    assert choose([Scored("bare", 0, {}, "bare")], axes, REFERENCE, 1)[0].what == "bare", "no objective is exact"
    message = "11 candidates have no search value to choose by, and verify.top is 10; set verify.top to 11"
    with pytest.raises(NasCoreError, match=message):
        choose(items, axes, REFERENCE, 10)


def keeper(kind: str = "search", axes: Axes = AXES) -> FrontKeeper:
    return FrontKeeper(uuid4(), kind, axes, REFERENCE)  # type: ignore[arg-type]


def test_the_front_keeps_ties_and_drops_what_is_dominated() -> None:
    front, ids = keeper(), [uuid4() for _ in range(4)]
    assert front.add(ids[0], 0, {"error": 0.5, "params": 100})
    assert front.add(ids[1], 0, {"error": 0.5, "params": 100})
    assert not front.add(ids[2], 0, {"error": 0.6, "params": 100})
    assert front.add(ids[3], 0, {"error": 0.4, "params": 90})
    assert [point.id for point in front.members] == [ids[3]]


def test_search_values_compare_within_one_target_and_final_ones_across() -> None:
    wide, narrow = uuid4(), uuid4()
    for kind, members in (("search", {wide, narrow}), ("final", {narrow})):
        front = keeper(kind)
        front.add(wide, 1, {"error": 0.5, "params": 200})
        front.add(narrow, 0, {"error": 0.5, "params": 100})
        assert {point.id for point in front.members} == members


def test_a_revised_value_takes_the_place_of_the_old_one() -> None:
    front, one, other = keeper(), uuid4(), uuid4()
    front.add(one, 0, {"error": 0.1, "params": 100})
    front.add(other, 0, {"error": 0.3, "params": 90})
    assert front.add(one, 0, {"error": 0.2, "params": 100})
    assert {point.costs for point in front.members} == {(0.2, 100.0), (0.3, 90.0)}
    assert not front.add(one, 0, {"error": 0.4, "params": 100})
    assert [point.id for point in front.members] == [other]


def test_a_front_grown_point_by_point_is_the_front_of_all() -> None:
    rng = np.random.default_rng(0)
    axes = Axes({"error": Error(), "params": Params(), "macs": Macs()})
    front = FrontKeeper(uuid4(), "search", axes, {**REFERENCE, "macs": 1000.0})
    known: dict[UUID, tuple[int, list[float]]] = {}
    for _ in range(400):
        costs = rng.integers(0, 12, 3).astype(float).tolist()  # few values, so that ties and twins come up
        if rng.random() < 0.02:
            costs[0] = float("inf")
        point, target = uuid4(), int(rng.integers(2))
        known[point] = (target, costs)
        entered = front.add(point, target, dict(zip(axes.keys, costs, strict=True)))
        expected = set()
        for each in range(2):
            ids = [id for id, (at, _) in known.items() if at == each]
            keep = non_dominated([known[id][1] for id in ids])
            expected |= {id for id, kept in zip(ids, keep, strict=True) if kept}
        members = [member.id for member in front.members]
        assert set(members) == expected and len(members) == len(expected)
        assert entered == (point in expected)
        assert members == sorted(members, key=lambda id: (known[id][0], list(known).index(id)))


def test_a_point_that_lacks_a_value_never_enters() -> None:
    front = keeper()
    assert not front.add(uuid4(), 0, {"params": 100})
    assert front.members == []


def test_bounds_and_maximised_objectives() -> None:
    axes = Axes({"accuracy": Accuracy(), "params": Params()}, {"accuracy": Bound(min=0.5)})
    front = FrontKeeper(uuid4(), "final", axes, {"accuracy": 0.1, "params": 1000.0})
    assert not front.add(uuid4(), 0, {"accuracy": 0.4, "params": 1})
    assert front.add(uuid4(), 0, {"accuracy": 0.6, "params": 10})
    assert front.add(uuid4(), 0, {"accuracy": 0.9, "params": 20})
    assert not front.add(uuid4(), 0, {"accuracy": 0.55, "params": 15})


@pytest.mark.parametrize(("value", "violation"), [(5.0, 0.0), (4.0, 0.2), (12.0, 0.2), (10.0, 0.0)])
def test_violations_are_relative(value: float, violation: float) -> None:
    assert Bound(min=5.0, max=10.0).violation(value) == pytest.approx(violation)
