"""Pareto functions by known answers and properties."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas_core.pareto import constrained_ranks, crowding_distance, hypervolume, knee, non_dominated, ranks, select

POINTS = arrays(np.float64, st.tuples(st.integers(1, 25), st.integers(2, 3)), elements=st.integers(0, 6).map(float))


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


@given(POINTS)
def test_front_is_what_nothing_dominates_and_keeps_ties(points: np.ndarray) -> None:
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert non_dominated(points).tolist() == expected


@given(POINTS)
def test_ranks_peel_fronts(points: np.ndarray) -> None:
    found, left, level = ranks(points), np.ones(len(points), dtype=bool), 0
    while left.any():
        here = np.flatnonzero(left)[non_dominated(points[left])]
        assert set(here) == set(np.flatnonzero(found == level))
        left[here] = False
        level += 1


def test_failures_never_stand_on_a_front() -> None:
    points = [[np.inf, np.inf], [1.0, 2.0], [2.0, 1.0]]
    assert non_dominated(points).tolist() == [False, True, True]
    assert ranks(points).tolist() == [1, 0, 0]


def test_feasible_comes_before_infeasible_by_violation() -> None:
    costs = [[0.0, 0.0], [5.0, 5.0], [6.0, 6.0], [1.0, 1.0]]
    assert constrained_ranks(costs, [2.0, 0.0, 0.0, 1.0]).tolist() == [3, 0, 1, 2]


VIOLATIONS = arrays(np.float64, 25, elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, np.inf]))


def constrained_dominates(points: np.ndarray, violations: np.ndarray, a: int, b: int) -> bool:
    """Deb et al. 2002, definition 1."""
    if violations[a] <= 0 and violations[b] <= 0:
        return dominates(points[a], points[b])
    return bool(violations[a] < violations[b])


@given(POINTS, VIOLATIONS)
def test_constrained_ranks_peel_what_nothing_constrained_dominates(points: np.ndarray, violations: np.ndarray) -> None:
    violations = violations[: len(points)]
    found, left, level = constrained_ranks(points, violations), set(range(len(points))), 0
    while left:
        here = {i for i in left if not any(constrained_dominates(points, violations, other, i) for other in left)}
        assert here == {i for i in left if found[i] == level}
        left -= here
        level += 1


@pytest.mark.slow
@given(POINTS, VIOLATIONS)
def test_constrained_ranks_are_pymoos(points: np.ndarray, violations: np.ndarray) -> None:
    """Its NSGA-II takes feasible ones front by front, then the others one by one from the least violation on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymoo.algorithms.moo.nsga2 import RankAndCrowdingSurvival
        from pymoo.core.individual import Individual
        from pymoo.core.population import Population
        from pymoo.core.problem import Problem
    violations = violations[: len(points)]
    finite = np.where(np.isinf(violations), 1e6, violations)  # it knows no failures
    ranked = constrained_ranks(points, violations)
    people = [
        Individual(F=point, G=np.array([excess]), H=np.zeros(0)) for point, excess in zip(points, finite, strict=True)
    ]
    problem = Problem(n_var=1, n_obj=points.shape[1], n_ieq_constr=1)
    for count in range(1, len(points) + 1):
        kept = RankAndCrowdingSurvival().do(problem, Population.create(*people), n_survive=count)
        chosen = {id(each) for each in kept}
        theirs = sorted(rank for rank, each in zip(ranked, people, strict=True) if id(each) in chosen)
        assert theirs == sorted(ranked)[:count], "whoever survives there has the lowest ranks here"


@given(arrays(np.float64, (6, 2), elements=st.floats(0, 1)))
def test_hypervolume_against_counting(points: np.ndarray) -> None:
    grid = (np.arange(200) + 0.5) / 200
    x, y = np.meshgrid(grid, grid)
    covered = np.zeros_like(x, dtype=bool)
    for point in points:
        covered |= (x >= point[0]) & (y >= point[1])
    assert abs(hypervolume(points, [1.0, 1.0]) - covered.mean()) < 0.02


def test_points_outside_the_reference_add_nothing() -> None:
    assert hypervolume([[0.5, 0.5], [0.1, 2.0]], [1.0, 1.0]) == 0.25
    assert hypervolume(np.empty((0, 2)), [1.0, 1.0]) == 0.0


def test_crowding_ends_are_infinite_and_sums_ranges() -> None:
    found = crowding_distance([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]])
    assert found[0] == found[2] == np.inf
    assert found[1] == 2.0


def test_knee_is_nearest_to_the_ideal_point() -> None:
    assert knee([[0.0, 10.0], [1.0, 2.0], [10.0, 0.0]]) == 1
    assert knee([[np.inf, np.inf]]) is None


def test_selection_goes_by_rank_then_contribution_and_ties_by_name() -> None:
    costs = [[0.0, 1.0], [1.0, 0.0], [0.9, 0.05], [0.4, 0.4], [2.0, 2.0], [0.4, 0.4]]
    chosen = select(costs, [3.0, 3.0], 6, ["f", "e", "d", "c", "b", "a"])
    assert chosen[0] == 5  # the largest contribution; its twin 3 loses by name and then adds nothing
    assert set(chosen[:5]) == {0, 1, 2, 3, 5}
    assert chosen[5] == 4
    assert select([[np.inf, np.inf]], [1.0, 1.0], 3, ["x"]) == []


def test_selection_takes_feasible_ones_first_and_then_the_nearest() -> None:
    costs = [[0.0, 1.0], [1.0, 0.0], [0.1, 0.1], [0.2, 0.2]]
    assert select(costs, [3.0, 3.0], 4, list("abcd"), [0.0, 0.0, 0.5, 0.25]) == [0, 1, 3, 2]
    assert select(costs, [3.0, 3.0], 1, list("abcd"), [0.3, 0.2, 0.5, 0.25]) == [1]
