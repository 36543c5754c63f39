"""What objectives may do when they are asked: one of a user's own may do anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.errors import DeviceError, ObjectiveError
from nas_core.evaluation import Evaluator
from nas_core.events import Evaluation, Propose, evaluation_from_json, evaluation_to_json
from nas_core.objectives.error import Error
from nas_core.search import Axes, Bound, Problem
from nas_core.values import Value
from nas_core.valuing import data_value, exact_value, measured_values
from tests.contracts.problems import SPACE, problem

CPU = torch.device("cpu")
ARCHITECTURE = Architecture(SPACE.sample(np.random.default_rng(0)), SPACE.skeleton((1, 8, 8), 2))


class Own:
    """A user's objective that does as it is told; ``calls`` are the networks it was asked for together."""

    unit: ClassVar[str] = "g"
    direction: ClassVar[Any] = "minimize"
    source: ClassVar[Any] = "measured"
    resource: ClassVar[Any] = "params"

    def __init__(self, does: Callable[[], Any], source: str = "measured") -> None:
        self.does, self.calls = does, list[int]()
        self.source = source  # type: ignore[misc]

    def measure(self, architectures: Sequence[Architecture], device: Any) -> Any:
        self.calls.append(len(architectures))
        return [self.does() for _ in architectures]

    def value(self, *_: Any) -> Any:
        return self.does()


def fails(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


GIVEN: dict[str, tuple[Callable[[], Any], str]] = {
    "KeyError": (fails(KeyError("x")), "objective 'own' raised KeyError: 'x'"),
    "RuntimeError": (fails(RuntimeError("no board")), "objective 'own' raised RuntimeError: no board"),
    "a bare number": (lambda: 3.5, r"objective 'own' gave 3\.5; expected a nas_core\.values\.Value\(number, 'g', kind"),
    "another unit": (lambda: Value(1.0, "kg", "measured"), "gave a value in 'kg'; its unit is 'g'"),
    "an unknown kind": (lambda: Value(1.0, "g", "guessed"), "of kind 'guessed'; known: exact,"),  # type: ignore[arg-type]
    "no number": (lambda: Value(None, "g", "measured"), "raised TypeError: float"),  # type: ignore[arg-type]
    "detail that is no JSON": (lambda: Value(1.0, "g", "measured", {"at": {1}}), "whose detail cannot be stored"),
    "detail over the value": (
        lambda: Value(1.0, "g", "measured", {"unit": "kg"}),
        "it has 'unit', which is the value's",
    ),
}


@pytest.mark.parametrize(("does", "why"), GIVEN.values(), ids=GIVEN)
def test_what_is_raised_or_given_instead_of_a_value_names_the_objective(does: Callable[[], Any], why: str) -> None:
    with pytest.raises(ObjectiveError, match=why):
        measured_values("own", Own(does), [ARCHITECTURE], CPU)
    with pytest.raises(ObjectiveError, match=why):
        exact_value("own", Own(does, "exact"), ARCHITECTURE)
    with pytest.raises(ObjectiveError, match=why):
        data_value("own", Own(does, "data"), 0.5, "trained", {})


def test_as_many_values_as_networks() -> None:
    own = Own(lambda: Value(1.0, "g", "measured"))
    own.measure = lambda architectures, device: [Value(1.0, "g", "measured")]  # type: ignore[method-assign]
    with pytest.raises(ObjectiveError, match="objective 'own' gave 1 values for 2 networks"):
        measured_values("own", own, [ARCHITECTURE] * 2, CPU)


@pytest.mark.parametrize("number", [3, np.float32(3), torch.tensor(3.0), True], ids=repr)
def test_numbers_of_any_library_are_stored_as_numbers(number: Any) -> None:
    (value,) = measured_values("own", Own(lambda: Value(number, "g", "measured", {"n": 2})), [ARCHITECTURE], CPU)
    assert type(value.value) is float and value.value in (3.0, 1.0)
    assert value.to_json() == {"value": value.value, "unit": "g", "kind": "measured", "n": 2}


@pytest.mark.parametrize("error", [DeviceError("no such clock"), torch.OutOfMemoryError("out of memory")])
def test_what_others_have_words_for_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)):
        measured_values("own", Own(fails(error)), [ARCHITECTURE], CPU)


# --- in a search ------------------------------------------------------------------------------------------------------


