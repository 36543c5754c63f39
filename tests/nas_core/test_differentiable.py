"""The engine: what it asks of a relaxation, costs in the loss, and searches that collapse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas_core.algorithms.darts import Darts, Weighed
from nas_core.algorithms.entrannas import EnTranNas
from nas_core.architecture import Architecture, Edge, Genotype
from nas_core.differentiable import Collapse, Engine, Relaxation, Steps
from nas_core.differentiable.engine import is_parameter_free, new_supernet, parameter_free_share
from nas_core.differentiable.resources import ExpectedCost, table_of
from nas_core.errors import InvalidSettingsError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated, Event, Progress, Propose
from nas_core.groups import ALONE, Group
from nas_core.objectives.error import Error
from nas_core.objectives.latency_ms import LatencyMs
from nas_core.objectives.macs import Macs
from nas_core.objectives.params import Params
from nas_core.parts import parts_on
from nas_core.profiles import DeviceProfile
from nas_core.search import Axes, Problem, drive
from nas_core.settings import form, parse
from nas_core.spaces.darts import TYPES, DartsCells
from nas_core.spaces.nasbench201 import NasBench201
from nas_core.supernet import Supernet
from nas_core.values import Value
from tests.contracts.problems import SPACE, problem

pytestmark = pytest.mark.usefixtures("one_thread")

BENCHMARK = NasBench201(cells=5, channels=2)
SPACES = [SPACE, replace(SPACE, fan_in="any"), replace(SPACE, fan_in="free"), BENCHMARK]


def events(algorithm: Any, on: Problem[Any]) -> list[Event]:
    return list(drive(algorithm.search(on), Evaluator(on)))


def metrics(found: list[Event]) -> list[dict[str, float]]:
    return [dict(event.metrics) for event in found if isinstance(event, Progress)]


def profile(space: Any) -> DeviceProfile:
    """Every part costs something else; calibrated."""
    rows = [
        {
            "op": part.op,
            "inputs": part.inputs,
            "outputs": part.outputs,
            "size": list(part.size),
            "stride": part.stride,
            "middle": part.middle,
            "pool_norm": part.pool_norm,
            "ms": 0.1 + 0.01 * place,
        }
        for place, part in enumerate(sorted(parts_on(space, space.skeleton((1, 6, 6), 2)), key=str))
    ]
    device = {"name": "board", "device": "cpu:board", "protocol": {"runtime": "none"}, "parts": rows}
    return DeviceProfile.from_json({**device, "latency": {"scale": 1.5, "offset": 0.25, "n": 3}})


@pytest.mark.parametrize("space", SPACES, ids=["two", "any", "free", "nasbench201"])
@pytest.mark.parametrize("cost", ["params", "macs", "latency_ms"])
def test_a_table_is_the_objective_of_every_network(space: Any, cost: str) -> None:
    skeleton = space.skeleton((1, 6, 6), 2)
    objective: Any = {"params": Params, "macs": Macs}.get(cost, lambda: LatencyMs(device="board").on(profile(space)))()
    table = table_of(space, skeleton, cost, objective, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for _ in range(10):
        genotype = space.sample(rng)
        value = objective.value(Architecture(genotype, skeleton)).value
        assert table.of(space.selection(genotype)) == pytest.approx(value, rel=1e-9)
    if cost in ("params", "macs"):
        exact = space.cost_table(skeleton, cost)
        assert all(np.array_equal(exact.entries[name], entries) for name, entries in table.entries.items())
        assert table.constant == exact.constant


def with_objectives(space: Any = SPACE, **objectives: Any) -> Problem[Any]:
    on = problem(space=space)
    return replace(on, axes=Axes({"error": Error(), **objectives}))


class Squared(Params):
    """An objective of a user's own, exact, and no sum."""

    def value(self, architecture: Architecture) -> Value:
        params = super().value(architecture)
        return replace(params, value=params.value**2)


def test_what_is_no_sum_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="'squared' is no sum over the ops of a network"):
        Darts(resource_weights=(1.0,)).engine(with_objectives(squared=Squared()))


@pytest.mark.parametrize(
    ("settings", "objectives", "message"),
    [
        ({}, {}, "resource: none of the objectives is a cost that adds up.* of these: none"),
        (
            {"resource": "error"},
            {"params": Params()},
            "resource: 'error' is not a cost that adds up.* of these: params",
        ),
    ],
)
def test_a_resource_has_to_be_an_objective(settings: Any, objectives: Any, message: str) -> None:
    with pytest.raises(InvalidSettingsError, match=message):
        Darts(resource_weights=(1.0,), **settings).engine(with_objectives(**objectives))


def test_a_resource_without_weights_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="resource: 'params' says nothing without resource_weights"):
        Darts(resource="params")


