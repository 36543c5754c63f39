"""A search by stages to its end: what it proposes, and what outages, time and kills leave of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_core import checkpoint
from nas_core.algorithms.tnd_nas import TndNas
from nas_core.errors import ObjectiveError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated, Price, Progress, Propose
from nas_core.merit import Merit
from nas_core.objectives.error import Error
from nas_core.objectives.macs import Macs
from nas_core.progressive import Run
from nas_core.search import Axes, Bound, Problem, drive, start
from nas_core.spaces.nasbench201 import NasBench201
from nas_core.stages import Stages
from tests.contracts.problems import problem
from tests.contracts.test_algorithms import same, shown
from tests.nas_core.black_boxes import (
    PLAIN,
    Board,
    Edges,
    answered,
    front_of,
    steps_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize("explore", [0.0, 1.0])
def test_paths_may_be_drawn_from_all_that_is_left(explore: float) -> None:
    """A policy that is sure of one op trains it alone, or all ops alike."""
    run = Run(TndNas(preferences=1, batch=16, weights="paths", path_explore=explore), problem())
    for alpha in run.policies.preferences[0].policy.alpha.values():
        with torch.no_grad():
            alpha[:, 4] += 50.0  # sep_conv_3x3
    run.weights.learner.start(0)
    before, batch = copy.deepcopy(run.weights.supernet.state_dict()), next(steps_of(run))
    for _ in range(4):
        run.weight_step(*batch)
    changed = {
        name for name, tensor in run.weights.supernet.state_dict().items() if not torch.equal(before[name], tensor)
    }
    columns = {name.split("edge")[1].split(".")[0].split("_")[1] for name in changed if "edge" in name}
    assert columns == {"4"} if explore == 0 else len(columns) > 1
    sure = [run.policies.draw(run.policies.preferences[0], 0.0).genotype.key() for _ in range(5)]
    assert len(set(sure)) == 1, "samples of the policy are still its own"


def test_stages_share_the_epochs_and_have_one_with_policy_steps_at_least() -> None:
    stages = Stages(3, 8, 0.99)
    assert [stages.length(stage) for stage in range(3)] == [3, 3, 2]
    assert [stages.before(stage) for stage in range(3)] == [0, 3, 6]
    assert [stages.warm(stage) for stage in range(3)] == [2, 2, 1]


@pytest.mark.slow
def test_candidates_are_ranked_among_all_samples() -> None:
    """Of two alone, each first by one signal, neither is better; among all, one of them is last by a signal."""
    on, rng = problem(), np.random.default_rng(0)
    cells = {genotype.key(): genotype for genotype in (on.space.sample(rng) for _ in range(40))}
    balanced, lopsided, *crowd = cells
    signals = {key: (40.0 - place, 0.5 - place / 100) for place, key in enumerate(crowd)}
    signals |= {balanced: (60.0, 1.0), lopsided: (99.0, 0.0)}
    merit = Merit(on, {"supernet": 1.0, "synflow": 1.0}, 1)
    others = {key: [signals[key][1]] for key in cells}
    merit.resume({"seen": {key: [1.0, signals[key][0]] for key in cells}, "others": others, "spent": 0.0})
    both = [cells[lopsided], cells[balanced]]
    assert merit.in_order(both, [0.01, 0.4]) == [0.4, 0.01]


def test_finalists_are_scored_on_weights_that_did_not_choose_them() -> None:
    on = problem()
    genotype, other = (on.space.sample(np.random.default_rng(seed)) for seed in (0, 1))
    merit = Merit(on, {"supernet": 1.0, "synflow": 1.0}, 1, draws=2)
    before, spent = merit.signals(genotype), merit.spent
    kept, together = merit.signals(other), merit.spent
    merit.take_anew(genotype, 3)
    assert merit.signals(genotype) != before and merit.signals(other) == kept
    assert merit.spent - together == pytest.approx(1.5 * spent)
    assert merit.state()["others"] == {genotype.key(): before, other.key(): kept}, "searches that go on have the first"
    again = Merit(on, {"supernet": 1.0, "synflow": 1.0}, 1, draws=2)
    again.take_anew(genotype, 3)
    assert again.signals(genotype) == merit.signals(genotype), "whatever was scored before"
    alone = Merit(on, PLAIN, 1)
    alone.take_anew(genotype, 3)
    assert alone.signals(genotype) == [] and alone.spent == 0


@pytest.mark.slow
def test_a_metric_that_fails_for_some_is_survived_and_told_of() -> None:
    metric = Edges(lambda call: float("nan") if call % 5 == 0 else None)
    points, events = front_of("convolutions", metric, preferences=2, rescored=10)
    assert len(points)
    failed = [event.metrics["failed"] for event in events if isinstance(event, Progress) and "failed" in event.metrics]
    assert failed[-1] > 0


def test_a_metric_that_fails_for_all_ends_the_search_with_its_reason() -> None:
    with pytest.raises(ObjectiveError, match="none of 32 random networks could be priced.*convolutions is nan"):
        front_of("convolutions", Edges(lambda call: float("nan")), preferences=2)


@pytest.mark.slow
def test_a_metric_that_is_out_in_a_later_stage_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    board = Edges()
    on = problem(space=NasBench201(cells=5, channels=2), epochs=6)
    on = replace(on, axes=Axes({"error": Error(), "board": board}), warn=told.append)
    run = Run(TndNas(preferences=3, batch=16, samples=2, warmup=0.0, ranked_by=PLAIN), on)
    images = next(run.weights.validation_batches(16, run.order))
    evaluator = Evaluator(on)
    answered(run.policies.calibrate(*images), on)
    rewards = [preference.reward for preference in run.policies.preferences]
    answered(run.close_stage(), on)
    board.fails = lambda call: float("nan")
    monkeypatch.setattr(run.policies.prices, "_known", {})
    assert not run.policies.calibrated
    list(drive(run.policies.step(*images, []), evaluator))
    assert run.policies.calibrated and [preference.reward for preference in run.policies.preferences] == rewards
    assert any("none of 32 random networks could be priced in stage 2" in text for text in told), told
    run.policies.calibrated = False
    run.policies.preferences[0].reward = None
    with pytest.raises(ObjectiveError, match="none of 32.*the first: board is nan"):
        list(drive(run.policies.step(*images, []), evaluator))


@pytest.mark.slow
def test_a_metric_that_stays_out_ends_the_search_with_what_it_came_to_before() -> None:
    """Unbroken, and taken up where the stage without a price began: with the networks that the first stage priced."""
    settings = TndNas(preferences=2, stages=3, batch=32, samples=2, warmup=0.0, rescored=3, ranked_by=PLAIN)

    def search(board: Board, resume: Mapping[str, Any] | None = None) -> tuple[list[Any], list[Mapping[str, Any]]]:
        told: list[str] = []
        on = replace(problem(epochs=6, evaluations=8), axes=Axes({"error": Error(), "board": board}), warn=told.append)
        found, begun = [], []
        for event in drive(start(settings, on, checkpoint.copied(resume)), Evaluator(on)):
            if isinstance(event, Evaluated):
                found.append(event.evaluation)
            elif isinstance(event, Checkpoint) and event.state["stage"] == 1 and not event.state["epochs_done"]:
                begun.append(checkpoint.copied(event.state))
                board.out = True
        assert sum("no network of stage 2 could be priced" in text for text in told) == 1, told
        return found, begun

    found, begun = search(Board())
    assert len(found) > 3 and all(one.failure is None for one in found), "by the prices that are known"
    first = set(begun[0]["previous"]["seen"])
    assert sum(one.genotype.key() in first for one in found) >= 3, "samples that the first stage priced"
    again, _ = search(Board(out=True), begun[0])
    assert [one.genotype for one in again] == [one.genotype for one in found]


def test_where_time_is_up_before_the_first_policy_step_random_networks_are_ranked() -> None:
    told: list[str] = []
    on = problem(space=NasBench201(cells=5, channels=2), epochs=9, evaluations=12)
    on = replace(on, time_is_up=lambda: True, warn=told.append)
    settings = TndNas(preferences=2, batch=32, samples=2, warmup=0.6, rescored=9, ranked_by=PLAIN)
    events = list(drive(start(settings, on), Evaluator(on)))
    (proposal,) = [event for event in events if isinstance(event, Propose)]
    assert len(proposal.genotypes) == 11
    scoring = [event for event in events if isinstance(event, Progress) and event.phase == "scoring"]
    assert [(event.step, event.total) for event in scoring] == [(10, 11), (11, 11)]
    (why,) = [text for text in told if "time was up" in text]
    assert "before the first policy step" in why


def test_time_that_ends_it_before_the_last_stage_is_told() -> None:
    """Also where it ends just between two stages."""
    told: list[str] = []
    on = replace(problem(epochs=2, evaluations=4), time_is_up=lambda: True, warn=told.append)
    settings = TndNas(preferences=2, stages=2, batch=32, samples=2, warmup=0.0, rescored=2, ranked_by=PLAIN)
    events = list(drive(start(settings, on), Evaluator(on)))
    assert [event.step for event in events if isinstance(event, Progress) and event.phase == "search"] == [1]
    assert [text for text in told if "time was up in stage 1 of 2" in text]


def test_what_is_known_to_have_no_price_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    on = problem(space=NasBench201(cells=5, channels=2), evaluations=9)
    on = replace(on, axes=Axes({"error": Error(), "board": Edges()}))
    run = Run(TndNas(preferences=3, rescored=0, ranked_by=PLAIN), on)
    for place, preference in enumerate(run.policies.preferences):
        preference.policy.alpha["normal"].normal_(generator=torch.Generator().manual_seed(place))
    derived = [run.policies.derive(preference) for preference in run.policies.preferences]
    run.merit.record(derived[0].key(), 50.0)

    def proposed(prices: Mapping[str, Any]) -> tuple[Any, ...]:
        monkeypatch.setattr(run.policies.prices, "_known", dict(prices))
        (proposal,) = [event for event in drive(run.finish(), Evaluator(on)) if isinstance(event, Propose)]
        return proposal.genotypes

    assert proposed({derived[1].key(): "board is nan"}) == (derived[0], derived[2])
    assert proposed({genotype.key(): "board is nan" for genotype in derived}) == tuple(derived), "they tell why"


def test_few_candidates_are_spread_over_the_trade_off() -> None:
    on = problem(space=NasBench201(cells=5, channels=2), evaluations=3, seeds=1)
    run = Run(TndNas(preferences=5, rescored=0, ranked_by=PLAIN), on)
    for place, preference in enumerate(run.policies.preferences):
        preference.policy.alpha["normal"].normal_(generator=torch.Generator().manual_seed(place))
    (proposal,) = [event for event in drive(run.finish(), Evaluator(on)) if isinstance(event, Propose)]
    assert list(proposal.genotypes) == [
        *on.seeds,
        run.policies.derive(run.policies.preferences[0]),
        run.policies.derive(run.policies.preferences[4]),
    ]


@pytest.mark.slow
def test_a_value_says_how_many_epochs_its_supernet_had(tmp_path: Path) -> None:
    """Of the last stage, not of the budget; of a search gone on from as many, whatever the job that does has."""
    settings = TndNas(preferences=2, batch=32, samples=2, warmup=0.0, rescored=2, policy_steps=2, ranked_by=PLAIN)

    def epochs(on: Problem[Any]) -> tuple[set[Any], Mapping[str, Any]]:
        events = list(drive(start(settings, on), Evaluator(on)))
        (proposal,) = [event for event in events if isinstance(event, Propose)]
        return {known["error"].detail["epochs"] for known in proposal.known}, events[-1].state

    found, state = epochs(problem(epochs=6))
    assert found == {2}, "of three stages"
    checkpoint.save(state, tmp_path / "handed.pt")
    assert epochs(replace(problem(epochs=1), inherited=checkpoint.load(tmp_path / "handed.pt")))[0] == {2}


@pytest.mark.slow
def test_killed_in_any_stage_it_ends_as_the_unbroken_run_does() -> None:
    settings = TndNas(preferences=2, batch=32, samples=2, warmup=0.0, rescored=2, depths=(3, 4, 5), ranked_by=PLAIN)

    def goes_on(resume: Mapping[str, Any] | None, least: int = 99) -> tuple[list[Any], list[Mapping[str, Any]]]:
        """As far as the middle of a stage."""
        on = problem(epochs=6, evaluations=6, images=96)
        proposed, states = [], []
        for event in drive(start(settings, on, checkpoint.copied(resume)), Evaluator(on)):
            if isinstance(event, Propose):
                proposed.append(([g.key() for g in event.genotypes], [v["error"].value for v in event.known]))
            elif isinstance(event, Checkpoint):
                states.append(checkpoint.copied(event.state))
                if event.state.get("epochs_done") == 1 and event.state["stage"] >= least:
                    break
        return proposed, states

    whole, states = goes_on(None)
    inside = {state["stage"]: state for state in states if state.get("epochs_done") == 1}
    assert sorted(inside) == [0, 1, 2]
    for stage in (0, 1):
        assert same(goes_on(inside[stage], stage + 1)[1][-1], inside[stage + 1])
    assert goes_on(inside[2])[0] == whole


@pytest.mark.slow
def test_alpha_alone_is_redone_on_an_inherited_supernet(tmp_path: Path) -> None:
    settings = TndNas(preferences=2, batch=32, samples=3, warmup=0.0, rescored=4, policy_steps=5, ranked_by=PLAIN)
    states = [event.state for event in drive(start(settings, problem()), Evaluator(problem())) if is_checkpoint(event)]
    checkpoint.save(states[-1], tmp_path / "handed.pt")

    def anew(resume: Mapping[str, Any] | None = None) -> tuple[list[Any], list[Any]]:
        on = replace(
            problem(),
            axes=Axes({"error": Error(), "macs": Macs()}, {"macs": Bound(max=40_000.0)}),
            inherited=checkpoint.load(tmp_path / "handed.pt"),
        )
        search = start(replace(settings, preferences=3), on, checkpoint.copied(resume))
        events = [copy.deepcopy(event) for event in drive(search, Evaluator(on))]
        return [shown(event) for event in events if isinstance(event, Propose | Price)], events

    whole, events = anew()
    asked = next(event for event in events if isinstance(event, Price)).genotypes
    assert {genotype.key() for genotype in asked} == set(states[-1]["handed_on"]["seen"]), "at once, they show the way"
    assert not any("loss" in event.metrics for event in events if isinstance(event, Progress)), "no weight step"
    states_then = [event.state for event in events if is_checkpoint(event)]
    weights = [state["handed_on"]["supernet"] for state in states_then if state["finished"]]
    assert len(weights) == 1
    for name, tensor in states[-1]["handed_on"]["supernet"].items():
        assert torch.equal(tensor, weights[0][name])
    rest, _ = anew(next(event.state for event in events if is_checkpoint(event) and "turns" in event.state))
    assert rest and rest == whole[-len(rest) :]


@pytest.mark.slow
@pytest.mark.parametrize("carry", [False, True])
def test_time_that_ends_before_the_policies_of_a_stage_learn_costs_nothing_of_the_stage_before(carry: bool) -> None:
    """In a warm-up, on a fresh supernet, there are neither samples nor a policy to choose by."""
    calls = iter(range(100))
    warned: list[str] = []
    on = replace(problem(epochs=8, evaluations=9), time_is_up=lambda: next(calls) > 5, warn=warned.append)
    settings = TndNas(preferences=3, stages=2, batch=32, samples=3, warmup=0.7, rescored=5, ranked_by=PLAIN)
    events = list(drive(start(replace(settings, carry=carry), on), Evaluator(on)))
    told = [event for event in events if isinstance(event, Progress) and event.phase == "search"]
    assert told[-1].metrics["stage"] == 2 and "reward" not in told[-1].metrics, "it ended in the second warm-up"
    assert any("of stage 2 had learnt: the search ends with what stage 1 came to, without the" in one for one in warned)
    (proposal,) = [event for event in events if isinstance(event, Propose)]
    assert len(proposal.genotypes) >= 5, "samples of the first stage are there to choose from"


def is_checkpoint(event: Any) -> bool:
    return isinstance(event, Checkpoint)
