"""TND-NAS: what a faithful implementation must show, property by property (numbers of docs/methods/tnd-nas.md), and
what is ours around it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from nas_core import checkpoint
from nas_core.algorithms.tnd_nas import Run, TndNas, Told
from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError, ObjectiveError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated, Price, Progress, Propose
from nas_core.merit import Merit, Signal
from nas_core.objectives.error import Error
from nas_core.objectives.macs import Macs
from nas_core.objectives.params import Params
from nas_core.pareto import non_dominated
from nas_core.policy import Policy
from nas_core.preferences import between, draw, refined, union
from nas_core.reward import Reward, directions, exponents_of
from nas_core.search import Axes, Bound, Problem, drive, start
from nas_core.settings import parse
from nas_core.spaces.darts import DARTS_OPS, TYPES, DartsCells
from nas_core.spaces.nasbench201 import NasBench201, ops_of
from nas_core.stages import Stages
from nas_core.values import Value
from tests.contracts.problems import problem
from tests.contracts.test_algorithms import same, shown
from tests.nas_core.published import TND_NAS, TND_NAS_CIFAR100

pytestmark = pytest.mark.usefixtures("one_thread")

NORMAL = ("none", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5")
NORMAL += ("conv_1x1", "conv_3x3", "conv_3x1_1x3")
REDUCE = ("none", "skip_connect", "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "avg_pool_3x3")
PUBLISHED = DartsCells(cells=20, channels=36, normal_ops=NORMAL, reduce_ops=REDUCE, fan_in="any")
SIZES = PUBLISHED.cost_table(PUBLISHED.skeleton((3, 32, 32), 10), "params")
PLAIN: dict[Signal, float] = {"supernet": 1.0}
AXES = Axes({"error": Error(), "params": Params()})


def everything(space: Any) -> dict[str, np.ndarray]:
    return {name: np.ones((len(space.edges), len(space.ops(name))), dtype=bool) for name in TYPES if space.ops(name)}


def policy(space: Any = PUBLISHED, lr: float = 6e-3, seed: int = 0) -> Policy:
    left = everything(space)
    return Policy({name: mask.shape for name, mask in left.items()}, left, lr, 1e-3, seed)


def expected_size(of: Policy) -> float:
    """Millions of params, the mean under the policy; costs are additive."""
    strengths = of.strengths()
    return (SIZES.constant + sum(float((strengths[name] * SIZES.entries[name]).sum()) for name in TYPES)) / 1e6


def learn(of: Policy, accuracy: Callable[[float], float], exponent: float, steps: int) -> float:
    """Steps on plain functions of a drawn architecture; the mean size that the policy comes to."""
    rng = np.random.default_rng(0)
    reward = Reward(AXES, {"params": exponent}, {"params": 6.4})
    for _ in range(steps):
        samples = [of.draw(rng) for _ in range(10)]
        sizes = [
            (SIZES.constant + sum(SIZES.entries[n][np.arange(14), columns[n]].sum() for n in TYPES)) / 1e6
            for columns in samples
        ]
        of.step(samples, [reward(accuracy(size), {"params": size}) for size in sizes])
    return expected_size(of)


@pytest.mark.slow
def test_1_a_black_box_suffices() -> None:
    before = expected_size(policy())
    after = learn(policy(), lambda size: 60.0, -0.2, 1500)
    assert before > 6.0 and after < 0.35 * before, (before, after)


def saturating(size: float) -> float:
    """Accuracy of a network of so many millions of params."""
    return 80.0 * (1.0 - float(np.exp(-(size - SIZES.constant / 1e6 + 0.5) / 4.0)))


@cache
def traded(exponent: float) -> float:
    """The size that a policy comes to."""
    return learn(policy(lr=2e-2), saturating, exponent, 300)


@pytest.mark.slow
def test_2_the_exponent_controls_the_trade_off() -> None:
    sizes = [traded(exponent) for exponent in (0.0, -0.2, -0.45, -1.0)]
    assert all(a > 1.15 * b for a, b in itertools.pairwise(sizes)), sizes


def test_3_a_constant_reward_teaches_nothing() -> None:
    of = policy()
    samples = [of.draw(np.random.default_rng(0)) for _ in range(10)]
    of.step(samples, [60.0] * 10)
    assert all(not gradient.any() for gradient in of.gradient(samples, [60.0 - cast(float, of.baseline)] * 10).values())
    learn(of, lambda size: 60.0, 0.0, 300)
    assert max(float(alpha.abs().max()) for alpha in of.alpha.values()) < 0.014


def test_4_gradient_and_baseline() -> None:
    of = policy()
    rng = np.random.default_rng(3)
    samples, rewards = [of.draw(rng) for _ in range(10)], rng.uniform(20, 90, 10).tolist()
    before = {name: p.double() for name, p in of.probabilities().items()}
    alphas = {name: alpha.clone().requires_grad_() for name, alpha in of.alpha.items()}
    mean = float(np.mean(rewards))
    total = torch.zeros((), dtype=torch.float64)
    for columns, reward in zip(samples, rewards, strict=True):
        for name, alpha in alphas.items():
            logs = alpha.double().log_softmax(dim=1)[torch.arange(14), torch.from_numpy(columns[name])]
            total = total - (reward - mean) * logs.sum() / 10
    by_autograd = torch.autograd.grad(total, list(alphas.values()))
    of.step(samples, rewards)
    for (name, p), reference in zip(before.items(), by_autograd, strict=True):
        onehots = [torch.nn.functional.one_hot(torch.from_numpy(c[name]), p.shape[1]) for c in samples]
        by_hand = sum((r - mean) * (p - onehot) for r, onehot in zip(rewards, onehots, strict=True)) / 10
        again = policy().gradient(samples, [r - mean for r in rewards])[name]
        assert torch.allclose(again, cast(torch.Tensor, by_hand), atol=1e-6)
        assert torch.allclose(again.float(), reference.float(), atol=1e-4)
    norm = float(torch.cat([cast(torch.Tensor, alpha.grad).flatten() for alpha in of.alpha.values()]).norm())
    assert norm <= 5.0 + 1e-4, "clipped over both tables together"
    assert of.baseline == pytest.approx(mean)
    of.step(samples, [10.0] * 10)
    assert of.baseline == pytest.approx(0.05 * mean + 0.95 * 10.0)


@pytest.mark.slow
def test_samples_of_another_policy_teach_as_they_would_have_been_drawn() -> None:
    """The gradient by importance weights is that of the policy's own samples, in expectation; no weight, no effect."""
    of, other, rng = policy(NasBench201()), policy(NasBench201(), seed=1), np.random.default_rng(0)
    worth = {name: rng.uniform(0, 100, alpha.shape) for name, alpha in of.alpha.items()}
    with torch.no_grad():
        for alpha in other.alpha.values():
            alpha.add_(0.5 * torch.randn(alpha.shape, generator=torch.Generator().manual_seed(2)))

    def rewards(samples: list[dict[str, np.ndarray]]) -> np.ndarray:
        return np.array([sum(worth[n][np.arange(6), ops].sum() for n, ops in sample.items()) for sample in samples])

    own, theirs = ([of.draw(rng) for _ in range(8_000)], [other.draw(rng) for _ in range(8_000)])
    weights = np.exp([of.likelihood(ops) - other.likelihood(ops) for ops in theirs])
    assert weights.mean() == pytest.approx(1.0, abs=0.1)
    (wanted,) = of.gradient(own, (rewards(own) - 300).tolist()).values()
    (found,) = of.gradient(theirs, (weights * (rewards(theirs) - 300)).tolist()).values()
    (ignored,) = of.gradient(theirs, (rewards(theirs) - 300).tolist()).values()
    assert float((found - wanted).norm()) < 0.3 * float((ignored - wanted).norm())
    one, both = policy(NasBench201()), policy(NasBench201())
    one.step(own[:3], [1.0, 5.0, 3.0])
    both.step(own[:4], [1.0, 5.0, 3.0, 900.0], np.array([1.0, 1.0, 1.0, 0.0]))
    assert both.baseline == one.baseline
    assert all(torch.allclose(a, b) for a, b in zip(one.alpha.values(), both.alpha.values(), strict=True))