@pytest.mark.parametrize("space", SPACES, ids=["two", "any", "free", "nasbench201"])
def test_the_expected_cost_and_its_gradient(space: Any) -> None:
    on = problem(space=space)
    cost = ExpectedCost(on, "params")
    shapes = {name: entries.shape for name, entries in cost.table.entries.items()}
    assert float(cost({name: torch.full(shape, 1 / shape[1]) for name, shape in shapes.items()})) == pytest.approx(1.0)
    generator = torch.Generator().manual_seed(0)
    alpha = {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}

    def value() -> torch.Tensor:
        return cost({name: table.softmax(dim=1) for name, table in alpha.items()})

    (gradient,) = torch.autograd.grad(value(), [alpha["normal"]])
    for row, column in ((0, 1), (1, 3), (2, 2)):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                alpha["normal"][row, column] += sign * 1e-2
                sides.append(float(value()))
                alpha["normal"][row, column] -= sign * 1e-2
        assert gradient[row, column] == pytest.approx((sides[0] - sides[1]) / 2e-2, abs=2e-5)
    none = space.ops("normal").index("none")
    if space.holds_none:
        assert gradient[:, none].abs().sum() > 0
    else:
        assert gradient[:, none].abs().max() < 1e-7  # raising it changes nothing that is derived
    sure = {name: table.detach().clone() for name, table in alpha.items()}
    for table in sure.values():
        table[:, none + 1] = 80.0
    share = float(cost({name: table.softmax(dim=1) for name, table in sure.items()}))
    entries = sum(cost.entries[name][:, none + 1].sum() for name in sure)
    assert share == pytest.approx(float(entries), abs=1e-5)


@pytest.mark.slow
def test_weights_of_a_resource_give_a_front_from_one_supernet() -> None:
    """Alpha and weights go on from one weight to the next; each has its share of the epochs."""
    on = replace(problem(epochs=6), budget=replace(problem().budget, epochs=6, evaluations=12))
    found = events(Darts(batch=16, alpha_lr=0.3, resource_weights=(0.0, 30.0)), on)
    told = metrics(found)
    assert [each["resource_weight"] for each in told] == [0.0] * 3 + [30.0] * 3
    assert told[5]["expected_cost"] < 0.7 * told[2]["expected_cost"]
    sizes = [event.evaluation.values[0]["params"].value for event in found if isinstance(event, Evaluated)]
    assert sizes[5] < sizes[2]
    assert told[5]["loss"] < told[0]["loss"]


def test_a_weight_pulls_alpha_towards_cheap_ops_alone() -> None:
    on = problem()
    run = Darts(batch=16, resource_weights=(1e6,)).engine(on)
    batch = next(on.splits.validation.batches(16, None, None, on.device))
    before = {name: alpha.detach().clone() for name, alpha in run.relaxation.alpha.items()}
    run.alpha_step(batch, batch)
    assert isinstance(run.relaxation, Weighed)
    for name, entries in run.relaxation.cost.table.entries.items():
        moved = (run.relaxation.alpha[name] - before[name]).detach().numpy()
        mean = entries[:, 1:].mean(axis=1, keepdims=True)
        assert (moved[:, 1:][entries[:, 1:] > 1.05 * mean] < 0).all()
        assert (moved[:, 1:][entries[:, 1:] < 0.95 * mean] > 0).all()


@pytest.mark.slow
def test_each_weight_gets_its_share_of_the_networks() -> None:
    on = replace(problem(epochs=9), budget=replace(problem().budget, epochs=9, evaluations=3))
    told = metrics(events(Darts(batch=16, alpha_lr=3.0, resource_weights=(0.0, 1.0, 2.0)), on))
    assert {each["resource_weight"] for each in told} == {0.0, 1.0, 2.0}
    with pytest.raises(InvalidSettingsError, match="budget.epochs: 3 are too few for 4 networks"):
        Darts(resource_weights=(0.0, 1.0, 2.0, 3.0)).engine(problem())


# --- collapse ---------------------------------------------------------------------------------------------------------


def test_which_ops_have_nothing_to_learn() -> None:
    free = {op for op in DartsCells().ops("normal") if is_parameter_free(op)}
    assert free == {"none", "skip_connect", "max_pool_3x3", "avg_pool_3x3"}
    genotype = SPACE.sample(np.random.default_rng(0))
    edges = [
        Edge(2, 0, "skip_connect"),
        Edge(2, 1, "max_pool_3x3"),
        Edge(3, 0, "sep_conv_3x3"),
        Edge(3, 1, "skip_connect"),
    ]
    normal = replace(genotype.types["normal"], edges=tuple(edges))
    assert parameter_free_share(replace(genotype, types={**genotype.types, "normal": normal})) == 0.75


