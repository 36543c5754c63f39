"""TND-NAS: what a faithful implementation must show, property by property (numbers of docs/methods/tnd-nas.md)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
import torch

from nas_core.algorithms.tnd_nas import TndNas
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.pareto import non_dominated
from nas_core.policy import Policy
from nas_core.policy_search import Told
from nas_core.preferences import between, draw, union
from nas_core.presets.tnd_nas import PaperCifar10
from nas_core.progressive import Run
from nas_core.reward import Reward
from nas_core.search import Axes, Bound, start
from nas_core.settings import parse
from nas_core.spaces.darts import TYPES, DartsCells
from nas_core.spaces.nasbench201 import EDGES, NasBench201, ops_of
from nas_core.stages import Stages
from tests.contracts.problems import problem
from tests.nas_core.black_boxes import (
    AXES,
    NORMAL,
    PLAIN,
    PUBLISHED,
    REDUCE,
    BlackBox,
    alphas_of,
    answered,
    convolutions,
    equal,
    policy,
    steps_of,
)
from tests.nas_core.published import TND_NAS, TND_NAS_CIFAR100

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = PUBLISHED.cost_table(PUBLISHED.skeleton((3, 32, 32), 10), "params")


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


@pytest.mark.slow
def test_3_a_constant_reward_teaches_nothing() -> None:
    """The gradient is 0 from the first step on. Weight decay alone moves alpha, around 0, by steps of Adam's rate: the
    specification's simulation saw 0.014 at most, this one sees 0.018.
    """
    of = policy()
    samples = [of.draw(np.random.default_rng(0)) for _ in range(10)]
    farthest = 0.0
    for _ in range(1500):
        of.step(samples, [60.0] * 10)
        assert not any(gradient.any() for gradient in gradients(of).values())
        farthest = max(farthest, *(float(alpha.abs().max()) for alpha in of.alpha.values()))
    assert farthest < 0.02


def gradients(of: Policy) -> dict[str, torch.Tensor]:
    """Those that its last step applied, (edges, ops) by type."""
    return {name: cast(torch.Tensor, alpha.grad).double() for name, alpha in of.alpha.items()}


def flat(tables: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([table.flatten() for table in tables.values()])


def by_autograd(of: Policy, samples: Any, advantages: Any) -> dict[str, torch.Tensor]:
    """Of minus the mean over samples of advantage x log-likelihood, at the alpha that it has now."""
    alphas = {name: alpha.double().requires_grad_() for name, alpha in of.alpha.items()}
    total = torch.zeros((), dtype=torch.float64)
    for columns, advantage in zip(samples, advantages, strict=True):
        for name, alpha in alphas.items():
            logs = alpha.log_softmax(dim=1)[torch.arange(len(alpha)), torch.from_numpy(columns[name])]
            total = total - advantage * logs.sum() / len(samples)
    return dict(zip(alphas, torch.autograd.grad(total, list(alphas.values())), strict=True))


def test_4_gradient_and_baseline() -> None:
    """Of the steps that are applied; the second with a baseline that holds 5 % of what was there before."""
    of, rng, baselines = policy(lr=0.1), np.random.default_rng(3), list[float]()
    for middle in (60.0, 61.0, 58.0):
        samples, rewards = [of.draw(rng) for _ in range(10)], rng.uniform(middle - 1, middle + 1, 10)
        mean = float(rewards.mean())
        baselines.append(mean if not baselines else 0.05 * baselines[-1] + 0.95 * mean)
        before = {name: p.double() for name, p in of.probabilities().items()}
        reference = by_autograd(of, samples, rewards - baselines[-1])
        of.step(samples, rewards.tolist())
        assert of.baseline == pytest.approx(baselines[-1])
        for name, p in before.items():
            onehots = [torch.nn.functional.one_hot(torch.from_numpy(c[name]), p.shape[1]) for c in samples]
            weighed = [(r - baselines[-1]) * (p - one) for r, one in zip(rewards, onehots, strict=True)]
            by_hand = torch.stack(weighed).mean(dim=0)
            assert torch.allclose(gradients(of)[name], by_hand, atol=1e-6)
            assert torch.allclose(gradients(of)[name], reference[name], atol=1e-6)
        assert flat(gradients(of)).norm() < 5.0, "nothing was clipped"


def test_4_gradients_are_clipped_over_both_tables_together() -> None:
    of, rng = policy(), np.random.default_rng(3)
    samples, rewards = [of.draw(rng) for _ in range(10)], rng.uniform(20, 90, 10)
    reference = flat(by_autograd(of, samples, rewards - rewards.mean()))
    of.step(samples, rewards.tolist())
    applied = flat(gradients(of))
    assert float(reference.norm()) > 10.0 and float(applied.norm()) == pytest.approx(5.0, abs=1e-4)
    assert float(torch.cosine_similarity(applied, reference, dim=0)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["relaxed", "paths"])
def test_5_each_step_leaves_the_other_parameters_as_they_are(weights: Any) -> None:
    on = problem()
    run = Run(TndNas(preferences=2, batch=16, samples=3, weights=weights), on)
    run.weights.learner.start(0)
    batches = steps_of(run)
    (images, labels), other = next(batches), next(batches)
    answered(run.policies.step(*other, []), on)
    alphas, weights_before = alphas_of(run), copy.deepcopy(run.weights.supernet.state_dict())
    run.weight_step(images, labels)
    assert equal(alphas, alphas_of(run))
    changed = [
        not torch.equal(weights_before[name], tensor) for name, tensor in run.weights.supernet.state_dict().items()
    ]
    assert any(changed)
    weights_before = copy.deepcopy(run.weights.supernet.state_dict())
    answered(run.policies.step(*other, []), on)
    assert all(torch.equal(weights_before[name], tensor) for name, tensor in run.weights.supernet.state_dict().items())
    assert not equal(alphas, alphas_of(run))


@pytest.mark.slow
def test_6_warm_up() -> None:
    on = problem(epochs=10)
    run = Run(TndNas(preferences=2, stages=2, batch=16, samples=3, warmup=0.6), on)
    assert (run.stages.length(0), run.stages.warm(0)) == (5, 3)
    for stage in range(2):
        assert run.stage == stage
        before = alphas_of(run)
        for _ in range(3):
            answered(run.epoch(), on)
            assert equal(before, alphas_of(run)), "bit by bit"
        for _ in range(2):
            answered(run.epoch(), on)
        assert not equal(before, alphas_of(run))
        answered(run.close_stage(), on)


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
        lefts.append({name: mask.copy() for name, mask in run.policies.left.items()})
        sizes.append(tuple(set(run.policies.left[name].sum(axis=1).tolist()) for name in TYPES))
        depths.append(len(run.weights.supernet.cells))
        run.weights.supernet(torch.zeros(2, 1, 6, 6), None, run.policies.left)
        of = run.policies.preferences[0].policy
        for alpha in of.alpha.values():
            alpha.normal_(generator=torch.Generator().manual_seed(run.stage))
        strengths = of.strengths()
        last = run.stage == 2
        run.previous = None  # as when its policies have learnt
        answered(run.close_stage(), on)
        if last:
            break
        for name in TYPES:
            for row, kept in enumerate(run.policies.left[name]):
                before = lefts[-1][name][row]
                assert not (kept & ~before).any(), "what was dropped never returns"
                dropped = before & ~kept
                assert strengths[name][row][kept].min() >= strengths[name][row][dropped].max()
    assert sizes == [({10}, {6}), ({6}, {4}), ({3}, {2})] and depths == [5, 11, 17]
    derived = run.policies.derive(run.policies.preferences[0])
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
    for alpha in run.policies.preferences[0].policy.alpha.values():
        alpha.copy_(torch.tensor([3.0, 1.0, 2.0]).expand_as(alpha))
    answered(run.close_stage(), run.problem)
    kept = {str(np.array(ops)[row][0]) for mask in run.policies.left.values() for row in mask}
    assert kept == {"sep_conv_3x3" if fan_in == "two" else "none"}
    chosen = space.selection(run.policies.derive(run.policies.preferences[0]))
    if fan_in == "two":
        assert all(not (chosen[name] & ~run.policies.left[name]).any() for name in TYPES)


def test_7_a_preference_that_moves_keeps_to_the_schedule() -> None:
    on = problem(space=NasBench201(cells=5, channels=2))
    run = Run(TndNas(preferences=4), on)
    for place, preference in enumerate(run.policies.preferences):
        preference.policy.alpha["normal"].normal_(generator=torch.Generator().manual_seed(place))
        preference.policy.shrink({"normal": 3}, {"normal": np.ones(5, dtype=bool)})
        preference.left = {"normal": preference.policy.left["normal"].copy()}
    one, other = run.policies.preferences[1], run.policies.preferences[3]
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
    for place, preference in enumerate(run.policies.preferences):
        alpha = preference.policy.alpha["normal"]
        alpha.copy_(torch.arange(5.0).roll(place).expand_as(alpha))
    answered(run.close_stage(), on)
    for preference, kept in zip(run.policies.preferences, ([3, 4], [0, 4], [0, 1]), strict=True):
        assert [np.flatnonzero(row).tolist() for row in preference.left["normal"]] == [kept] * 6
        assert [np.flatnonzero(row).tolist() for row in preference.policy.left["normal"]] == [[0, 1, 3, 4]] * 6
        gates = preference.policy.probabilities(preference.left)["normal"]
        assert ((gates > 0).numpy() == preference.left["normal"]).all()
        assert gates.sum(dim=1).numpy() == pytest.approx(1.0)
    assert np.array_equal(run.policies.left["normal"], run.policies.preferences[0].policy.left["normal"])


def check_frequencies(drawn: list[Any], of: Policy) -> None:
    """A chi-square test on each edge."""
    for name in TYPES:
        strengths = of.strengths()[name]
        columns = np.array([sample[name] for sample in drawn])
        for row in range(14):
            seen = np.bincount(columns[:, row], minlength=strengths.shape[1])
            expected, freedom = len(drawn) * strengths[row] / strengths[row].sum(), strengths.shape[1] - 1
            chi_square = float(((seen - expected) ** 2 / expected).sum())
            assert chi_square < freedom + 5 * np.sqrt(2 * freedom), (name, row)  # mean and s.d. of its distribution


def test_8_samples_are_discrete_and_follow_alpha() -> None:
    of, rng = policy(lr=1e-2), np.random.default_rng(5)
    for alpha in of.alpha.values():
        alpha.normal_(generator=torch.Generator().manual_seed(1))
    check_frequencies([of.draw(rng) for _ in range(2000)], of)
    for _ in range(20):
        sample = draw(PUBLISHED, of, rng)
        PUBLISHED.check(sample.genotype)
        for name in TYPES:
            ops = PUBLISHED.ops(name)
            there = {(edge.target, edge.source): edge.op for edge in sample.genotype.types[name].edges}
            assert len(sample.columns[name]) == 14
            for edge, column in zip(PUBLISHED.edges, sample.columns[name], strict=True):
                assert there.get(edge, "none") == ops[column], "one op on each edge, the same in all cells of the type"


def paper_run(**settings: Any) -> Run:
    """Of the published search, but for its batch, width and data; ``settings`` differ."""
    space = DartsCells(cells=5, channels=2, nodes=4, normal_ops=NORMAL, reduce_ops=REDUCE, fan_in="any")
    published = {name: value for name, value in PaperCifar10.job["algorithm"].items() if name != "name"}
    algorithm = parse(TndNas, {**published, "batch": 16, **settings}, "algorithm 'tnd-nas'")
    return Run(algorithm, problem(space=space))


@pytest.mark.slow
def test_3_a_constant_reward_teaches_nothing_in_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    run = paper_run(exponents={"params": [0.0]})
    monkeypatch.setattr(run.weights, "error", lambda *asked: 0.4)
    for _ in range(2):
        answered(run.policies.step(*next(steps_of(run)), []), run.problem)
        assert not any(gradient.any() for gradient in gradients(run.policies.preferences[0].policy).values())


@pytest.mark.slow
def test_4_a_search_applies_that_gradient_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    run, rng = paper_run(), np.random.default_rng(0)
    monkeypatch.setattr(run.weights, "error", lambda *asked: float(rng.uniform(0.3, 0.5)))
    batch, (preference,), baselines = next(steps_of(run)), run.policies.preferences, list[float]()
    answered(run.policies.calibrate(*batch), run.problem)
    drawn: list[Any] = []
    samples = run.policies.samples
    monkeypatch.setattr(run.policies, "samples", lambda of: drawn.append(samples(of)) or drawn[-1])
    for _ in range(3):
        told: Told = []
        before = copy.deepcopy(preference.policy)
        answered(run.policies.step(*batch, told), run.problem)
        rewards = np.array([reward for _, reward in told], dtype=float)
        mean = float(rewards.mean())
        baselines.append(mean if not baselines else 0.05 * baselines[-1] + 0.95 * mean)
        reference = flat(by_autograd(before, [sample.columns for sample in drawn[-1]], rewards - baselines[-1]))
        wanted = reference * min(1.0, 5.0 / float(reference.norm()))
        assert torch.allclose(flat(gradients(preference.policy)), wanted, atol=1e-5)


@pytest.mark.slow
def test_8_samples_of_a_search_follow_alpha() -> None:
    run = paper_run()
    (preference,) = run.policies.preferences
    for alpha in preference.policy.alpha.values():
        alpha.normal_(generator=torch.Generator().manual_seed(1))
    drawn = [sample.columns for _ in range(200) for sample in run.policies.samples(preference)]
    check_frequencies(drawn, preference.policy)


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
    assert steep(50.0, {"a": 0.5, "b": 1.0}) == pytest.approx(50.0 / 16)
    assert 0.0 < steep(50.0, {"a": 0.0, "b": 1.0}) == steep(50.0, {"a": -9.0, "b": 1.0}) < 1e-6
    gain = Axes({"error": Error(), "b": cast(Any, Robustness())}, {"b": Bound(max=0.0, min=-2.0)})
    below = [Reward(gain, {}, {})(50.0, {"b": value}) for value in (-1.0, -2.0, -4.0, -8.0)]
    assert below == pytest.approx([50.0, 50.0, 50.0 / 2**4, 50.0 / 4**4])
    assert Reward(gain, {}, {})(50.0, {"b": 1.0}) == pytest.approx(50.0 / 16), "beyond a bound of 0, by the distance"


def test_10_skip_dropout() -> None:
    stages = Stages(3, 75, 0.6, (0.3, 0.6))
    assert [round(stages.skip_rate(1, epoch), 3) for epoch in (0, 14, 15, 20)] == [0.576, 0.24, 0.6, 0.221]
    assert stages.skip_rate(2, 15) == 0.6 and Stages(3, 75, 0.6).skip_rate(0, 0) == 0.0


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


def depth(genotype: Genotype) -> float:
    """Most convolutions on a way through the cell."""
    found = [0, 0, 0, 0]
    for (target, source), op in zip(EDGES, ops_of(genotype), strict=True):
        found[target] = max(found[target], found[source] + op.startswith("conv"))
    return 1.0 + found[3]


WORTH = {"none": 0.0, "skip_connect": 0.5, "avg_pool_3x3": 0.3, "conv_1x1": 2.0, "conv_3x3": 3.0}
"""What an op does for the accuracy, times the weight of its edge."""


def error_of(genotype: Genotype) -> float:
    weights = np.random.default_rng(0).uniform(0.2, 2.0, len(EDGES))
    worth = sum(weight * WORTH[op] for weight, op in zip(weights, ops_of(genotype), strict=True))
    return 0.1 + 0.6 * float(np.exp(-worth / 6.0))


@pytest.mark.slow
@pytest.mark.parametrize("metric", [convolutions, depth])
def test_12_several_settings_give_several_points_by_any_metric(metric: Callable[[Genotype], float]) -> None:
    """The same optimiser on two black boxes. An edge is worth more or less, so that most cells of a size are beaten."""
    points = []
    for exponent in (-0.02, -0.2, -0.5, -2.0):
        on = problem(space=NasBench201(cells=5, channels=2))
        on = replace(on, axes=Axes({"error": Error(), "metric": cast(Any, BlackBox(metric))}))
        published: dict[str, Any] = {"preferences": 1, "redraws": 0, "elites": 0, "ranked_by": PLAIN}
        run = Run(TndNas(batch=16, alpha_lr=0.05, exponents={"metric": (exponent,)}, **published), on)
        batch = next(steps_of(run))
        told: Told = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run.weights, "error", lambda genotype, images, labels: error_of(genotype))
            for _ in range(80):
                answered(run.policies.step(*batch, told), on)
        derived = run.policies.derive(run.policies.preferences[0])
        points.append((error_of(derived), metric(derived)))
        assert np.mean([reward for _, reward in told[-100:]]) > np.mean([reward for _, reward in told[:100]])
    assert all(a[1] > b[1] for a, b in itertools.pairwise(points)), points
    assert non_dominated(np.array(points)).all(), points


def test_what_may_be_redone_are_settings() -> None:
    assert set(TndNas.redone) <= {each.name for each in fields(cast(Any, TndNas))}


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


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"depths": [5, 11]}, "depths: wants one number for each of 3 stages"),
        ({"normal_left": [5, 6, 1]}, "normal_left: never grows, and is 1"),
        ({"normal_left": [5, 3, 2]}, "normal_left: never grows, and is 1"),
        ({"depths": [5, 11, 17], "carry": True}, "carry: weights of one depth do not fit another"),
        ({"exponents": {"params": [-0.4, -0.2]}}, "exponents.params: wants one number, or one for each of 3 stages"),
        ({"exponents": {"params": [0.4]}}, "less than or equal to 0"),
        (
            {"weights": "relaxed", "draws": 2},
            "draws, path_explore: of networks that weight steps draw, and 'weights: relaxed' draws none",
        ),
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
