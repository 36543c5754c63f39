"""What every algorithm in the registry must do, whoever wrote it. A new one only adds its small settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from nas_core import checkpoint, settings
from nas_core.algorithms import algorithms
from nas_core.architecture import genotype_from_json
from nas_core.errors import IncompatibleSpaceError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated, Evaluation, Event, Price, Progress, Propose
from nas_core.search import Bound, Problem, SearchAlgorithm, drive, start
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
        {"preferences": 3, "batch": 16, "samples": 3, "interval": 2, "warmup": 0.0, "rescored": 3},
        {"preferences": 2, "batch": 16, "weights": "paths", "draws": 2, "carry": True, "average": 0.5, "rescored": 2}
        | {"score": "expected_error", "reward": "product", "max_skips": 1, "stages": 2, "shrink": 2, "samples": 2},
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


def run(algorithm: SearchAlgorithm, on: Problem[Any], keep: Path | None = None) -> list[tuple[Any, ...]]:
    events = []
    for event in drive(start(algorithm, on), Evaluator(on)):
        if isinstance(event, Checkpoint) and keep is not None:
            checkpoint.save(event.state, keep / f"{len(events)}.pt")
        events.append(shown(event))
    return events


@pytest.mark.parametrize(("name", "index"), CASES)
def test_same_seed_same_events_and_resuming_equals_never_stopping(name: str, index: int, tmp_path: Path) -> None:
    algorithm = made(name, index)
    whole = run(algorithm, posed(name, seeds=3), tmp_path)
    assert run(algorithm, posed(name, seeds=3)) == whole
    places = sorted(int(path.stem) for path in tmp_path.glob("*.pt"))
    assert places, "a search that never says a checkpoint cannot survive"
    for place in places:
        on = posed(name, seeds=3)
        on.rng.random(7)  # a resumed process has other random state
        state = checkpoint.load(tmp_path / f"{place}.pt")
        rest = [shown(event) for event in drive(start(algorithm, on, state), Evaluator(on))]
        assert rest == whole[place + 1 :], f"differs when resumed from checkpoint {place} of {len(whole)} events"


@pytest.mark.parametrize(("name", "index"), [case for case in CASES if case.values[0] in SEARCHING])
def test_other_seed_other_search(name: str, index: int) -> None:
    algorithm = made(name, index)
    proposals = [
        [event for event in run(algorithm, posed(name, seed)) if event[0] in ("propose", "evaluated")]
        for seed in (0, 1)
    ]
    assert proposals[0] != proposals[1]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_only_proposes_what_its_space_allows_and_keeps_its_budget(name: str, index: int) -> None:
    on, proposed = posed(name, evaluations=7, seeds=0 if name in SEARCHING else 3), set()
    for event in drive(start(made(name, index), on), Evaluator(on)):
        if isinstance(event, Propose):
            for genotype in event.genotypes:
                on.space.check(genotype)
                proposed.add(genotype.key())
    assert 1 <= len(proposed) <= 7


@pytest.mark.parametrize(("name", "index"), CASES)
def test_seeds_are_proposed_once_within_the_budget(name: str, index: int) -> None:
    """They are more than the populations of SMALL."""
    on = posed(name, evaluations=8, seeds=6)
    proposed: Counter[str] = Counter()
    for event in drive(start(made(name, index), on), Evaluator(on)):
        if isinstance(event, Propose) and not event.revise:
            proposed.update(genotype.key() for genotype in event.genotypes)
    assert [proposed[seed.key()] for seed in on.seeds] == [1] * 6
    assert len(proposed) <= 8


@pytest.mark.parametrize(("name", "index"), CASES)
def test_failing_candidates_are_survived(name: str, index: int) -> None:
    on = posed(name, seeds=2)
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

    events = list(drive(start(made(name, index), on), failing))
    assert len([event for event in events if isinstance(event, Evaluated)]) == len(seen) >= 2
    assert all(evaluation.failure for evaluation in seen[::3])


@pytest.mark.parametrize(("name", "index"), CASES)
def test_every_evaluation_has_every_objective_on_every_target(name: str, index: int) -> None:
    on = posed(name, widths=2, seeds=2)
    found = [event for event in drive(start(made(name, index), on), Evaluator(on)) if isinstance(event, Evaluated)]
    assert found
    for event in found:
        assert event.evaluation.failure is None
        narrow, wide = event.evaluation.values
        assert set(narrow) == set(wide) == {"error", "params"}
        assert narrow["params"].value < wide["params"].value
        assert narrow["params"].kind == "exact"
        assert 0 <= narrow["error"].value <= 1


@pytest.mark.parametrize(("name", "index"), CASES)
def test_what_breaks_a_bound_stands_on_no_front(name: str, index: int) -> None:
    """Of every target, with bounds on both sides and on values of both kinds, whatever the algorithm proposes."""
    free = posed(name, widths=2, seeds=4)
    every = [event for event in drive(start(made(name, index), free), Evaluator(free)) if isinstance(event, Evaluated)]
    narrow, wide = zip(*(event.evaluation.values for event in every), strict=True)
    sizes = sorted({values["params"].value for values in (*narrow, *wide)})
    errors = sorted(values["error"].value for values in narrow)
    limits = {
        "params": Bound(min=sizes[1], max=sizes[-2]),
        "error": Bound(max=errors[-2] if errors[-2] < errors[-1] else errors[-1]),
    }
    on = posed(name, widths=2, seeds=4, bounds=limits)
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
    """NAS-Bench-201: one cell type to search, one fixed, genotypes that are refused although they can be written."""
    space = NasBench201(cells=5, channels=2)
    on = problem(evaluations=7, widths=2, seeds=2, space=space)
    events = run(made(name, index), on, tmp_path)
    evaluated = [event for event in events if event[0] == "evaluated"]
    assert evaluated
    for _, key, (narrow, wide), failure in evaluated:
        space.check(genotype_from_json(key))
        assert failure is None
        assert narrow["params"]["value"] < wide["params"]["value"]
    place = sorted(int(path.stem) for path in tmp_path.glob("*.pt"))[0]
    state = checkpoint.load(tmp_path / f"{place}.pt")
    again = problem(evaluations=7, widths=2, seeds=2, space=space)
    rest = [shown(event) for event in drive(start(made(name, index), again, state), Evaluator(again))]
    assert rest == events[place + 1 :]


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
