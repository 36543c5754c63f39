"""How preferences learn side by side: samples, prices, rewards, and where each looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from nas_core.algorithms.tnd_nas import TndNas
from nas_core.architecture import Genotype
from nas_core.errors import InvalidSettingsError
from nas_core.evaluation import Evaluator
from nas_core.events import Price
from nas_core.objectives.error import Error
from nas_core.policy_search import Told
from nas_core.preferences import refined, union
from nas_core.prices import Prices
from nas_core.progressive import Run
from nas_core.reward import Reward, directions, exponents_of
from nas_core.search import Axes, Bound, drive, start
from nas_core.spaces.darts import DARTS_OPS, DartsCells
from nas_core.spaces.nasbench201 import NasBench201, from_arch
from nas_core.tables import Column, Table, Tabulated
from tests.contracts.problems import problem
from tests.nas_core.black_boxes import (
    AXES,
    PLAIN,
    Edges,
    Margin,
    alphas_of,
    answered,
    equal,
    front_of,
    policy,
    steps_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_preferences_learn_from_the_samples_of_others(shared: bool) -> None:
    on = problem()
    run = Run(TndNas(preferences=3, batch=16, samples=4, share_samples=shared, elites=0), on)
    batch = next(steps_of(run))
    answered(run.policies.step(*batch, []), on)
    moved = [preference.policy.baseline is not None for preference in run.policies.preferences]
    assert moved == [True, shared, shared]
    assert run.policies.preferences[1].reward != run.policies.preferences[2].reward, "each by its own reward"
    if shared:
        for other in run.policies.preferences[1:]:
            with torch.no_grad():  # it would draw none of what the first one draws
                other.policy.alpha["normal"][:, 0] += 50.0
        before = [run.policies.preferences[1].policy.baseline, alphas_of(run)[2:]]
        run.policies.turns = 0
        answered(run.policies.step(*batch, []), on)
        assert before[0] == run.policies.preferences[1].policy.baseline and equal(before[1], alphas_of(run)[2:])


@pytest.mark.parametrize(("redraws", "repeats"), [(0, True), (200, False)])
def test_what_was_drawn_before_is_drawn_anew(redraws: int, repeats: bool) -> None:
    """Of a policy that is nearly sure of itself: of every step and those before."""
    on = problem(space=NasBench201(cells=5, channels=2))
    run = Run(TndNas(preferences=1, batch=16, samples=5, redraws=redraws, ranked_by=PLAIN), on)
    images = next(run.weights.validation_batches(16, run.order))
    answered(run.policies.calibrate(*images), on)
    run.policies.preferences[0].policy.alpha["normal"][:, 1] += 3.0
    before = len(run.merit.seen)
    for _ in range(2):
        answered(run.policies.step(*images, []), on)
    assert (len(run.merit.seen) - before < 10) == repeats


def test_imitation_raises_the_likelihood_of_what_is_imitated() -> None:
    """The gradient is that of the mean log-likelihood, by autograd; where nothing is to be learnt edges stay."""
    of = policy(NasBench201())
    for row in range(6):
        of.left["normal"][row] = [True, True, True, row != 1, True]
    wanted = np.zeros((6, 5))
    wanted[0, [1, 3]] = 0.75, 0.25
    wanted[1, [3, 4]] = 0.5, 0.5  # the first of them has left
    alpha = of.alpha["normal"].clone().double().requires_grad_()
    logs = alpha.masked_fill(~torch.from_numpy(of.left["normal"]), -torch.inf).log_softmax(dim=1)
    kept = torch.from_numpy(wanted * of.left["normal"])
    (by_autograd,) = torch.autograd.grad(-(kept * logs).nan_to_num(0.0).sum(), [alpha])
    before = of.strengths()["normal"]
    of.imitate({"normal": wanted})
    assert of.alpha["normal"].grad is not None
    assert torch.allclose(of.alpha["normal"].grad.double(), by_autograd, atol=1e-6)
    after = of.strengths()["normal"]
    assert (after[0, [1, 3]] > before[0, [1, 3]]).all() and after[1, 4] > before[1, 4] and after[1, 3] == 0.0


def test_preferences_imitate_the_foremost_that_they_think_most_of() -> None:
    """Cells of one op each: the first preference takes to the accurate one, the last to a cheap one, and none to what
    others dominate.
    """
    on = problem(space=NasBench201(cells=5, channels=2))
    run = Run(TndNas(preferences=2, elites=1, alpha_lr=0.1, ranked_by=PLAIN), on)
    answered(run.policies.calibrate(*next(run.weights.validation_batches(16, run.order))), on)
    accuracy = {"none": 5.0, "skip_connect": 20.0, "nor_conv_1x1": 30.0, "nor_conv_3x3": 90.0, "avg_pool_3x3": 1.0}
    cells = {op: of_one_op(op) for op in accuracy}
    run.merit.seen = {cell.key(): [1.0, accuracy[op]] for op, cell in cells.items()}
    answered(run.policies.prices.ask(cells.values()), on)
    run.policies.learn()
    before = [preference.policy.strengths()["normal"] for preference in run.policies.preferences]
    for _ in range(20):
        run.policies._imitate_the_best([])
    ops = [{"conv_1x1": "nor_conv_1x1", "conv_3x3": "nor_conv_3x3"}.get(op, op) for op in on.space.ops("normal")]
    gained = [p.policy.strengths()["normal"] - old for p, old in zip(run.policies.preferences, before, strict=True)]
    assert (gained[0][:, ops.index("nor_conv_3x3")] > 0.1).all() and (
        gained[1][:, ops.index("skip_connect")] > 0.05
    ).all()
    assert all((gain[:, ops.index("avg_pool_3x3")] < 0).all() for gain in gained)


def of_one_op(op: str) -> Any:
    return from_arch(f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|")


def test_the_ends_of_the_trade_off_stay_where_they_are() -> None:
    run = Run(TndNas(preferences=5), problem(space=NasBench201(cells=5, channels=2)))
    assert list(run.policies.prices.keys) == ["params"]
    at_one_end = np.array([[0.2, 1.0], [0.2, 1.0], [0.3, 0.6], [0.5, 0.3], [0.8, 0.1]])
    assert refined(run.policies.preferences, at_one_end) == (1, 3, 4), "the first and its neighbour derive the same"
    at_the_other = np.array([[0.2, 1.0], [0.3, 0.6], [0.5, 0.3], [0.8, 0.1], [0.8, 0.1]])
    assert refined(run.policies.preferences, at_the_other) == (3, 2, 4)
    assert refined(run.policies.preferences[:2], at_one_end[:2]) is None
    each_of_use = np.array([[0.0, 1.0], [0.25, 0.5], [0.5, 0.25], [0.7, 0.1], [1.0, 0.0]])
    assert refined(run.policies.preferences, each_of_use) is None


@pytest.mark.slow
@pytest.mark.parametrize("exponents", [{}, {"params": (-0.3,)}])
def test_a_preference_moves_only_where_nobody_said_where_it_looks(
    exponents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(TndNas(preferences=4, exponents=exponents), problem(space=NasBench201(cells=5, channels=2)))
    monkeypatch.setattr("nas_core.policy_search.refined", lambda preferences, costs: (1, 2, 3))
    answered(run.policies.calibrate(*next(run.weights.validation_batches(16, run.order))), run.problem)
    before = [preference.direction.copy() for preference in run.policies.preferences]
    answered(run.close_stage(), run.problem)
    moved = [not np.array_equal(old, p.direction) for old, p in zip(before, run.policies.preferences, strict=True)]
    assert moved == [False, not exponents, False, False]


@pytest.mark.slow
def test_events_tell_what_samples_reached() -> None:
    """Not what they deserve among all that was seen, by which they are rewarded."""
    on = problem(space=NasBench201(cells=5, channels=2))
    run = Run(TndNas(preferences=1, batch=16, samples=6), on)
    images = next(run.weights.validation_batches(16, run.order))
    answered(run.policies.calibrate(*images), on)
    before = sum(total for _, total in run.merit.seen.values())
    told: Told = []
    answered(run.policies.step(*images, told), on)
    assert sum(accuracy for accuracy, _ in told) == pytest.approx(
        sum(total for _, total in run.merit.seen.values()) - before
    )


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


def test_what_was_told_of_a_price_is_not_told_again_after_a_kill() -> None:
    told: list[str] = []
    on = replace(problem(), axes=Axes({"error": Error(), "margin": Margin()}), warn=told.append)
    first, second = (on.space.sample(np.random.default_rng(n)) for n in range(2))

    def asked(prices: Prices, genotype: Genotype) -> Prices:
        list(drive(prices.ask([genotype]), Evaluator(on)))
        return prices

    before = asked(Prices(on), first)
    resumed = Prices(on)
    resumed.resume(before.state())
    asked(resumed, second)
    assert second.key() in resumed and len(told) == 1


def test_prices_are_those_of_the_first_width_alone() -> None:
    metric = Edges()
    on = problem(space=NasBench201(cells=5, channels=2), widths=3)
    on = replace(on, axes=Axes({"error": Error(), "convolutions": metric}))
    genotypes = tuple(on.space.sample(np.random.default_rng(n)) for n in range(4))
    assert [len(evaluation.values) for evaluation in Evaluator(on)(Price(genotypes))] == [1] * 4
    assert metric.calls == 4


def test_directions_go_from_accuracy_to_costs() -> None:
    for costs in (1, 3):
        found = directions(8, costs)
        assert np.allclose(np.linalg.norm(found, axis=1), 1.0) and (np.diff(found[:, 0]) < 0).all()
        assert found[0, 0] == 1.0 and (found[1:, 1:] > 0).all()
    assert len(np.unique(np.round(found[1:, 1:] / found[1:, 1:].sum(axis=1, keepdims=True), 6), axis=0)) == 7


@pytest.mark.parametrize(("costs", "widest"), [(2, 0.04), (3, 0.18), (4, 0.27)])
def test_directions_leave_no_mix_of_costs_out(costs: int, widest: float) -> None:
    """How far a mix is from the next of 63; of random ones it is 0.06, 0.23 and 0.31."""
    found = directions(64, costs)[1:, 1:]
    shares = found / found.sum(axis=1, keepdims=True)
    anywhere = np.random.default_rng(0).dirichlet(np.ones(costs), 2_000)
    assert np.linalg.norm(anywhere[:, None] - shares, axis=2).min(axis=1).max() < widest


def test_several_costs_weigh_alike_in_a_mean_and_in_a_product() -> None:
    """By the slopes of rewards where all costs are at their references."""
    accuracies, costs = np.array([40.0, 50.0, 60.0]), np.array([[1.0, 5.0], [10.0, 6.0], [100.0, 4.0]])
    direction = np.array([0.6, 0.48, 0.64])
    axes = Axes({"error": Error(), "params": AXES.objectives["params"], "macs": AXES.objectives["params"]})

    def slopes(form: Any) -> list[float]:
        exponents = exponents_of(direction, accuracies, costs, form)
        reward = Reward(axes, dict(zip(("params", "macs"), exponents, strict=True)), {"params": 7.0, "macs": 7.0}, form)
        at = {"params": 7.0, "macs": 7.0}
        return [np.log(reward(50.0, at | {key: 7.0007}) / 50.0) for key in at]

    assert slopes("sum") == pytest.approx(slopes("product"), rel=1e-3)


@pytest.mark.slow
def test_an_error_from_a_table_is_no_cost() -> None:
    on = problem()
    error = Tabulated(
        Table("made", "f" * 64, on.skeleton, {"acc": Column("%", "maximize", 40, 90)}, b"", b""), "acc", "error"
    )
    table = replace(on, axes=Axes({"error": error, "params": AXES.objectives["params"]}))
    assert Run(TndNas(), table).policies.prices.keys == ["params"]
    alone = Run(TndNas(), replace(on, axes=Axes({"error": error}))).policies
    assert alone.prices.keys == [] and len(alone.preferences) == 1
    with pytest.raises(InvalidSettingsError, match="'error' is no cost of this job; its costs are params"):
        Run(TndNas(exponents={"error": (-0.1,)}), table)


def test_events_count_no_network_that_breaks_a_bound_on_a_cost() -> None:
    def metrics(most: float) -> Mapping[str, float]:
        on = problem(bounds={"params": Bound(max=most)}, space=NasBench201(cells=5, channels=2))
        policies = Run(TndNas(preferences=2, ranked_by=PLAIN), on).policies
        policies.most = {"params": 1e6}
        found: list[Mapping[str, float]] = []

        def asked() -> Any:
            found.append((yield from policies.metrics([(50.0, 1.0)])))

        list(drive(asked(), Evaluator(on)))
        return found[0]

    assert metrics(1e6)["front"] >= 1 and metrics(1e6)["hypervolume"] > 0
    assert (metrics(1.0)["front"], metrics(1.0)["hypervolume"]) == (0.0, 0.0)


def test_exponents_measure_each_axis_by_its_spread() -> None:
    accuracies, costs = np.array([40.0, 50.0, 60.0]), np.array([[1.0], [10.0], [100.0]])
    direction = np.array([np.cos(0.6), np.sin(0.6)])
    narrow, wide = exponents_of(direction, accuracies, costs), exponents_of(direction, accuracies, costs**2)
    assert narrow[0] < 0 and wide[0] == pytest.approx(narrow[0] / 2)
    assert exponents_of(direction, accuracies, np.full((3, 1), 7.0))[0] == 0.0


def test_an_op_stays_while_one_preference_keeps_it() -> None:
    one, other = {"normal": np.array([[True, False, True]])}, {"normal": np.array([[False, False, True]])}
    assert union([one, other])["normal"].tolist() == [[True, False, True]]


def test_skips_are_limited() -> None:
    on = problem(space=DartsCells(cells=3, channels=2, nodes=3))
    run = Run(TndNas(preferences=1, max_skips=1), on)
    alpha = run.policies.preferences[0].policy.alpha["normal"]
    alpha[:, DARTS_OPS.index("skip_connect")] = torch.linspace(2.0, 3.0, len(alpha))
    skips = [
        edge
        for edge in run.policies.derive(run.policies.preferences[0]).types["normal"].edges
        if edge.op == "skip_connect"
    ]
    assert len(skips) == 1


def test_skips_give_way_to_what_is_left_alone() -> None:
    run = Run(TndNas(preferences=1, max_skips=0), problem(space=DartsCells(cells=3, channels=2, nodes=3)))
    skip, conv = (DARTS_OPS.index(op) for op in ("skip_connect", "sep_conv_3x3"))
    policy = run.policies.preferences[0].policy
    for row, mask in enumerate(policy.left["normal"]):
        mask[:] = False
        mask[[skip, conv] if row % 2 else [skip]] = True
    policy.alpha["normal"][:, skip] = 5.0
    chosen = run.problem.space.selection(run.policies.derive(run.policies.preferences[0]))["normal"]
    assert chosen.any() and not (chosen & ~policy.left["normal"]).any()
    assert not chosen[1::2, skip].any(), "there a convolution was left"