def steps_of(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.Generator().manual_seed(0)
    yield from run.weights.train.batches(16, order, None, run.problem.device)


def answered(asking: Any, on: Problem[Any]) -> None:
    """Drives a part of a search to its end."""
    for _ in drive(asking, Evaluator(on)):
        pass


def alphas_of(run: Run) -> list[torch.Tensor]:
    return [alpha.clone() for p in run.preferences for alpha in p.policy.alpha.values()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["relaxed", "paths"])
def test_5_each_step_leaves_the_other_parameters_as_they_are(weights: Any) -> None:
    on = problem()
    run = Run(TndNas(preferences=2, batch=16, samples=3, weights=weights), on)
    run.weights.learner.start(0)
    batches = steps_of(run)
    (images, labels), other = next(batches), next(batches)
    answered(run.policy_step(*other, []), on)
    alphas, weights_before = alphas_of(run), copy.deepcopy(run.weights.supernet.state_dict())
    run.weight_step(images, labels)
    assert equal(alphas, alphas_of(run))
    changed = [
        not torch.equal(weights_before[name], tensor) for name, tensor in run.weights.supernet.state_dict().items()
    ]
    assert any(changed)
    weights_before = copy.deepcopy(run.weights.supernet.state_dict())
    answered(run.policy_step(*other, []), on)
    assert all(torch.equal(weights_before[name], tensor) for name, tensor in run.weights.supernet.state_dict().items())
    assert not equal(alphas, alphas_of(run))


@pytest.mark.slow
@pytest.mark.parametrize("explore", [0.0, 1.0])
def test_paths_may_be_drawn_from_all_that_is_left(explore: float) -> None:
    """A policy that is sure of one op trains it alone, or all ops alike."""
    run = Run(TndNas(preferences=1, batch=16, weights="paths", path_explore=explore), problem())
    for alpha in run.preferences[0].policy.alpha.values():
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
    sure = [run._draw(run.preferences[0], 0.0).genotype.key() for _ in range(5)]
    assert len(set(sure)) == 1, "samples of the policy are still its own"


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_preferences_learn_from_the_samples_of_others(shared: bool) -> None:
    on = problem()
    run = Run(TndNas(preferences=3, batch=16, samples=4, share_samples=shared), on)
    batch = next(steps_of(run))
    answered(run.policy_step(*batch, []), on)
    moved = [preference.policy.baseline is not None for preference in run.preferences]
    assert moved == [True, shared, shared]
    assert run.preferences[1].reward != run.preferences[2].reward, "each by its own reward"
    if shared:
        for other in run.preferences[1:]:
            with torch.no_grad():  # it would draw none of what the first one draws
                other.policy.alpha["normal"][:, 0] += 50.0
        before = [run.preferences[1].policy.baseline, alphas_of(run)[2:]]
        run.turns = 0
        answered(run.policy_step(*batch, []), on)
        assert before[0] == run.preferences[1].policy.baseline and equal(before[1], alphas_of(run)[2:])


@pytest.mark.slow
def test_6_warm_up() -> None:
    on = problem(epochs=10)
    run = Run(TndNas(preferences=2, stages=2, batch=16, samples=3, warmup=0.6), on)
    before = alphas_of(run)
    assert (run.stages.length(0), run.stages.warm(0)) == (5, 3)
    for _ in range(3):
        answered(run.epoch(), on)
        assert equal(before, alphas_of(run)), "bit by bit"
    answered(run.epoch(), on)
    assert not equal(before, alphas_of(run))


@pytest.mark.slow
def test_7_shrinking_schedule() -> None:
    """Ops 10, 6, 3, 1 and 6, 4, 2, 1 at 5, 11 and 17 cells; what is dropped is least likely and stays away."""
    space = DartsCells(cells=5, channels=2, nodes=4, normal_ops=NORMAL, reduce_ops=REDUCE, fan_in="any")
    on = problem(space=space, epochs=3, evaluations=4)
    settings = TndNas(
        preferences=1, depths=(5, 11, 17), normal_left=(6, 3, 1), reduce_left=(4, 2, 1), warmup=0.0, batch=60, samples=2
    )
    run = Run(settings, on)
    sizes, depths, lefts = [], [], []
    while run.stage < 3:
        lefts.append({name: mask.copy() for name, mask in run.left.items()})
        sizes.append(tuple(set(run.left[name].sum(axis=1).tolist()) for name in TYPES))
        depths.append(len(run.weights.supernet.cells))
        run.weights.supernet(torch.zeros(2, 1, 6, 6), None, run.left)
        of = run.preferences[0].policy
        for alpha in of.alpha.values():
            alpha.normal_(generator=torch.Generator().manual_seed(run.stage))
        strengths = of.strengths()
        last = run.stage == 2
        run.previous = None  # as when its policies have learnt
        answered(run.close_stage(), on)
        if last:
            break
        for name in TYPES:
            for row, kept in enumerate(run.left[name]):
                before = lefts[-1][name][row]
                assert not (kept & ~before).any(), "what was dropped never returns"
                dropped = before & ~kept
                assert strengths[name][row][kept].min() >= strengths[name][row][dropped].max()
    assert sizes == [({10}, {6}), ({6}, {4}), ({3}, {2})] and depths == [5, 11, 17]
    derived = run.derive(run.preferences[0])
    space.check(derived)
    assert all(chosen.sum(axis=1).max() == 1 for chosen in space.selection(derived).values())


@pytest.mark.parametrize(("ops", "left"), [(8, [5, 3, 1]), (5, [3, 2, 1]), (9, [6, 3, 1]), (6, [4, 2, 1])])
def test_7_schedules_that_nobody_gave_fall_in_equal_steps(ops: int, left: list[int]) -> None:
    stages = Stages(3, 75, 0.6)
    assert [stages.left_after(stage, ops) for stage in range(3)] == left
    assert [stages.left_after(stage, 10, (6, 3, 1)) for stage in range(3)] == [6, 3, 1]


@pytest.mark.parametrize(("count", "ops", "left"), [(3, 3, [2, 2, 1]), (3, 2, [2, 2, 1]), (5, 5, [4, 3, 2, 2, 1])])
def test_7_the_last_stage_has_something_to_choose(count: int, ops: int, left: list[int]) -> None:
    assert [Stages(count, 75, 0.6).left_after(stage, ops) for stage in range(count)] == left


@pytest.mark.parametrize("fan_in", ["two", "any"])
def test_7_what_is_derived_is_left(fan_in: Any) -> None:
    """Alpha prefers ``none`` everywhere, which cells with two inputs a node never have."""
    ops = ("none", "skip_connect", "sep_conv_3x3")
    space = DartsCells(cells=3, channels=2, nodes=3, normal_ops=ops, reduce_ops=ops, fan_in=fan_in)
    run = Run(TndNas(preferences=1, stages=2, normal_left=(1, 1), reduce_left=(1, 1)), problem(space=space))
    for alpha in run.preferences[0].policy.alpha.values():
        alpha.copy_(torch.tensor([3.0, 1.0, 2.0]).expand_as(alpha))
    answered(run.close_stage(), run.problem)
    kept = {str(np.array(ops)[row][0]) for mask in run.left.values() for row in mask}
    assert kept == {"sep_conv_3x3" if fan_in == "two" else "none"}
    chosen = space.selection(run.derive(run.preferences[0]))
    if fan_in == "two":
        assert all(not (chosen[name] & ~run.left[name]).any() for name in TYPES)


def test_7_a_preference_that_moves_keeps_to_the_schedule() -> None:
    on = problem(space=NasBench201(cells=5, channels=2))
    run = Run(TndNas(preferences=4), on)
    for place, preference in enumerate(run.preferences):
        preference.policy.alpha["normal"].normal_(generator=torch.Generator().manual_seed(place))
        preference.policy.shrink({"normal": 3}, {"normal": np.ones(5, dtype=bool)})
        preference.left = {"normal": preference.policy.left["normal"].copy()}
    one, other = run.preferences[1], run.preferences[3]
    direction, left = between(one, other, {"normal": 3}, on.space)
    assert np.allclose(direction, (one.direction + other.direction) / np.linalg.norm(one.direction + other.direction))
    assert (left["normal"].sum(axis=1) == 3).all() and not (
        left["normal"] & ~union([one.left, other.left])["normal"]
    ).any()
    both = one.policy.strengths()["normal"] + other.policy.strengths()["normal"]
    for row, kept in enumerate(left["normal"]):
        assert both[row][kept].min() >= both[row][~kept].max()


def test_7_an_op_leaves_an_edge_when_no_preference_keeps_it() -> None:
    """Policies go on over what any keeps; weight steps of a preference train what it keeps itself."""
    on = problem(space=NasBench201(cells=5, channels=2), epochs=3)
    run = Run(TndNas(preferences=3, normal_left=(2, 2, 1), exponents={"params": (-0.3,)}), on)
    for place, preference in enumerate(run.preferences):
        alpha = preference.policy.alpha["normal"]
        alpha.copy_(torch.arange(5.0).roll(place).expand_as(alpha))
    answered(run.close_stage(), on)
    for preference, kept in zip(run.preferences, ([3, 4], [0, 4], [0, 1]), strict=True):
        assert [np.flatnonzero(row).tolist() for row in preference.left["normal"]] == [kept] * 6
        assert [np.flatnonzero(row).tolist() for row in preference.policy.left["normal"]] == [[0, 1, 3, 4]] * 6
        gates = preference.policy.probabilities(preference.left)["normal"]
        assert ((gates > 0).numpy() == preference.left["normal"]).all()
        assert gates.sum(dim=1).numpy() == pytest.approx(1.0)
    assert np.array_equal(run.left["normal"], run.preferences[0].policy.left["normal"])


@pytest.mark.parametrize(("redraws", "repeats"), [(0, True), (200, False)])
def test_what_was_drawn_before_is_drawn_anew(redraws: int, repeats: bool) -> None:
    """Of a policy that is nearly sure of itself: of every step and those before."""
    on = problem(space=NasBench201(cells=5, channels=2))
    run = Run(TndNas(preferences=1, batch=16, samples=5, redraws=redraws, ranked_by=PLAIN), on)
    images = next(run.weights.validation_batches(16, run.order))
    answered(run._calibrate(*images), on)
    run.preferences[0].policy.alpha["normal"][:, 1] += 3.0
    before = len(run.merit.seen)
    for _ in range(2):
        answered(run.policy_step(*images, []), on)
    assert (len(run.merit.seen) - before < 10) == repeats


def test_the_ends_of_the_trade_off_stay_where_they_are() -> None:
    run = Run(TndNas(preferences=5), problem(space=NasBench201(cells=5, channels=2)))
    assert list(run.prices.keys) == ["params"]
    at_one_end = np.array([[0.2, 1.0], [0.2, 1.0], [0.3, 0.6], [0.5, 0.3], [0.8, 0.1]])
    assert refined(run.preferences, at_one_end) == (1, 3, 4), "the first and its neighbour derive the same"
    at_the_other = np.array([[0.2, 1.0], [0.3, 0.6], [0.5, 0.3], [0.8, 0.1], [0.8, 0.1]])
    assert refined(run.preferences, at_the_other) == (3, 2, 4)
    assert refined(run.preferences[:2], at_one_end[:2]) is None
    each_of_use = np.array([[0.0, 1.0], [0.25, 0.5], [0.5, 0.25], [0.7, 0.1], [1.0, 0.0]])
    assert refined(run.preferences, each_of_use) is None


@pytest.mark.parametrize("exponents", [{}, {"params": (-0.3,)}])
def test_a_preference_moves_only_where_nobody_said_where_it_looks(
    exponents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(TndNas(preferences=4, exponents=exponents), problem(space=NasBench201(cells=5, channels=2)))
    monkeypatch.setattr("nas_core.algorithms.tnd_nas.refined", lambda preferences, costs: (1, 2, 3))
    answered(run._calibrate(*next(run.weights.validation_batches(16, run.order))), run.problem)
    before = [preference.direction.copy() for preference in run.preferences]
    answered(run.close_stage(), run.problem)
    moved = [not np.array_equal(old, p.direction) for old, p in zip(before, run.preferences, strict=True)]
    assert moved == [False, not exponents, False, False]


def test_8_samples_are_discrete_and_follow_alpha() -> None:
    of, rng = policy(lr=1e-2), np.random.default_rng(5)
    for alpha in of.alpha.values():
        alpha.normal_(generator=torch.Generator().manual_seed(1))
    drawn = [of.draw(rng) for _ in range(2000)]
    for name in TYPES:
        strengths = of.strengths()[name]
        columns = np.array([sample[name] for sample in drawn])
        for row in range(14):
            seen = np.bincount(columns[:, row], minlength=strengths.shape[1])
            expected, freedom = 2000 * strengths[row] / strengths[row].sum(), strengths.shape[1] - 1
            chi_square = float(((seen - expected) ** 2 / expected).sum())
            assert chi_square < freedom + 5 * np.sqrt(2 * freedom), (name, row)  # mean and s.d. of its distribution
    for _ in range(20):
        sample = draw(PUBLISHED, of, rng)
        PUBLISHED.check(sample.genotype)
        for name in TYPES:
            ops = PUBLISHED.ops(name)
            there = {(edge.target, edge.source): edge.op for edge in sample.genotype.types[name].edges}
            assert len(sample.columns[name]) == 14
            for edge, column in zip(PUBLISHED.edges, sample.columns[name], strict=True):
                assert there.get(edge, "none") == ops[column], "one op on each edge, the same in all cells of the type"


def test_9_reward() -> None:
    reward = Reward(AXES, {"params": -0.45}, {"params": 6.4})
    assert [round(reward(60.0, {"params": size}), 2) for size in (6.4, 12.8, 3.2)] == [60.0, 43.92, 81.96]


def test_9_several_costs_a_maximised_one_and_bounds() -> None:
    class Robustness:
        unit, direction, source = "", "maximize", "measured"

    axes = Axes({"error": Error(), "a": Params(), "b": cast(Any, Robustness())}, {"a": Bound(max=4.0, min=1.0)})
    exponents, references = {"a": -1.0, "b": -2.0}, {"a": 2.0, "b": 3.0}
    costs = {"a": 4.0, "b": 6.0}  # twice as dear, twice as robust
    assert Reward(axes, exponents, references)(50.0, costs) == pytest.approx(50.0 * (0.5 + 4.0) / 2)
    assert Reward(axes, exponents, references, "product")(50.0, costs) == pytest.approx(50.0 * 0.5 * 4.0)
    steep = Reward(axes, {}, {}, bound_exponent=-4.0)
    assert steep(50.0, {"a": 4.0, "b": 1.0}) == 50.0
    assert steep(50.0, {"a": 8.0, "b": 1.0}) == pytest.approx(50.0 / 16)
    assert steep(50.0, {"a": 0.5, "b": 1.0}) == pytest.approx(50.0 * 1.5**-4)


def test_10_skip_dropout() -> None:
    stages = Stages(3, 75, 0.6, (0.3, 0.6))
    assert [round(stages.skip_rate(1, epoch), 3) for epoch in (0, 14, 15, 20)] == [0.576, 0.24, 0.6, 0.221]
    assert stages.skip_rate(2, 15) == 0.6 and Stages(3, 75, 0.6).skip_rate(0, 0) == 0.0


def test_stages_share_the_epochs_and_have_one_with_policy_steps_at_least() -> None:
    stages = Stages(3, 8, 0.99)
    assert [stages.length(stage) for stage in range(3)] == [3, 3, 2]
    assert [stages.before(stage) for stage in range(3)] == [0, 3, 6]
    assert [stages.warm(stage) for stage in range(3)] == [2, 2, 1]


def test_10_it_drops_identities_alone_and_keeps_their_mean() -> None:
    space = DartsCells(cells=3, channels=4, nodes=1, normal_ops=("skip_connect",), reduce_ops=("skip_connect",))
    supernet = space.supernet(space.skeleton((3, 8, 8), 2))
    normal, reduction = cast(Any, supernet.cells[0]), cast(Any, supernet.cells[1])
    x = torch.ones(64, 4, 8, 8)
    supernet.drop_skips(0.5, torch.Generator().manual_seed(0))
    identity, factorized = normal.ops["edge0_0"], reduction.ops["edge0_0"]
    dropped = normal._feature(identity, x)
    assert set(dropped.unique().tolist()) == {0.0, 2.0} and abs(float(dropped.mean()) - 1.0) < 0.05
    wide = torch.ones(4, 8, 8, 8)
    reduction.skip_dropout = 0.5
    assert torch.equal(reduction._feature(factorized, wide), factorized(wide))
    supernet.drop_skips(0.0)
    assert torch.equal(normal._feature(identity, x), x)


def test_11_parameters_of_the_published_cell() -> None:
    for genotype, sizes in ((TND_NAS, {16: 1.099, 24: 2.434, 48: 9.578}), (TND_NAS_CIFAR100, {16: 1.415, 24: 3.125})):
        for channels, millions in sizes.items():
            skeleton = DartsCells().skeleton((3, 32, 32), 10, cells=20, channels=channels)
            assert round(count(Architecture(genotype, skeleton)).params / 1e6, 3) == millions


class Edges:
    """A black box: how many ops of a cell are no skips or pools; no graph, no table."""

    unit, direction, source = "", "minimize", "measured"

    def __init__(self, fails: Callable[[int], float | None] = lambda call: None) -> None:
        self.fails, self.calls = fails, 0

    def measure(self, architectures: Any, device: torch.device) -> list[Value]:
        found = []
        for architecture in architectures:
            self.calls += 1
            ops = ops_of(architecture.genotype)
            value = 1.0 + sum(op.startswith("conv") for op in ops)
            broken = self.fails(self.calls)
            found.append(Value(value if broken is None else broken, "", "measured"))
        return found


@dataclass
class Board:
    """Parameters, told by a board that may be out."""

    unit, direction, source = "", "minimize", "measured"
    out: bool = False

    def measure(self, architectures: Any, device: torch.device) -> list[Value]:
        return [Value(float("nan") if self.out else float(count(a).params), "", "measured") for a in architectures]


def front_of(key: str, objective: Any, **settings: Any) -> tuple[np.ndarray, list[Any]]:
    """(points, 2): errors and costs of what a search proposes in a small NAS-Bench-201, and all its events."""
    on = problem(space=NasBench201(cells=5, channels=4), epochs=6, evaluations=40)
    on = replace(on, axes=Axes({"error": Error(), key: objective}, on.axes.bounds))
    settings.setdefault("ranked_by", PLAIN)
    settings = {"ranked_by": PLAIN, "score": "expected_error", **settings}
    algorithm = TndNas(batch=16, samples=4, weights="paths", alpha_lr=0.05, warmup=0.0, **settings)
    events = list(drive(start(algorithm, on), Evaluator(on)))
    found = [event.evaluation for event in events if type(event).__name__ == "Evaluated"]
    return np.array([[e.values[0]["error"].value, e.values[0][key].value] for e in found if e.failure is None]), events


@pytest.mark.slow
def test_12_several_settings_give_several_points() -> None:
    sizes = [traded(exponent) for exponent in (-0.2, -0.45, -1.0)]
    points = np.array([[100.0 - saturating(size), size] for size in sizes])
    assert non_dominated(points).all() and (np.diff(np.sort(points[:, 1])) > 0.2).all()


@pytest.mark.slow
def test_12_any_metric_joins() -> None:
    """Without a change in the optimiser: the black box counts convolutions, and strong preferences leave few."""
    points, events = front_of("convolutions", Edges(), preferences=4, rescored=20)
    last = [event for event in events if isinstance(event, Progress) and event.phase == "search"][-1]
    assert len(points) > 4 and points[:, 1].min() == 1.0
    assert {"reward", "entropy", "front", "hypervolume"} <= set(last.metrics)


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


def test_a_metric_that_fails_for_some_is_survived_and_told_of() -> None:
    metric = Edges(lambda call: float("nan") if call % 5 == 0 else None)
    points, events = front_of("convolutions", metric, preferences=2, rescored=10)
    assert len(points)
    failed = [event.metrics["failed"] for event in events if isinstance(event, Progress) and "failed" in event.metrics]
    assert failed[-1] > 0


def test_a_metric_that_fails_for_all_ends_the_search_with_its_reason() -> None:
    with pytest.raises(ObjectiveError, match="none of 32 random networks could be priced.*convolutions is nan"):
        front_of("convolutions", Edges(lambda call: float("nan")), preferences=2)


def test_a_metric_that_is_out_in_a_later_stage_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    board = Edges()
    on = problem(space=NasBench201(cells=5, channels=2), epochs=6)
    on = replace(on, axes=Axes({"error": Error(), "board": board}), warn=told.append)
    run = Run(TndNas(preferences=3, batch=16, samples=2, warmup=0.0, ranked_by=PLAIN), on)
    images = next(run.weights.validation_batches(16, run.order))
    evaluator = Evaluator(on)
    answered(run._calibrate(*images), on)
    rewards = [preference.reward for preference in run.preferences]
    answered(run.close_stage(), on)
    board.fails = lambda call: float("nan")
    monkeypatch.setattr(run.prices, "_known", {})
    assert not run.calibrated
    list(drive(run.policy_step(*images, []), evaluator))
    assert run.calibrated and [preference.reward for preference in run.preferences] == rewards
    assert any("none of 32 random networks could be priced in stage 2" in text for text in told), told
    run.calibrated = False
    run.preferences[0].reward = None
    with pytest.raises(ObjectiveError, match="none of 32.*the first: board is nan"):
        list(drive(run.policy_step(*images, []), evaluator))


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
    assert [text for text in told if "time was up before the first policy step" in text]


def test_events_tell_what_samples_reached() -> None:
    """Not what they deserve among all that was seen, by which they are rewarded."""
    on = problem(space=NasBench201(cells=5, channels=2))
    run = Run(TndNas(preferences=1, batch=16, samples=6), on)
    images = next(run.weights.validation_batches(16, run.order))
    answered(run._calibrate(*images), on)
    before = sum(total for _, total in run.merit.seen.values())
    told: Told = []
    answered(run.policy_step(*images, told), on)
    assert sum(accuracy for accuracy, _ in told) == pytest.approx(
        sum(total for _, total in run.merit.seen.values()) - before
    )


def test_what_is_known_to_have_no_price_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    on = problem(space=NasBench201(cells=5, channels=2), evaluations=9)
    on = replace(on, axes=Axes({"error": Error(), "board": Edges()}))
    run = Run(TndNas(preferences=3, rescored=0, ranked_by=PLAIN), on)
    for place, preference in enumerate(run.preferences):
        preference.policy.alpha["normal"].normal_(generator=torch.Generator().manual_seed(place))
    derived = [run.derive(preference) for preference in run.preferences]
    run.merit.record(derived[0].key(), 50.0)

    def proposed(prices: Mapping[str, Any]) -> tuple[Any, ...]:
        monkeypatch.setattr(run.prices, "_known", dict(prices))
        (proposal,) = [event for event in drive(run.finish(), Evaluator(on)) if isinstance(event, Propose)]
        return proposal.genotypes

    assert proposed({derived[1].key(): "board is nan"}) == (derived[0], derived[2])
    assert proposed({genotype.key(): "board is nan" for genotype in derived}) == tuple(derived), "they tell why"


def test_few_candidates_are_spread_over_the_trade_off() -> None:
    on = problem(space=NasBench201(cells=5, channels=2), evaluations=3, seeds=1)
    run = Run(TndNas(preferences=5, rescored=0, ranked_by=PLAIN), on)
    for place, preference in enumerate(run.preferences):
        preference.policy.alpha["normal"].normal_(generator=torch.Generator().manual_seed(place))
    (proposal,) = [event for event in drive(run.finish(), Evaluator(on)) if isinstance(event, Propose)]
    assert list(proposal.genotypes) == [*on.seeds, run.derive(run.preferences[0]), run.derive(run.preferences[4])]


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
def test_a_genotype_is_priced_once() -> None:
    metric = Edges()
    _, events = front_of("convolutions", metric, preferences=2, rescored=5)
    asked = [genotype.key() for event in events if isinstance(event, Price) for genotype in event.genotypes]
    assert len(asked) == len(set(asked)) == metric.calls


def test_priced_genotypes_are_no_candidates() -> None:
    on = problem()
    genotypes = tuple(on.space.sample(np.random.default_rng(n)) for n in range(3))

    def search() -> Any:
        answer = yield Price(genotypes)
        assert [evaluation.genotype for evaluation in answer] == list(genotypes)
        assert all(set(evaluation.values[0]) == {"params"} for evaluation in answer)

    assert [type(event) for event in drive(search(), Evaluator(on))] == [Price]


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
    on = replace(problem(epochs=8, evaluations=9), time_is_up=lambda: next(calls) > 5)
    settings = TndNas(preferences=3, stages=2, batch=32, samples=3, warmup=0.7, rescored=5, ranked_by=PLAIN)
    events = list(drive(start(replace(settings, carry=carry), on), Evaluator(on)))
    told = [event for event in events if isinstance(event, Progress) and event.phase == "search"]
    assert told[-1].metrics["stage"] == 2 and "reward" not in told[-1].metrics, "it ended in the second warm-up"
    (proposal,) = [event for event in events if isinstance(event, Propose)]
    assert len(proposal.genotypes) >= 5, "samples of the first stage are there to choose from"


def test_rewards_stay_finite() -> None:
    """A metric that is nearly constant, but for one network, gets steep exponents."""
    costs = np.array([[1000.001], [1000.0], [1000.002], [1000.0]])
    (exponent,) = exponents_of(np.array([0.3, 0.95]), np.array([40.0, 50.0, 60.0, 45.0]), costs)
    assert exponent == -10.0
    for form in ("sum", "product"):
        reward = Reward(AXES, {"params": -20.0}, {"params": 1000.0}, cast(Any, form))
        assert 0 < reward(50.0, {"params": 1e9}) < reward(50.0, {"params": 1.0}) < 1e12


@pytest.mark.slow
def test_a_metric_that_is_not_positive_is_told_of_once() -> None:
    told: list[str] = []
    on = replace(problem(), axes=Axes({"error": Error(), "margin": Margin()}), warn=told.append)
    list(drive(start(TndNas(preferences=1, batch=32, samples=2, warmup=0.0, ranked_by=PLAIN), on), Evaluator(on)))
    assert len(told) == 1 and "'margin' is -3 for a network" in told[0] and "shift the metric" in told[0]


class Margin:
    unit, direction, source = "dB", "maximize", "measured"

    def measure(self, architectures: Any, device: torch.device) -> list[Value]:
        return [Value(-3.0, "dB", "measured") for _ in architectures]


def test_prices_are_those_of_the_first_width_alone() -> None:
    metric = Edges()
    on = problem(space=NasBench201(cells=5, channels=2), widths=3)
    on = replace(on, axes=Axes({"error": Error(), "convolutions": metric}))
    genotypes = tuple(on.space.sample(np.random.default_rng(n)) for n in range(4))
    assert [len(evaluation.values) for evaluation in Evaluator(on)(Price(genotypes))] == [1] * 4
    assert metric.calls == 4


def is_checkpoint(event: Any) -> bool:
    return isinstance(event, Checkpoint)


def test_what_may_be_redone_are_settings() -> None:
    assert set(TndNas.redone) <= {each.name for each in fields(cast(Any, TndNas))}


def test_directions_go_from_accuracy_to_costs() -> None:
    for costs in (1, 3):
        found = directions(8, costs)
        assert np.allclose(np.linalg.norm(found, axis=1), 1.0) and (np.diff(found[:, 0]) < 0).all()
        assert found[0, 0] == 1.0 and (found[1:, 1:] > 0).all()
    assert len(np.unique(np.round(found[1:, 1:] / found[1:, 1:].sum(axis=1, keepdims=True), 6), axis=0)) == 7


def test_exponents_measure_each_axis_by_its_spread() -> None:
    accuracies, costs = np.array([40.0, 50.0, 60.0]), np.array([[1.0], [10.0], [100.0]])
    direction = np.array([np.cos(0.6), np.sin(0.6)])
    narrow, wide = exponents_of(direction, accuracies, costs), exponents_of(direction, accuracies, costs**2)
    assert narrow[0] < 0 and wide[0] == pytest.approx(narrow[0] / 2)
    assert exponents_of(direction, accuracies, np.full((3, 1), 7.0))[0] == 0.0


def test_an_op_stays_while_one_preference_keeps_it() -> None:
    one, other = {"normal": np.array([[True, False, True]])}, {"normal": np.array([[False, False, True]])}
    assert union([one, other])["normal"].tolist() == [[True, False, True]]


def test_any_fan_in() -> None:
    rng = np.random.default_rng(0)
    child = PUBLISHED.sample(rng)
    for _ in range(200):
        PUBLISHED.check(child)
        child = PUBLISHED.mutate(PUBLISHED.crossover(child, PUBLISHED.sample(rng), rng), rng)
    skeleton = PUBLISHED.skeleton((3, 32, 32), 10)
    ends = [count(Architecture(PUBLISHED.extreme(skeleton, "params", high), skeleton)).params for high in (False, True)]
    seen = [count(Architecture(PUBLISHED.sample(rng), skeleton)).params for _ in range(50)]
    assert ends[0] <= min(seen) and max(seen) <= ends[1]
    strengths = {name: np.zeros((14, len(PUBLISHED.ops(name)))) for name in TYPES}
    for table in strengths.values():
        table[:, 0] = 1.0  # none everywhere
        table[4, 3] = 0.5
    node = PUBLISHED.derive(strengths).types["normal"].into(3)
    assert [(edge.source, edge.op) for edge in node] == [(2, NORMAL[3])], "a node without inputs keeps its strongest"
    with pytest.raises(InvalidGenotypeError, match="fan_in: any"):
        DartsCells(normal_ops=NORMAL, reduce_ops=REDUCE).check(PUBLISHED.extreme(skeleton, "params", True))


def test_skips_are_limited() -> None:
    on = problem(space=DartsCells(cells=3, channels=2, nodes=3))
    run = Run(TndNas(preferences=1, max_skips=1), on)
    alpha = run.preferences[0].policy.alpha["normal"]
    alpha[:, DARTS_OPS.index("skip_connect")] = torch.linspace(2.0, 3.0, len(alpha))
    skips = [edge for edge in run.derive(run.preferences[0]).types["normal"].edges if edge.op == "skip_connect"]
    assert len(skips) == 1


def test_skips_give_way_to_what_is_left_alone() -> None:
    run = Run(TndNas(preferences=1, max_skips=0), problem(space=DartsCells(cells=3, channels=2, nodes=3)))
    skip, conv = (DARTS_OPS.index(op) for op in ("skip_connect", "sep_conv_3x3"))
    policy = run.preferences[0].policy
    for row, mask in enumerate(policy.left["normal"]):
        mask[:] = False
        mask[[skip, conv] if row % 2 else [skip]] = True
    policy.alpha["normal"][:, skip] = 5.0
    chosen = run.problem.space.selection(run.derive(run.preferences[0]))["normal"]
    assert chosen.any() and not (chosen & ~policy.left["normal"]).any()
    assert not chosen[1::2, skip].any(), "there a convolution was left"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"depths": [5, 11]}, "depths: wants one number for each of 3 stages"),
        ({"normal_left": [5, 6, 1]}, "normal_left: never grows, and is 1"),
        ({"normal_left": [5, 3, 2]}, "normal_left: never grows, and is 1"),
        ({"depths": [5, 11, 17], "carry": True}, "carry: weights of one depth do not fit another"),
        ({"exponents": {"params": [-0.4, -0.2]}}, "exponents.params: wants one number, or one for each of 3 stages"),
        ({"exponents": {"params": [0.4]}}, "less than or equal to 0"),
        ({"draws": 2}, "draws, path_explore: of networks that weight steps draw, and 'weights: relaxed' draws none"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidSettingsError, match=why):
        parse(TndNas, given, "algorithm 'tnd-nas'")


def test_costs_that_the_job_does_not_have() -> None:
    with pytest.raises(
        InvalidSettingsError, match="exponents: 'latency_ms' is no cost of this job; its costs are params"
    ):
        list(start(TndNas(exponents={"latency_ms": (-0.4,)}), problem()))
    with pytest.raises(InvalidSettingsError, match="budget.epochs: 2 are too few for 3 stages"):
        list(start(TndNas(), problem(epochs=2)))
