"""What every algorithm in the registry must do, whoever wrote it. A new one only adds its small settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import torch

from nas_core import checkpoint, settings
from nas_core.algorithms import algorithms
from nas_core.architecture import genotype_from_json
from nas_core.errors import IncompatibleSpaceError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated, Evaluation, Event, Price, Progress, Propose
from nas_core.search import Bound, Problem, Search, SearchAlgorithm, drive, start
from nas_core.spaces.nasbench201 import NasBench201
from tests.contracts.problems import SPACE, problem
from worker.recorder import FrontKeeper

pytestmark = pytest.mark.usefixtures("one_thread")

SUPERNET = {"supernet_epochs": 2, "batch": 16}
LOW_COST = SUPERNET | {
    "average": 0.5,
    "shrink": 2,
    "score": "expected_error",
    "augment": False,
    "lr_end": 0.05,
    "draws": 3,
}
SMALL: dict[str, list[dict[str, Any]]] = {
    "random": [
        {"batch": 4, "evaluate": {"epochs": 1, "batch": 16}},
        {"batch": 4, "evaluate": SUPERNET},
        {"batch": 4, "evaluate": LOW_COST},
    ],
    "nsga2": [{"population": 4, "evaluate": {"epochs": 1, "batch": 16}}, {"population": 4, "evaluate": SUPERNET}],
    "darts": [
        {"batch": 16},
        {"batch": 16, "share_features": True, "order": "second"},
        {
            "batch": 16,
            "alpha_lr": 0.3,
            "resource_weights": [0.0, 1.0],
            "collapse": {"parameter_free": 0.1, "epochs": 2},
        },
    ],
    "entrannas": [
        {"batch": 16, "alpha_lr": 0.3},
        {"batch": 16, "alpha_lr": 0.3, "engines": "last", "share_features": False, "warmup_epochs": 1}
        | {"temperature": 3.0, "temperature_end": 0.3},
    ],
    "rc-darts": [
        {"batch": 16, "alpha_lr": 0.3},
        {"batch": 16, "alpha_lr": 0.3, "bounds": [{"params": {"max": 3600.0}}, {"params": {"max": 1800.0}}]}
        | {"interval": 2, "band": 0.5, "warmup": 0.3, "order": "second"},
    ],
    "tnd-nas": [
        {"preferences": 3, "batch": 16, "weights": "relaxed", "samples": 3, "interval": 2, "warmup": 0.0, "rescored": 3}
        | {"ranked_by": {"supernet": 1.0}},
        {"preferences": 2, "batch": 16, "weights": "paths", "draws": 2, "carry": True, "average": 0.5, "rescored": 2}
        | {"score": "expected_error", "reward": "product", "max_skips": 1, "stages": 2, "shrink": 2, "samples": 2}
        | {"path_explore": 0.5, "final_draws": 2, "ranked_by": {"supernet": 0.5, "synflow": 1.0}, "interval": 4},
    ],
    "mgas": [
        {"batch": 60, "seed_training": {"epochs": 1, "batch": 60}, "alpha_lr": 3.0, "lambda_start": 0.1}
        | {"few_ops": 2, "commit_every": 1, "stages": 1, "targets": [900.0, 700.0]},
        {"batch": 60, "seed_training": {"epochs": 1, "batch": 60}, "alpha_lr": 3.0, "rho": [0.8, 0.8, 0.8]},
    ],
    "given": [{"batch": 2, "evaluate": {"epochs": 1, "batch": 16}}, {"batch": 2, "evaluate": SUPERNET}],
}
SPACES: dict[str, Any] = {
    "mgas": replace(
        SPACE,
        fan_in="free",
        levels="cell",
        filters=True,
        normal_ops=("skip_connect", "max_pool_3x3", "sep_conv_3x3"),
        reduce_ops=("skip_connect", "max_pool_3x3", "sep_conv_3x3"),
    )
}
"""For algorithms that need more of one than the others do."""
WHOLE: dict[str, Any] = {"evaluations": 10, "widths": 2, "seeds": 4}
UNREPEATABLE = {"seconds", "peak_memory_mb"}
"""Metrics of progress that no second run has alike."""
SEARCHING = [name for name in algorithms if not getattr(algorithms[name], "needs_seeds", False)]
"""Those whose proposals are their own."""
CASES = [
    pytest.param(name, index, id=f"{name}-{index}") for name in algorithms for index in range(len(SMALL.get(name, [0])))
]


def made(name: str, index: int) -> SearchAlgorithm:
    assert name in SMALL, f"add small settings for '{name}' to SMALL, so that its contract is tested"
    algorithm: SearchAlgorithm = settings.parse(algorithms[name], SMALL[name][index], name)
    return algorithm


def posed(name: str, *given: Any, **changed: Any) -> Problem[Any]:
    """A problem for this algorithm."""
    return problem(*given, **{"space": SPACES.get(name, SPACE), **changed})


def shown(event: Event) -> tuple[Any, ...]:
    """An event as something to compare; checkpoints by kind alone (their tensors are compared by what follows)."""
    if isinstance(event, Propose):
        known = [{key: value.to_json() for key, value in values.items()} for values in event.known]
        return "propose", [genotype.key() for genotype in event.genotypes], known, event.revise
    if isinstance(event, Evaluated):
        found = [{k: v.to_json() for k, v in values.items()} for values in event.evaluation.values]
        return "evaluated", event.evaluation.genotype.key(), found, event.evaluation.failure
    if isinstance(event, Progress):
        metrics = {name: number for name, number in event.metrics.items() if name not in UNREPEATABLE}
        return "progress", event.phase, event.step, event.total, metrics
    if isinstance(event, Price):
        return "price", [genotype.key() for genotype in event.genotypes]
    return ("checkpoint",)


@dataclass(frozen=True)
class Record:
    """What one search did."""

    events: list[Event]
    shown: list[tuple[Any, ...]]
    states: dict[int, dict[str, Any]]
    """Of the checkpoints, by their place among the events."""

    @property
    def proposed(self) -> Counter[str]:
        """How often each genotype was proposed for the first time."""
        proposals = [event for event in self.events if isinstance(event, Propose) and not event.revise]
        return Counter(genotype.key() for proposal in proposals for genotype in proposal.genotypes)

    @property
    def evaluations(self) -> list[Evaluation]:
        return [event.evaluation for event in self.events if isinstance(event, Evaluated)]


def recorded(search: Search, evaluate: Callable[[Propose | Price], Iterator[Evaluation]]) -> Record:
    events: list[Event] = []
    states = {}
    for event in drive(search, evaluate):
        if isinstance(event, Checkpoint):
            states[len(events)] = checkpoint.copied(event.state)
        events.append(event)
    return Record(events, [shown(event) for event in events], states)


@cache
def whole(name: str, index: int) -> Record:
    """One search that nothing disturbs, with seeds and two widths; what most of the contract is asked of."""
    on = posed(name, **WHOLE)
    return recorded(start(made(name, index), on), Evaluator(on))


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one if key not in UNREPEATABLE)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_same_seed_same_events_and_resuming_equals_never_stopping(name: str, index: int, tmp_path: Path) -> None:
    """Begun anew and gone on with from every checkpoint, each time as far as the next one, whose state is equal too:
    what follows from there is the next leg.
    """
    record = whole(name, index)
    places = sorted(record.states)
    assert places, "a search that never says a checkpoint cannot survive"
    for place, until in pairwise([None, *places, None]):
        on, state = posed(name, **WHOLE), None
        if place is not None:
            on.rng.random(7)  # a resumed process has other random state
            checkpoint.save(record.states[place], tmp_path / "checkpoint.pt")
            state = checkpoint.load(tmp_path / "checkpoint.pt")
        first = 0 if place is None else place + 1
        leg = []
        for event in drive(start(made(name, index), on, state), Evaluator(on)):
            leg.append(shown(event))
            if until is not None and isinstance(event, Checkpoint):
                assert same(checkpoint.copied(event.state), record.states[until]), f"checkpoint {until} differs"
                break
        wanted = record.shown[first : None if until is None else until + 1]
        assert leg == wanted, f"differs when resumed from checkpoint {place} of {len(record.events)} events"


@pytest.mark.parametrize(("name", "index"), [case for case in CASES if case.values[0] in SEARCHING])
def test_other_seed_other_search(name: str, index: int) -> None:
    """Seen at the first proposal or value that differs."""
    first = iter([event for event in whole(name, index).shown if event[0] in ("propose", "evaluated")])
    on = posed(name, **{**WHOLE, "seed": 1})
    other = (shown(event) for event in drive(start(made(name, index), on), Evaluator(on)))
    assert any(event != next(first, None) for event in other if event[0] in ("propose", "evaluated"))


@pytest.mark.parametrize(("name", "index"), CASES)
def test_seeds_are_proposed_once_and_all_is_of_its_space_within_the_budget(name: str, index: int) -> None:
    record = whole(name, index)
    assert all(record.proposed[seed.key()] == 1 for seed in posed(name, **WHOLE).seeds)
    assert len(record.proposed) <= WHOLE["evaluations"]
    for key in record.proposed:
        SPACES.get(name, SPACE).check(genotype_from_json(key))


@pytest.mark.parametrize(("name", "index"), CASES)
def test_failing_candidates_are_survived(name: str, index: int) -> None:
    """Also with more seeds than the populations of SMALL, proposed once and within the budget as ever."""
    on = posed(name, evaluations=8, seeds=6)
    real = Evaluator(on)
    seen: list[Evaluation] = []

    def failing(proposal: Propose | Price) -> Iterator[Evaluation]:
        if isinstance(proposal, Price):
            yield from real(proposal)
            return
        for evaluation in real(proposal):
            broken = len(seen) % 3 != 1
            seen.append(Evaluation(evaluation.genotype, (), "out of memory") if broken else evaluation)
            yield seen[-1]

    record = recorded(start(made(name, index), on), failing)
    assert len(record.evaluations) == len(seen) >= 2
    assert all(evaluation.failure for evaluation in seen[::3])
    assert [record.proposed[seed.key()] for seed in on.seeds] == [1] * 6
    assert len(record.proposed) <= 8


@pytest.mark.parametrize(("name", "index"), CASES)
def test_every_evaluation_has_every_objective_on_every_target(name: str, index: int) -> None:
    found = whole(name, index).evaluations
    assert found
    for evaluation in found:
        assert evaluation.failure is None
        narrow, wide = evaluation.values
        assert set(narrow) == set(wide) == {"error", "params"}
        assert narrow["params"].value < wide["params"].value
        assert narrow["params"].kind == "exact"
        assert 0 <= narrow["error"].value <= 1


@pytest.mark.parametrize(("name", "index"), [case for case in CASES if case.values[1] == 0])
def test_what_breaks_a_bound_stands_on_no_front(name: str, index: int) -> None:
    """Of every target, with bounds on both sides and on values of both kinds, whatever the algorithm proposes."""
    narrow, wide = zip(*(evaluation.values for evaluation in whole(name, index).evaluations), strict=True)
    sizes = sorted({values["params"].value for values in (*narrow, *wide)})
    errors = sorted(values["error"].value for values in narrow)
    limits = {
        "params": Bound(min=sizes[1], max=sizes[-2]),
        "error": Bound(max=errors[-2] if errors[-2] < errors[-1] else errors[-1]),
    }
    on = posed(name, **WHOLE, bounds=limits)
    keeper = FrontKeeper(uuid4(), "search", on.axes, {"error": 1.0, "params": 1e9})
    seen: dict[UUID, dict[str, float]] = {}
    for event in drive(start(made(name, index), on), Evaluator(on)):
        if isinstance(event, Evaluated):
            for target, values in enumerate(event.evaluation.values):
                point = uuid4()
                seen[point] = {key: value.value for key, value in values.items()}
                keeper.add(point, target, seen[point])
    members = [seen[point.id] for point in keeper.members]
    assert members, "these bounds leave room"
    assert any(on.axes.violation(values) > 0 for values in seen.values()), "and do not hold for all"
    for values in members:
        assert sizes[1] <= values["params"] <= sizes[-2] and values["error"] <= (limits["error"].max or 0)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_space_that_does_not_fit_is_refused(name: str, index: int) -> None:
    class Nothing:
        pass

    on = problem()
    object.__setattr__(on, "space", Nothing())
    with pytest.raises(IncompatibleSpaceError, match="needs a space that is"):
        start(made(name, index), on)


@pytest.mark.parametrize(("name", "index"), [case for case in CASES if case.values[0] not in SPACES])
def test_a_space_with_cells_that_are_not_searched(name: str, index: int, tmp_path: Path) -> None:
    """NAS-Bench-201: one cell type to search, one fixed, genotypes that are refused although they can be written.

    Without seeds where an algorithm needs none; gone on with from the checkpoint in the middle.
    """
    space = NasBench201(cells=5, channels=2)
    given: dict[str, Any] = {"evaluations": 7, "widths": 2, "seeds": 0 if name in SEARCHING else 3, "space": space}
    on = problem(**given)
    record = recorded(start(made(name, index), on), Evaluator(on))
    assert record.evaluations and 1 <= len(record.proposed) <= 7
    for evaluation in record.evaluations:
        space.check(evaluation.genotype)
        assert evaluation.failure is None
        narrow, wide = evaluation.values
        assert narrow["params"].value < wide["params"].value
    place = sorted(record.states)[len(record.states) // 2]
    checkpoint.save(record.states[place], tmp_path / "checkpoint.pt")
    again = problem(**given)
    search = start(made(name, index), again, checkpoint.load(tmp_path / "checkpoint.pt"))
    assert [shown(event) for event in drive(search, Evaluator(again))] == record.shown[place + 1 :]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_seconds_end_it_in_good_order(name: str, index: int) -> None:
    """When time is up from the start, something is still proposed, and whatever was proposed is answered."""
    on = posed(name, evaluations=1000, epochs=1000, seeds=3)
    object.__setattr__(on, "time_is_up", lambda: True)
    events = list(drive(start(made(name, index), on), Evaluator(on)))
    proposed = sum(len(event.genotypes) for event in events if isinstance(event, Propose))
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    assert 1 <= proposed == len(evaluated) < 20
    assert isinstance(events[-1], Checkpoint | Evaluated)