def evaluated(own: Own, count: int = 3) -> list[Evaluation]:
    """Networks whose errors are known; only the own objective is asked."""
    on: Problem[Any] = problem()
    object.__setattr__(on, "axes", Axes({"error": Error(), "own": own}))
    rng = np.random.default_rng(0)
    known = {"error": Value(0.5, "", "supernet")}
    return [*Evaluator(on)(Propose(tuple(SPACE.sample(rng) for _ in range(count)), (known,) * count))]


@pytest.mark.parametrize(
    ("source", "why"),
    [("measured", "own could not be measured: objective 'own' raised KeyError: 'x'"), ("exact", "ObjectiveError: obj")],
)
def test_what_it_raises_is_the_failure_of_the_candidate(source: str, why: str) -> None:
    for evaluation in evaluated(Own(fails(KeyError("x")), source)):
        assert evaluation.failure is not None and evaluation.failure.startswith(why)


def test_one_bad_network_does_not_take_the_others_along() -> None:
    seen = iter(range(100))

    def third() -> Value:
        if next(seen) in (2, 5):  # of three together, then of each alone
            raise LookupError("not this one")
        return Value(7.0, "g", "measured")

    own = Own(third)
    failures = [evaluation.failure for evaluation in evaluated(own)]
    assert failures[:2] == [None, None]
    assert failures[2] == "own could not be measured: objective 'own' raised LookupError: not this one"
    assert own.calls == [3, 1, 1, 1]


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("source", ["measured", "exact"])
def test_what_is_not_finite_is_a_failure(number: float, source: str) -> None:
    for evaluation in evaluated(Own(lambda: Value(number, "g", "measured"), source)):
        assert evaluation.failure == f"own is {number}, not a finite number"


def test_what_was_measured_is_not_measured_again() -> None:
    own = Own(lambda: Value(7.0, "g", "predicted"))
    on: Problem[Any] = problem()
    object.__setattr__(on, "axes", Axes({"error": Error(), "own": own}))
    genotype = SPACE.sample(np.random.default_rng(0))
    journal = {Architecture(genotype, on.targets[0]).hash: {"own": Value(5.0, "g", "predicted")}}
    proposal = Propose((genotype,), ({"error": Value(0.5, "", "supernet")},))
    (evaluation,) = Evaluator(on, journal)(proposal)
    assert evaluation.values[0]["own"].value == 5.0 and own.calls == []


def test_what_fails_at_one_width_fails_there_alone() -> None:
    numbers = iter([1.0, math.nan, 3.0])
    on: Problem[Any] = problem(widths=3)
    object.__setattr__(on, "axes", Axes({"error": Error(), "own": Own(lambda: Value(next(numbers), "g", "measured"))}))
    genotype = SPACE.sample(np.random.default_rng(0))
    (found,) = Evaluator(on)(Propose((genotype,), ({"error": Value(0.5, "", "supernet")},)))
    assert found.failure is None
    assert [found.failure_at(width) for width in range(3)] == [None, "own is nan, not a finite number", None]
    assert [values["own"].value if values else None for values in found.values] == [1.0, None, 3.0]
    again = evaluation_from_json(evaluation_to_json(found))
    assert again == found
    assert on.costs([found]).tolist() == [[0.5, 1.0]] and on.violations([found]).tolist() == [0.0]


def test_an_exact_objective_that_raises_at_one_width_fails_there_alone() -> None:
    def odd() -> Value:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("narrow")
        return Value(2.0, "g", "exact")

    calls: list[int] = []
    on: Problem[Any] = problem(widths=2)
    object.__setattr__(on, "axes", Axes({"error": Error(), "own": Own(odd, "exact")}))
    genotype = SPACE.sample(np.random.default_rng(0))
    (found,) = Evaluator(on)(Propose((genotype,), ({"error": Value(0.5, "", "supernet")},)))
    assert found.failures == ("ObjectiveError: objective 'own' raised KeyError: 'narrow'", None)


def test_what_fails_at_the_searched_width_costs_infinity_and_may_hold_bounds_elsewhere() -> None:
    values = {"error": Value(0.5, "", "supernet"), "params": Value(9.0, "", "exact")}
    on = problem(widths=2, bounds={"params": Bound(max=10.0)})
    found = Evaluation(SPACE.sample(np.random.default_rng(0)), ({}, values), failures=("broken", None))
    assert on.costs([found]).tolist() == [[math.inf, math.inf]] and on.violations([found]).tolist() == [0.0]
