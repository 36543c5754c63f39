"""The reference point that a job gets where it gives none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.errors import ObjectiveError
from nas_core.objectives.accuracy import Accuracy
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.search import Axes, Objective, Problem
from nas_core.values import Value
from tests.contracts.problems import SPACE, problem
from worker.assembly import reference_point


class Own:
    """A user's objective: a function of the parameters."""

    unit, resource = "g", "params"

    def __init__(self, of: Callable[[float], float], direction: str = "minimize", source: str = "measured") -> None:
        self.of, self.direction, self.source = of, direction, source

    def value(self, *given: Any) -> Value:
        number = float(count(given[0]).params) if self.source == "exact" else given[0]
        return Value(self.of(number), self.unit, "exact")

    def measure(self, architectures: Sequence[Architecture], device: Any) -> list[Value]:
        return [Value(self.of(float(count(one).params)), self.unit, "predicted") for one in architectures]


def found(objective: Any, **given: float) -> float:
    on: Problem[Any] = problem(widths=2)
    objectives: dict[str, Objective] = {"own": objective}
    object.__setattr__(on, "axes", Axes(objectives))
    return reference_point(on, given)["own"]


def ends(resource: str = "params") -> tuple[float, float]:
    """Parameters of the cheapest and of the dearest network of all targets."""
    networks = [
        Architecture(SPACE.extreme(target, resource, end), target)  # type: ignore[arg-type]
        for target in problem(widths=2).targets
        for end in (False, True)
    ]
    counts = [float(count(network).params) for network in networks]
    return min(counts), max(counts)


def test_errors_are_those_of_guessing_and_exact_costs_the_ceiling() -> None:
    assert (found(Error()), found(Accuracy()), found(Params())) == (0.5, 0.5, ends()[1])
    assert found(Own(lambda error: 100 * error, source="data")) == 50.0
    assert found(Own(lambda number: -number, "maximize", "data")) == -0.5


def test_what_is_measured_is_worse_than_the_ceiling_by_a_tenth() -> None:
    low, high = ends("macs")
    assert found(Own(lambda number: number)) == high * 1.1
    assert found(Own(lambda _: -11.0)) == pytest.approx(-10.0), "below zero, too"
    assert found(Own(lambda number: 1e6 / number, "maximize")) == 1e6 / high / 1.1
    assert found(Own(lambda number: number, "maximize")) == low / 1.1, "the floor may be worst"
    assert found(Own(lambda number: -number, "maximize")) == pytest.approx(-high * 1.1)


def test_an_exact_one_that_is_maximised_is_worst_at_the_floor() -> None:
    assert found(Own(lambda number: 4 * number, "maximize", "exact")) == 4 * ends()[0]


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("source", ["measured", "exact", "data"])
def test_one_that_is_no_number_says_what_would_do(number: float, source: str) -> None:
    with pytest.raises(ObjectiveError, match=f"objective 'own' gave {number} for an extreme .*reference_point.own may"):
        found(Own(lambda _: number, source=source))
    assert found(Own(lambda _: number, source=source), own=3.0) == 3.0
