"""Known genotypes: read in all their forms, evaluated before what is found, or evaluated alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas_core.algorithms.darts import Darts
from nas_core.algorithms.given import Given
from nas_core.algorithms.nsga2 import Nsga2
from nas_core.algorithms.random_search import RandomSearch
from nas_core.architecture import Architecture, CellType, Edge, Genotype, Skeleton, genotype_to_json
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.evaluation import Evaluator
from nas_core.events import Evaluated, Event, Propose
from nas_core.objectives.error import Error
from nas_core.objectives.latency_ms import LatencyMs
from nas_core.objectives.params import Params
from nas_core.recipe import ShortTraining
from nas_core.search import Axes, Bound, Problem, SearchAlgorithm, drive, start
from nas_core.seeds import read_genotype
from nas_core.spaces.darts import DartsCells, from_darts
from nas_core.variation import distinct, untried
from tests.contracts.problems import SPACE, genotypes, problem
from tests.nas_core.published import DARTS_V2

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ShortTraining(epochs=1, batch=16, subset=32)
LARGE = DartsCells()


# --- forms ------------------------------------------------------------------------------------------------------------


def test_one_genotype_in_all_its_forms() -> None:
    genotype = from_darts(DARTS_V2)
    architecture = Architecture(genotype, LARGE.skeleton((3, 32, 32), 10))
    for document in (
        DARTS_V2,
        genotype_to_json(genotype),
        architecture.to_json(),
        {"genotype": genotype_to_json(genotype)},
    ):
        assert read_genotype(document).key() == genotype.key()


def changed(**fields: Any) -> dict[str, Any]:
    return {**DARTS_V2, **fields}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "it has the fields none; expected a genotype"),
        ({"cells": 3, "ops": []}, "it has the fields cells, ops; expected a genotype"),
        ({"genotype": "darts"}, "its genotype is 'darts'; an architecture has a genotype and a skeleton"),
        ({"genotype": {}, "score": 3}, "unknown field 'score'; an architecture has a genotype and a skeleton"),
        ({"genotype": {"space": "darts"}}, "/types: Field required"),
        ({"space": "darts", "types": {"normal": {"edges": [[2, 0]]}}}, "/types/normal/edges/0"),
        ({"space": "darts", "types": {"normal": {"edges": []}}}, "node 2 has no input"),
        ({"normal": [["skip_connect", 0]] * 2}, "/normal_concat: Field required"),
        (changed(reduce=None), "/reduce: Input should be a valid array"),
        (changed(normal=[["skip_connect", "0"]] * 8), "/normal/0/1: Input should be a valid integer .got 0"),
        (changed(normal=[["skip_connect", 0, 2]] * 8), "/normal/0: Tuple should have at most 2 items"),
        (changed(normal=[[1, 0]] * 8), "/normal/0/0: Input should be a valid string"),
        (changed(normal=DARTS_V2["normal"][:3]), "'normal' lists 3 ops; two for each node are needed"),
        (changed(normal=[["skip_connect", 5]] * 8), "edge 5->2 runs backwards"),
        (changed(normal_concat=[2, 9]), "concat .2, 9. must name distinct nodes"),
        (changed(published={}), "/published: Unexpected keyword argument"),
    ],
)
def test_what_is_no_genotype_is_refused_with_its_fault(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidGenotypeError, match=message):
        read_genotype(document)


def test_depth_cannot_be_changed_where_positions_have_types_of_their_own() -> None:
    cell = CellType((Edge(2, 0, "skip_connect"),), nodes=1, concat=(2,))
    skeleton = Skeleton(("0", "1", "2"), 4, "cifar", (1, 8, 8), 10)
    own = Architecture(Genotype("own", dict.fromkeys(skeleton.cells, cell)), skeleton)
    assert own.on(replace(skeleton, channels=8)).skeleton.channels == 8
    with pytest.raises(
        InvalidGenotypeError, match="stacks cells of type 3, but the genotype has 0, 1, 2; depth can only"
    ):
        own.on(replace(skeleton, cells=("0", "1", "2", "3")))
    shorter = (
        "a skeleton of 2 cells has no place for cells of type 2, which this network of 3 cells is made of; depth can"
    )
    with pytest.raises(InvalidGenotypeError, match=shorter):
        own.on(replace(skeleton, cells=("0", "1")))
    shared = Architecture(SPACE.sample(np.random.default_rng(0)), SPACE.skeleton((1, 8, 8), 10))
    assert len(shared.on(SPACE.skeleton((1, 8, 8), 10, cells=9)).skeleton.cells) == 9


# --- in a search ------------------------------------------------------------------------------------------------------


def test_what_was_tried_or_stands_twice_is_left_out() -> None:
    one, two, three = genotypes(3)
    assert untried([one, two, one, three], 5, [two.key()]) == [one, three]
    assert untried([one, two, three], 2, ()) == [one, two]
    assert distinct(lambda: three, 3, [two.key()], (one, two, one)) == [one, three]
    assert distinct(lambda: three, 1, (), (one, two)) == [one]


def events_of(algorithm: SearchAlgorithm, on: Problem[Any]) -> list[Event]:
    return list(drive(start(algorithm, on), Evaluator(on)))


def proposed(events: list[Event]) -> list[tuple[Genotype, ...]]:
    return [event.genotypes for event in events if isinstance(event, Propose)]


def test_random_search_begins_with_them() -> None:
    on = problem(evaluations=7, seeds=3)
    first, *rest = proposed(events_of(RandomSearch(batch=5, evaluate=SHORT), on))
    assert first[:3] == on.seeds and len(first) == 5
    assert sum(map(len, rest)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "parts"), [(3, [[0, 1, 2], []]), (6, [[0, 1, 2, 3], [4, 5]])])
def test_the_first_populations_of_evolution_begin_with_them(seeds: int, parts: list[list[int]]) -> None:
    on = problem(evaluations=8, seeds=seeds)
    generations = proposed(events_of(Nsga2(population=4, evaluate=SHORT), on))
    assert [len(generation) for generation in generations] == [4, 4]
    for generation, places in zip(generations, parts, strict=True):
        assert list(generation[: len(places)]) == [on.seeds[place] for place in places]
        assert not set(generation[len(places) :]) & set(on.seeds)


@pytest.mark.slow
def test_darts_scores_them_on_its_last_supernet_beside_what_it_derived() -> None:
    on = problem(evaluations=10, epochs=2, seeds=2)
    events = events_of(Darts(batch=16), on)
    at = next(place for place, event in enumerate(events) if isinstance(event, Propose) and event.genotypes == on.seeds)
    found = [event.evaluation for event in events[at:] if isinstance(event, Evaluated)]
    assert [evaluation.genotype for evaluation in found[:2]] == list(on.seeds)
    error = found[0].values[0]["error"]
    assert (error.kind, error.detail["epochs"], error.detail["n"]) == ("supernet", 2, on.splits.validation.size)
    without = [
        event for event in events_of(Darts(batch=16), problem(evaluations=10, epochs=2)) if isinstance(event, Evaluated)
    ]
    derived = [
        event.evaluation
        for event in events
        if isinstance(event, Evaluated) and event.evaluation.genotype not in on.seeds
    ]
    assert derived == [event.evaluation for event in without], "they change nothing of the search"


@pytest.mark.slow
def test_a_seed_that_darts_derives_is_told_once() -> None:
    derived = proposed(events_of(Darts(batch=16), problem(epochs=1)))[0]
    on = problem(epochs=1)
    object.__setattr__(on, "seeds", derived)
    assert proposed(events_of(Darts(batch=16), on)) == [derived]


# --- alone ------------------------------------------------------------------------------------------------------------


def test_given_evaluates_them_and_nothing_else() -> None:
    on = problem(seeds=3)
    assert proposed(events_of(Given(batch=2, evaluate=SHORT), on)) == [on.seeds[:2], on.seeds[2:]]
    twice = problem()
    object.__setattr__(twice, "seeds", (*on.seeds, on.seeds[0]))
    assert proposed(events_of(Given(batch=3, evaluate=None), twice)) == [on.seeds]


def test_given_without_seeds_says_so() -> None:
    with pytest.raises(InvalidSettingsError, match="'given' evaluates seeds and nothing else; give it at least one"):
        events_of(Given(), problem())


def test_unscored_candidates_have_their_exact_costs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: Any) -> Any:
        raise AssertionError("nothing is trained or measured")

    monkeypatch.setattr(Evaluator, "_short_error", taken)
    monkeypatch.setattr(LatencyMs, "measure", taken)
    on = problem(widths=2, seeds=2)
    axes = Axes(
        {"error": Error(), "params": Params(), "lat": LatencyMs()}, {"params": Bound(max=1), "lat": Bound(max=9)}
    )
    object.__setattr__(on, "axes", axes)
    events = events_of(Given(evaluate=None), on)
    found = [event.evaluation for event in events if isinstance(event, Evaluated)]
    assert [evaluation.failure for evaluation in found] == [None, None]
    assert [set(values) for evaluation in found for values in evaluation.values] == [{"params"}] * 4
    assert axes.violation({"params": 3.0}) == 2.0, "a value that is not known breaks no bound"