ONLY_SKIPS = replace(SPACE, normal_ops=("skip_connect", "avg_pool_3x3"))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [Darts, EnTranNas])
def test_a_search_that_collapses_is_told_of_and_ends(algorithm: Any) -> None:
    warned: list[str] = []
    on = replace(problem(epochs=4, space=ONLY_SKIPS), warn=warned.append)
    told = metrics(events(algorithm(batch=16), on))
    assert [each["parameter_free"] for each in told] == [1.0] * 4 and not warned
    guarded = algorithm(batch=16, collapse=Collapse(parameter_free=0.8, epochs=2))
    found = events(guarded, on)
    assert [each["parameter_free"] for each in metrics(found)] == [1.0] * 2
    assert warned == ["the search collapses (parameter_free is 1) and ends after epoch 2"]
    states = [event.state for event in found if isinstance(event, Checkpoint)]
    assert not [event for event in drive(guarded.search(on, states[-1]), Evaluator(on)) if isinstance(event, Progress)]


@pytest.mark.slow
def test_a_gap_between_validation_and_training_ends_it_too() -> None:
    told = metrics(events(Darts(batch=16), problem()))
    assert all(each["gap"] == pytest.approx(each["validation_loss"] - each["loss"]) for each in told)
    least = min(each["gap"] for each in told)
    assert len(metrics(events(Darts(batch=16, collapse=Collapse(gap=abs(least) + 9.0)), problem()))) == 3
    run = Darts(batch=16, collapse=Collapse(gap=0.5)).engine(problem())
    run.done = 1
    run._guard({"gap": 0.4, "parameter_free": 1.0})
    assert run.collapsed == 0
    run._guard({"gap": 0.6, "parameter_free": 0.0})
    assert run.collapsed == 1


@pytest.mark.slow
def test_while_weights_warm_up_alpha_stays() -> None:
    run = Darts(batch=16, alpha_lr=0.3, warmup_epochs=1).engine(problem())
    before = run.relaxation.alpha["normal"].detach().clone()
    assert "gap" not in run.epoch()
    assert torch.equal(run.relaxation.alpha["normal"], before)
    assert "gap" in run.epoch()
    assert not torch.equal(run.relaxation.alpha["normal"], before)
    with pytest.raises(InvalidSettingsError, match=r"warmup_epochs: 3 leave none of 3 epochs \(budget.epochs\)"):
        Darts(warmup_epochs=3).engine(problem())


@pytest.mark.parametrize("algorithm", [Darts, EnTranNas])
def test_inherited_settings_say_what_they_mean(algorithm: Any) -> None:
    fields = form(algorithm)["properties"]
    assert {"warmup_epochs", "collapse", "share_features"} < set(fields)
    assert all(field["description"] for field in fields.values())
    assert parse(algorithm, {"collapse": {"gap": 0.5}}, "it").collapse == Collapse(gap=0.5)
    with pytest.raises(InvalidSettingsError, match="collapse.parameter_free: Input should be less than or equal to 1"):
        parse(algorithm, {"collapse": {"parameter_free": 1.5}}, "it")


def test_nothing_collapses_before_alpha_learns() -> None:
    on = problem(epochs=4)
    told: list[str] = []
    on = replace(on, warn=told.append)
    engine = Darts(batch=16, warmup_epochs=2, collapse=Collapse(parameter_free=0.01)).engine(on)
    for done, ends in ((1, False), (2, False), (3, True)):
        engine.done = done
        engine._guard({"parameter_free": 1.0})
        assert bool(told) == ends


@pytest.mark.parametrize(
    ("weights", "settings", "budget", "why"),
    [
        ((0.0, 0.1, 0.3), {"warmup_epochs": 2}, {"epochs": 6}, "leave alpha none of the 2 epochs"),
        ((0.0, 0.1, 0.3), {}, {"epochs": 6, "evaluations": 2}, "leaves 2 networks, too few for 3"),
    ],
)
def test_every_weight_has_epochs_and_networks(
    weights: tuple[float, ...], settings: dict[str, Any], budget: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidSettingsError, match=why):
        Darts(batch=16, resource_weights=weights, **settings).engine(problem(**budget))


# --- the fused executor -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("settings", [Darts(batch=16), Darts(batch=16, order="second"), EnTranNas(batch=16)])
def test_the_fused_executor_teaches_the_same(settings: Darts | EnTranNas) -> None:
    """Adam's first steps are as long as alpha's rate whatever the gradient, so that alphas agree or are far apart."""
    on, found = problem(), []
    batches = [batch for batch, _ in zip(on.splits.train.batches(16, None, None, on.device), range(3), strict=False)]
    for fused in (False, True):
        engine = replace(settings, fused=fused).engine(on)
        engine.learner.start(0)
        assert all((cell.executor is not None) == fused for cell in engine.supernet.cells)
        for batch in batches:
            engine.alpha_step(batch, batch)
            engine.weight_step(*batch)
        assert all(weight.requires_grad for weight in engine.supernet.parameters())
        found.append([*engine.relaxation.alpha.values(), *engine.supernet.parameters()])
    assert max(float((one - other).detach().abs().max()) for one, other in zip(*found, strict=True)) < 1e-4


def test_the_fused_executor_is_for_one_process() -> None:
    with pytest.raises(InvalidSettingsError, match="fused: takes the batch statistics of one process"):
        Darts(fused=True).engine(replace(problem(), group=Group()))


def test_a_search_takes_the_fused_executor_on_a_cpu_where_it_is_alone() -> None:
    def fused(settings: Darts, group: Group = ALONE) -> set[bool]:
        engine = settings.engine(replace(problem(), group=group))
        return {cell.executor is not None for cell in engine.supernet.cells}

    assert fused(Darts()) == {True} and fused(Darts(fused=False)) == {False}
    assert fused(Darts(), Group()) == {False}


# --- other methods ----------------------------------------------------------------------------------------------------


class Pair(Relaxation):
    """Changes alpha after every epoch, and derives two networks, of which one is always the same."""

    def after_epoch(self) -> None:
        with torch.no_grad():
            self.alpha["normal"].copy_(torch.randn(self.alpha["normal"].shape) * 3)

    def derive(self) -> tuple[Genotype, ...]:
        return (*super().derive(), self.problem.space.sample(np.random.default_rng(0)))


@pytest.mark.slow
def test_a_relaxation_may_change_alpha_and_derive_several() -> None:
    on = problem(evaluations=4)
    supernet = new_supernet(on, False)
    relaxation = Pair(on, supernet)
    torch.manual_seed(0)
    proposed: list[tuple[list[str], bool]] = []
    for event in drive(Engine(Steps(batch=16), on, supernet, relaxation).search(), Evaluator(on)):
        if isinstance(event, Progress):
            assert relaxation.derive()[0].key() in proposed[-2 if len(proposed) > 1 else -1][0]
        if isinstance(event, Propose):
            proposed.append(([genotype.key() for genotype in event.genotypes], event.revise))
    same = relaxation.derive()[1].key()
    news = [key for keys, revise in proposed if not revise for key in keys]
    assert len(news) == len(set(news)) == 4 and same in news
    assert proposed[1:3] == [([news[2]], False), ([same], True)]
    assert proposed[-1] == (news, True)


def test_alpha_is_by_the_name_of_the_cell_type() -> None:
    """Levels: a type of its own for each resolution."""
    names = ("normal1", "reduce1", "normal2", "reduce2", "normal3")
    skeleton = replace(problem().skeleton, cells=names)
    layout = {name: (SPACE.cell(name[:6]), SPACE.edges, SPACE.ops(name[:6])) for name in names}
    supernet = Supernet(layout, skeleton)
    on = replace(problem(), skeleton=skeleton)
    relaxation = Relaxation(on, supernet)
    assert tuple(relaxation.alpha) == names
    engine = Engine(Steps(batch=16), on, supernet, relaxation)
    before = {name: alpha.detach().clone() for name, alpha in relaxation.alpha.items()}
    batch = next(on.splits.validation.batches(16, None, None, on.device))
    engine.alpha_step(batch, batch)
    assert not any(torch.equal(alpha, before[name]) for name, alpha in relaxation.alpha.items())


def test_gates_by_position_equal_gates_by_type() -> None:
    on = problem()
    supernet = new_supernet(on, False)
    gates = {name: torch.rand(shape) for name, shape in supernet.shapes.items()}
    active = SPACE.selection(SPACE.sample(np.random.default_rng(0)))
    x = torch.randn(4, 1, 6, 6)
    listed = [gates[name] for name in on.skeleton.cells], [active[name] for name in on.skeleton.cells]
    assert torch.equal(supernet(x, gates, active), supernet(x, *listed))
    some = supernet(x, [None, gates["reduce"], gates["reduce"]], [active["normal"], None, None])
    dense = {name: np.ones(shape, dtype=bool) for name, shape in supernet.shapes.items()}
    ones = {"normal": torch.ones(supernet.shapes["normal"]), "reduce": gates["reduce"]}
    assert torch.equal(some, supernet(x, ones, {**dense, "normal": active["normal"]}))
    assert F.cross_entropy(some, torch.zeros(4, dtype=torch.int64)).isfinite() and set(gates) == set(TYPES)
