"""RC-DARTS-style search: what a faithful implementation must show, by number (docs of the method)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from nas_core import checkpoint
from nas_core.additive import AdditiveTable, Logits, additive_table
from nas_core.algorithms.darts import Darts
from nas_core.algorithms.rc_darts import Bounded, Limits, RcDarts
from nas_core.architecture import Architecture, Genotype
from nas_core.constraints import Constraints, Form, Rule, expected
from nas_core.constraints.projection import distance, violation
from nas_core.constraints.repair import Repair, extreme
from nas_core.costs import PRE, count
from nas_core.counting import built_cost
from nas_core.data import Augmentation, tensor_splits
from nas_core.errors import BoundsError, InvalidSettingsError, MissingPartError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Progress, Propose
from nas_core.exports import Model, export
from nas_core.objectives.error import Error
from nas_core.objectives.flops import Flops
from nas_core.objectives.macs import Macs
from nas_core.objectives.params import Params
from nas_core.pareto import non_dominated
from nas_core.parts import Widths, parts_on
from nas_core.predicted import ByOperations, FromProfile
from nas_core.profiles import Calibration, DeviceProfile, Protocol
from nas_core.profiling import row_of
from nas_core.recipe import Recipe
from nas_core.search import Axes, Bound, Problem, drive, start
from nas_core.spaces.darts import DartsCells
from nas_core.spaces.nasbench201 import NasBench201
from nas_core.training import Training
from nas_core.values import Value
from tests.contracts.problems import problem
from tests.contracts.test_algorithms import same

pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = [("params",), ("macs",), ("params", "macs")]
BOTH = KEYS[-1]
SEEDS = 8
"""Of random logits; each scale of them twice."""
FORMS: tuple[Form, ...] = ("full", "gated", "straight_through")
SPACES: Mapping[str, Any] = {
    "darts": DartsCells(),
    "levels": DartsCells(levels=3, connection=True),
    "any": DartsCells(fan_in="any"),
    "nasbench201": NasBench201(),
}
EVERY = [name if name == "nasbench201" else pytest.param(name, marks=pytest.mark.slow) for name in SPACES]
"""Those that take their time are left out of the fast tests."""
HELD = [("darts", keys) for keys in KEYS] + [(space, BOTH) for space in SPACES if space != "darts"]
HELD = [pytest.param(*each, marks=[] if each[0] == "nasbench201" else pytest.mark.slow) for each in HELD]
"""Every space, and every set of costs on one of them."""
COUNTED: Mapping[str, Any] = {"params": Params(), "macs": Macs(), "flops": Flops()}


@lru_cache
def constraints(space: str, keys: tuple[str, ...], form: Form = "straight_through") -> Constraints:
    """At the size of published networks, 17 or 20 cells."""
    made = SPACES[space]
    cells, channels = (17, 16) if space == "nasbench201" else (20, 36)
    return bounded(made, made.skeleton((3, 32, 32), 10, cells=cells, channels=channels), keys, form)


def bounded(space: Any, skeleton: Any, keys: tuple[str, ...], form: Form = "straight_through") -> Constraints:
    tables = {key: table_of(space, skeleton, key, COUNTED[key]) for key in keys}
    return Constraints(space, tables, form)


def table_of(space: Any, skeleton: Any, key: str, objective: Any) -> AdditiveTable:
    def value(architecture: Architecture) -> float:
        return float(objective.value(architecture).value)

    return additive_table(space, skeleton, key, objective, value, np.random.default_rng(0))


def logits_of(on: Constraints, seed: int, scale: float = 1.0) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    table = next(iter(on.tables.values()))
    return {name: scale * rng.normal(size=entries.shape) for name, entries in table.entries.items()}


def half(on: Constraints, logits: Logits, band: float | None = None) -> dict[str, Bound]:
    """Floor and half of what the unconstrained network has above it."""
    found = {}
    for key, cost in on.costs(on.rule.genotype(logits)).items():
        floor = on.ranges[key][0]
        most = floor + 0.5 * (cost - floor)
        found[key] = Bound(None if band is None else (1 - band) * most, most)
    return found


def profile_of(space: Any, skeleton: Any, widths: Widths = "rule") -> DeviceProfile:
    """Times that do not follow from sizes, a scale and an offset."""
    rng, parts = np.random.default_rng(7), sorted(parts_on(space, skeleton, widths), key=str)
    rows = tuple(row_of(part, float(rng.uniform(0.01, 1.0))) for part in parts)
    return DeviceProfile(
        name="made-up",
        device="cpu:none",
        protocol=Protocol(runtime="none"),
        parts=rows,
        latency=Calibration(scale=1.25, offset=3.0),
    )


# --- 1: exact cost model (the whole list is in test_levels.py) --------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("space", EVERY)
def test_1_tables_are_what_built_networks_have(space: str) -> None:
    made = SPACES[space]
    skeleton = made.skeleton((3, 32, 32), 10, cells=5, channels=12)
    on, rng = bounded(made, skeleton, ("params", "macs", "flops")), np.random.default_rng(0)
    for _ in range(3):
        genotype = made.sample(rng)
        params, macs = built_cost(Architecture(genotype, skeleton))
        assert on.costs(genotype) == {"params": params, "macs": macs, "flops": 2 * macs}


@pytest.mark.slow
@pytest.mark.parametrize("space", list(SPACES))
def test_1_a_devices_profile_is_a_table_of_the_same_shape(space: str) -> None:
    """Also of additions and of a calibration; and energy by counting operations is one, too."""
    made, rng = SPACES[space], np.random.default_rng(0)
    skeleton = made.skeleton((3, 32, 32), 10, cells=5, channels=4)
    energy = ByOperations(batch=4, pj_per_mac=3.0, pj_per_byte=20.0, source_of="made up")
    for objective in (FromProfile(profile_of(made, skeleton), "ms"), energy):
        table = table_of(made, skeleton, "it", objective)
        for _ in range(10):
            genotype = made.sample(rng)
            value = objective.value(Architecture(genotype, skeleton)).value  # type: ignore[attr-defined]
            assert table.of(made.selection(genotype)) == pytest.approx(value, rel=1e-9)


class Squared(Macs):
    """Exact, and no sum."""

    scale = None  # type: ignore[assignment]

    def value(self, architecture: Architecture) -> Value:
        return replace(Macs().value(architecture), value=Macs().value(architecture).value ** 2)


@pytest.mark.slow
def test_1_what_is_no_sum_is_refused() -> None:
    made = SPACES["darts"]
    skeleton = made.skeleton((3, 8, 8), 10, cells=3, channels=4)
    with pytest.raises(InvalidSettingsError, match="'it' is no sum over the ops of a network"):
        table_of(made, skeleton, "it", Squared())
    lacking = FromProfile(profile_of(made, made.skeleton((3, 8, 8), 10, cells=3, channels=6)), "ms")
    with pytest.raises(MissingPartError, match="has no ms of"):
        table_of(made, skeleton, "it", lacking)


# --- 2: gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("form", ["full", "gated"])
def test_2_gradients_agree_with_finite_differences(space: str, form: Form) -> None:
    on = constraints(space, ("params",), form)
    table, logits, step = on.tables["params"], logits_of(on, 0), 1e-5
    kept = on.rule.selection(logits)
    _, gradient = expected(table, on.rule, form, logits, kept)
    scale = max(float(np.abs(slope).max()) for slope in gradient.values())
    for name, slope in gradient.items():
        for place in np.ndindex(*slope.shape):
            ends = []
            for sign in (1, -1):
                moved = {**logits, name: logits[name].copy()}
                moved[name][place] += sign * step
                ends.append(expected(table, on.rule, form, moved, kept)[0])
            assert slope[place] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-4 * scale)


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("form", FORMS)
def test_2_one_hot_logits_cost_what_is_derived(space: str, form: Form) -> None:
    on, made, rng = constraints(space, ("macs",), form), SPACES[space], np.random.default_rng(0)
    for _ in range(5):
        genotype = made.sample(rng)
        logits = {}
        for name, chosen in made.selection(genotype).items():
            logits[name] = np.where(chosen, 50.0, 0.0)
            if not name.endswith(PRE) and "none" in made.ops(name):
                logits[name][~chosen.any(axis=1), made.ops(name).index("none")] = 50.0
        assert on.rule.genotype(logits) == genotype
        value, _ = expected(on.tables["macs"], on.rule, form, logits)
        assert value == pytest.approx(on.cost("macs", genotype), rel=1e-9)


def test_2_the_straight_through_form_has_the_value_of_one_and_the_slope_of_the_other() -> None:
    on, logits = constraints("levels", ("params",)), logits_of(constraints("levels", ("params",)), 1)
    table = on.tables["params"]
    value, slope = expected(table, on.rule, "straight_through", logits)
    _, gated = expected(table, on.rule, "gated", logits)
    assert value == on.cost("params", on.rule.genotype(logits))
    assert all(np.array_equal(slope[name], gated[name]) for name in slope)


def test_2_raising_none_cannot_cheat_the_gated_forms() -> None:
    """Where its logit is far above or below what the others come to, edges are ranked by these."""
    on = constraints("darts", ("params",))
    logits = logits_of(on, 1)
    raised = {name: table.copy() for name, table in logits.items()}
    for name, table in raised.items():
        table[:, 0] = 20.0 + np.log(np.exp(table[:, 1:]).sum(axis=1))
        logits[name][:, 0] = -30.0
    table = on.tables["params"]
    assert expected(table, on.rule, "full", raised)[0] < 0.5 * expected(table, on.rule, "full", logits)[0]
    for form in ("gated", "straight_through"):
        before, after = (expected(table, on.rule, form, each)[0] for each in (logits, raised))  # type: ignore[arg-type]
        assert after == pytest.approx(before)


# --- 3, 4: bounds are held --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "keys"), HELD)
def test_3_upper_bounds_are_met_by_what_is_derived(space: str, keys: tuple[str, ...]) -> None:
    on, met, used = constraints(space, keys), 0, []
    for seed in range(SEEDS):
        logits = logits_of(on, seed, (1e-3, 0.3, 1.0, 3.0)[seed % 4])
        bounds = half(on, logits)
        _, genotype = on.finish(logits, bounds, np.random.default_rng(seed))
        assert genotype is not None
        SPACES[space].check(genotype)
        met += on.holds(genotype, bounds)
        used.append(max(on.cost(key, genotype) / (bounds[key].max or 1) for key in keys))
    assert met == SEEDS
    assert np.median(used) > (0.5 if space == "nasbench201" else 0.9), "and what is allowed is used"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["full", "gated"])
def test_3_the_other_forms_meet_them_as_well(form: Form) -> None:
    on = constraints("darts", BOTH, form)
    for seed in range(SEEDS):
        logits = logits_of(on, seed, (1e-3, 0.3, 1.0, 3.0)[seed % 4])
        bounds = half(on, logits)
        _, genotype = on.finish(logits, bounds, np.random.default_rng(seed))
        assert genotype is not None and on.holds(genotype, bounds)


@pytest.mark.parametrize(("space", "keys"), HELD[:-1])
def test_4_lower_bounds_are_met_too(space: str, keys: tuple[str, ...]) -> None:
    on, no_dearer = constraints(space, keys), 0
    for seed in range(SEEDS):
        logits = logits_of(on, seed)
        bounds = half(on, logits, band=0.15)
        _, genotype = on.finish(logits, bounds, np.random.default_rng(seed))
        assert genotype is not None and on.holds(genotype, bounds)
        _, free = on.finish(logits, half(on, logits), np.random.default_rng(seed))
        assert free is not None
        no_dearer += all(on.cost(key, free) <= on.cost(key, genotype) for key in keys)
    assert no_dearer > SEEDS / 2


def test_4_what_is_too_cheap_becomes_dearer() -> None:
    on = constraints("darts", ("params",))
    table = on.tables["params"]
    cheap = {name: np.where(entries == 0, 1.0, 0.0) for name, entries in table.entries.items()}
    least = on.cost("params", on.rule.genotype(cheap))
    assert least < 1.1 * on.ranges["params"][0]
    bounds = {"params": Bound(min=2.5e6, max=3e6)}
    found, genotype = on.finish(cheap, bounds, np.random.default_rng(0))
    assert found.feasible and genotype is not None
    assert 2.5e6 <= on.cost("params", genotype) <= 3e6


@pytest.mark.parametrize("space", [EVERY[0], EVERY[-1]])
def test_4_a_latency_of_a_device_is_bounded_as_well(space: str) -> None:
    made = SPACES[space]
    skeleton = made.skeleton((3, 32, 32), 10, cells=8, channels=16)
    objective = FromProfile(profile_of(made, skeleton), "ms")
    on = Constraints(made, {"ms": table_of(made, skeleton, "ms", objective)})
    low, high = on.ranges["ms"]
    for seed in range(10):
        bounds = {"ms": Bound(max=low + (0.2 + 0.06 * seed) * (high - low))}
        _, genotype = on.finish(logits_of(on, seed), bounds, np.random.default_rng(0))
        assert genotype is not None
        assert objective.value(Architecture(genotype, skeleton)).value <= (bounds["ms"].max or 0) * (1 + 1e-9)


# --- 5: projection is near --------------------------------------------------------------------------------------------


def test_5_feasible_logits_come_back_as_they_are() -> None:
    for space in SPACES:
        on = constraints(space, ("params", "macs"))
        logits = logits_of(on, 3)
        costs = on.costs(on.rule.genotype(logits))
        kept = {name: table.copy() for name, table in logits.items()}
        found = on.project(logits, {key: Bound(0.9 * cost, cost) for key, cost in costs.items()})
        assert (found.steps, found.feasible) == (0, True)
        assert found.logits is logits and all(np.array_equal(kept[name], logits[name]) for name in kept)


@pytest.mark.parametrize("space", EVERY)
def test_5_no_blend_with_a_cheap_network_lies_much_closer(space: str) -> None:
    """None of 1,000 on the way from the start to random cheap ones is nearer than two thirds of the distance."""
    on, made, rng = constraints(space, ("params",)), SPACES[space], np.random.default_rng(0)
    for seed in range(2):
        logits = logits_of(on, seed)
        bounds = half(on, logits)
        found = on.project(logits, bounds)
        assert found.feasible and found.steps > 0 and on.projection.holds(found.logits, bounds)
        reached = distance(found.logits, logits)
        cheap = [genotype for genotype in (made.sample(rng) for _ in range(1500)) if on.holds(genotype, bounds)][:125]
        cheap = cheap or [extreme(on.rule, on.tables["params"], False)]
        nearest = np.inf
        for number in range(500):
            one_hot = {name: 6.0 * chosen for name, chosen in made.selection(cheap[number % len(cheap)]).items()}
            share = rng.uniform(0, 0.6)
            blend = {name: (1 - share) * table + share * one_hot[name] for name, table in logits.items()}
            apart = distance(blend, logits)
            if apart < nearest and on.projection.holds(blend, bounds):
                nearest = apart
        assert nearest >= 2 / 3 * reached


def test_5_a_constant_on_all_ops_of_an_edge_changes_nothing() -> None:
    on = constraints("darts", ("params",))
    logits, rng = logits_of(on, 0), np.random.default_rng(0)
    shifted = {name: table + rng.normal(size=(len(table), 1)) for name, table in logits.items()}
    bounds = half(on, logits)
    one, other = on.project(logits, bounds), on.project(shifted, bounds)
    assert one.steps == other.steps
    assert distance(one.logits, logits) == pytest.approx(distance(other.logits, shifted), rel=1e-6)
    assert all(np.allclose(table.mean(axis=1), logits[name].mean(axis=1)) for name, table in one.logits.items())


# --- 7: monotone in the bound -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("space", "key"), [("darts", "macs"), *((space, "params") for space in SPACES)])
def test_7_a_tighter_bound_gives_no_dearer_network(space: str, key: str) -> None:
    """Within one step of the lattice of costs: the dearest op instead of the cheapest on one edge."""
    on = constraints(space, (key,))
    step = max(float(np.ptp(entries, axis=1).max()) for entries in on.tables[key].entries.values())
    for seed in range(2):
        logits, costs = logits_of(on, seed), []
        low, high = on.ranges[key][0], on.cost(key, on.rule.genotype(logits))
        for share in (1.0, 0.8, 0.6, 0.4):
            bounds = {key: Bound(max=low + share * (high - low))}
            _, genotype = on.finish(logits, bounds, np.random.default_rng(0))
            assert genotype is not None and on.holds(genotype, bounds)
            costs.append(on.cost(key, genotype))
        assert all(after <= before + step for before, after in pairwise(costs))
        assert costs[-1] < costs[0] or low == high


# --- 8: requests that cannot be met -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"params": Bound(max=1.3e6)}, "max 1300000 lies beyond 1370134, the least any network has"),
        ({"macs": Bound(max=2e8)}, "max 200000000 lies beyond 227272320, the least"),
        ({"params": Bound(min=5.2e6)}, "min 5200000 lies beyond 5144086, the most"),
        ({"params": Bound(max=1.4e6), "macs": Bound(min=8e8)}, "no network was found that holds them all"),
    ],
)
def test_8_what_cannot_be_is_refused_with_floor_and_ceiling(bounds: dict[str, Bound], said: str) -> None:
    on = constraints("darts", ("params", "macs"))
    with pytest.raises(BoundsError, match=said) as caught:
        on.check(bounds, np.random.default_rng(0))
    assert "params 1370134 to 5144086, macs 227272320 to 817833600" in str(caught.value)


@pytest.mark.slow
def test_8_what_can_just_be_is_not() -> None:
    for space in SPACES:
        on = constraints(space, ("params", "macs"))
        low = {key: Bound(max=floor) for key, (floor, _) in on.ranges.items()}
        on.check({"params": low["params"]}, np.random.default_rng(0))
        for key, (_, most) in on.ranges.items():
            on.check({key: Bound(min=most)}, np.random.default_rng(0))


@pytest.mark.parametrize("space", ["darts", "levels", "nasbench201"])
@pytest.mark.parametrize("key", ["params", "macs"])
def test_8_floors_and_ceilings_are_those_of_the_space(space: str, key: Any) -> None:
    on, made = constraints(space, (key,)), SPACES[space]
    skeleton = made.skeleton((3, 32, 32), 10, *((17, 16) if space == "nasbench201" else (20, 36)))
    ends = tuple(made.extreme(skeleton, key, highest) for highest in (False, True))
    assert on.ranges[key] == tuple(on.cost(key, end) for end in ends)


# --- repair -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_best_of_a_small_space_is_found_where_there_is_any() -> None:
    """Repair against trying all 15,625 cells: where one holds narrow bounds, one is found, and a likely one."""
    space = NasBench201(cells=5, channels=8)
    skeleton = space.skeleton((3, 32, 32), 10)
    on, rng = bounded(space, skeleton, ("params", "macs")), np.random.default_rng(0)
    every = list(space.every())
    costs = np.array([list(on.costs(genotype).values()) for genotype in every[::25]])
    for seed in range(8):
        middle = costs[rng.integers(len(costs))]
        bounds = {key: Bound(0.97 * value, 1.03 * value) for key, value in zip(on.tables, middle, strict=True)}
        found = on.repaired(logits_of(on, seed, 2.0), bounds, np.random.default_rng(seed))
        assert found is not None and on.holds(found, bounds)


def test_repair_exchanges_edges_where_ops_do_not_suffice() -> None:
    """Of these ops a skip from an input costs something in a reduction cell, and from a node nothing."""
    space = DartsCells(cells=5, channels=8, normal_ops=("skip_connect",), reduce_ops=("skip_connect",))
    on = bounded(space, space.skeleton((3, 32, 32), 10), ("params",))
    low, high = on.ranges["params"]
    assert low < high
    first = {name: -np.arange(14.0).reshape(14, 1) for name in space.types}
    assert on.cost("params", on.rule.genotype(first)) > low
    found = on.repaired(first, {"params": Bound(max=low)}, np.random.default_rng(0))
    assert found is not None and on.cost("params", found) == low


def test_repair_leaves_what_holds_alone() -> None:
    on = constraints("levels", ("params",))
    logits = logits_of(on, 0)
    derived = on.rule.genotype(logits)
    assert on.repaired(logits, {"params": Bound(max=1e9)}, np.random.default_rng(0)) == derived


def test_repair_takes_the_cheapest_bargain_first() -> None:
    """One op's exchange suffices and loses least: of two equal savings, the one that training minds less."""
    on = constraints("darts", ("params",))
    table = on.tables["params"]
    logits = {name: np.zeros((14, 8)) for name in ("normal", "reduce")}
    for given in logits.values():
        given[:, 4] = 5.0  # sep_conv_3x3 everywhere
        given[:, 3] = 1.0
    logits["normal"][0, 3] = 4.9  # a skip is nearly as good here
    derived = on.rule.genotype(logits)
    bound = on.cost("params", derived) - 0.5 * float(table.entries["normal"][0, 4])
    found = Repair(on.tables, on.rule, logits, {"params": Bound(max=bound)})(np.random.default_rng(0))
    assert found is not None
    before, after = (set(genotype.types["normal"].edges) for genotype in (derived, found))
    assert [(edge.target, edge.source, edge.op) for edge in after - before] == [(2, 0, "skip_connect")]
    assert found.types["reduce"] == derived.types["reduce"]


def test_violations_are_relative_and_forgive_rounding() -> None:
    assert violation({"a": Bound(max=2.0)}, {"a": 3.0}) == 0.5
    assert violation({"a": Bound(max=3e8)}, {"a": 3e8 * (1 + 1e-12)}) == 0


def test_whether_none_may_win_is_found_out() -> None:
    for name, expected_all in (("darts", False), ("any", True), ("nasbench201", True)):
        on = constraints(name, ("params",))
        assert isinstance(on.rule, Rule)
        assert on.rule.usable["normal"].all() == expected_all


# --- 9: levels --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_9_a_bound_on_parameters_moves_the_last_level_most() -> None:
    """Against level 1, in logits: parameters sit in level 3, multiply-adds do not."""
    space = DartsCells(levels=3)
    skeleton = space.skeleton((3, 32, 32), 10, cells=20, channels=36)
    more = {}
    for key in ("params", "macs"):
        on = bounded(space, skeleton, (key,))
        assert len([name for name in on.tables[key].entries if not name.endswith(PRE)]) == 5
        counted = 0
        for seed in range(SEEDS):
            logits = logits_of(on, seed)
            found = on.project(logits, half(on, logits))
            moved = [
                float(np.linalg.norm(found.logits[f"normal{level}"] - logits[f"normal{level}"])) for level in (1, 3)
            ]
            counted += moved[1] > moved[0]
        more[key] = counted
    assert more["params"] > SEEDS / 2 >= more["macs"]


# --- 11: connections --------------------------------------------------------------------------------------------------


def test_11_connections_lower_the_floor_and_stand_in_the_relaxed_cost() -> None:
    on = constraints("levels", ("params", "macs"))
    assert on.ranges["params"][0] < 1_370_134 and on.ranges["macs"][0] < 227_272_320
    logits = logits_of(on, 0)
    dear = {**logits, "normal3.pre": np.array([[9.0, 0, 0, 0, 0]] * 2)}
    cheap = {**logits, "normal3.pre": np.array([[0, 0, 0, 9.0, 0]] * 2)}
    for form in FORMS:
        high, low = (expected(on.tables["params"], on.rule, form, each)[0] for each in (dear, cheap))
        assert high - low > 0.1e6
    bounds = {"params": Bound(max=0.9e6), "macs": Bound(max=1.5e8)}
    on.check(bounds, np.random.default_rng(0))
    _, genotype = on.finish(logits, bounds, np.random.default_rng(0))
    assert genotype is not None and on.holds(genotype, bounds)


# --- the search -------------------------------------------------------------------------------------------------------


def on_images(
    space: Any, bounds: dict[str, Bound] | None = None, evaluations: int = 40, epochs: int = 5, **objectives: Any
) -> Problem[Any]:
    """Tiny images, made on the spot; costs of networks as wide and deep as the searched one."""
    given = objectives or {"params": Params(), "macs": Macs()}
    on = problem(evaluations=evaluations, epochs=epochs, space=space)
    return replace(on, axes=Axes({"error": Error(), **given}, bounds or {}))


def driven(algorithm: Any, on: Problem[Any], state: Any = None) -> list[Any]:
    return list(drive(start(algorithm, on, state), Evaluator(on)))


def proposed(events: list[Any]) -> list[Any]:
    return [genotype for event in events if isinstance(event, Propose) for genotype in event.genotypes]


TINY = DartsCells(cells=3, channels=2, nodes=2)


def middle(space: Any, on: Problem[Any], resource: Any, share: float) -> float:
    low, high = (
        getattr(count(Architecture(space.extreme(on.targets[0], resource, end), on.targets[0])), resource)
        for end in (False, True)
    )
    return float(low + share * (high - low))


def test_6_projection_touches_alpha_alone() -> None:
    on = on_images(TINY)
    on = replace(on, axes=replace(on.axes, bounds={"macs": Bound(max=middle(TINY, on, "macs", 0.3))}))
    engine = RcDarts(batch=16, warmup=0.0, anneal=0.0, alpha_lr=0.1).engine(on)
    relaxation = engine.relaxation
    assert isinstance(relaxation, Bounded)
    relaxation.begin(0, 0)
    with torch.no_grad():
        for alpha in relaxation.alpha.values():
            alpha.copy_(torch.tensor([0.0, 0, 0, 0, 1, 0, 0, 0]).expand_as(alpha))
    before = checkpoint.copied({"net": engine.supernet.state_dict(), "chance": engine.chance.get_state()})
    adam, logits = checkpoint.copied(engine.architect.state_dict()), relaxation.logits()
    relaxation.after_epoch()
    assert relaxation.seen["projection_steps"] > 0 and relaxation.seen["held"] == 1
    assert any((logits[name] != table).any() for name, table in relaxation.logits().items())
    for name, tensor in engine.supernet.state_dict().items():
        assert torch.equal(tensor, before["net"][name])
    assert torch.equal(engine.chance.get_state(), before["chance"])
    assert str(engine.architect.state_dict()) == str(adam)
    once = relaxation.logits()
    relaxation.after_epoch()
    assert relaxation.seen["projection_steps"] == 0
    assert all(np.array_equal(once[name], table) for name, table in relaxation.logits().items())


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_10_without_bounds_it_is_darts(order: Any) -> None:
    runs = []
    for algorithm in (Darts(batch=16, order=order), RcDarts(batch=16, order=order)):
        events = driven(algorithm, on_images(TINY, epochs=2))
        state = [event.state for event in events if isinstance(event, Checkpoint)][-1]
        runs.append((state["relaxation"]["alpha"], [genotype.key() for genotype in proposed(events)]))
    (one, networks), (other, same) = runs
    assert networks == same
    assert all(torch.equal(alpha, other[name]) for name, alpha in one.items())


@pytest.mark.slow
def test_12_from_images_to_a_front_of_retrained_networks(tmp_path: Path) -> None:
    """C = 4, L = 5, two nodes, 16 x 16 pixels, levels and connections: search, projection, export, retraining; four
    bounds.
    """
    space = DartsCells(cells=5, channels=4, nodes=2, levels=3, connection=True)
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = (rng.integers(0, 60, (60, 16, 16, 3)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    parts = tensor_splits(
        (pixels[12:], labels[12:]),
        (pixels[:12], labels[:12]),
        classes=3,
        seed=0,
        fraction=1.0,
        augmentation=Augmentation(padding=1),
    )
    skeleton = space.skeleton(parts.input, parts.classes)
    on = replace(on_images(space, epochs=6), splits=parts, skeleton=skeleton, targets=(skeleton,))
    most = [middle(space, on, "macs", share) for share in (0.6, 0.4, 0.25, 0.1)]
    algorithm = RcDarts(batch=16, alpha_lr=0.1, bounds=tuple({"macs": Limits(max=bound)} for bound in most))
    events = driven(algorithm, on)
    states = [event.state for event in events if isinstance(event, Checkpoint)]
    found: dict[int, Genotype] = {}
    number = 0
    for event in events:
        if isinstance(event, Propose) and not event.revise:
            latest = event.genotypes[-1]
        if isinstance(event, Progress):
            number = int(event.metrics["bounds"])
            found[number] = latest
    assert sorted(found) == [1, 2, 3, 4] and len(states) == 6
    costs = []
    for number, genotype in found.items():
        space.check(genotype)
        architecture = Architecture(genotype, skeleton)
        params, macs = built_cost(architecture)
        assert macs <= most[number - 1] and macs == count(architecture).macs
        costs.append([macs, number])
        training = Training(architecture, Recipe(epochs=1, batch=24), parts.train, Augmentation(), 0, on.device)
        training.epoch()
        model = Model(architecture, training.network.state_dict(), (0.0,) * 3, (1.0,) * 3)
        assert export("python", model, tmp_path / f"{number}.py") < 1e-4
        assert params == sum(p.numel() for p in training.network.parameters())
    assert non_dominated(np.array(costs, dtype=np.float64)).all(), "a tighter bound gives a cheaper network"


@pytest.mark.slow
@pytest.mark.parametrize(
    "space", [TINY, NasBench201(cells=5, channels=2), DartsCells(cells=5, channels=2, nodes=2, levels=3)]
)
def test_whatever_is_proposed_holds_the_bounds(space: Any) -> None:
    """From the first epoch on, also of a device's predicted latency; lower bounds as well."""
    on = on_images(space, epochs=4)
    profile = profile_of(space, on.targets[0])
    latency = FromProfile(profile, "ms")
    table = table_of(space, on.targets[0], "ms", latency)
    low, high = Constraints(space, {"ms": table}).ranges["ms"]
    job = {"params": Bound(min=middle(space, on, "params", 0.05)), "ms": Bound(max=low + 0.5 * (high - low))}
    on = on_images(space, job, epochs=4, params=Params(), ms=latency)
    events = driven(RcDarts(batch=16, alpha_lr=0.5, warmup=0.25), on)
    networks = proposed(events)
    assert len(networks) >= 4
    for genotype in networks:
        space.check(genotype)
        architecture = Architecture(genotype, on.targets[0])
        assert latency.value(architecture).value <= (job["ms"].max or 0) * (1 + 1e-9)
        assert count(architecture).params >= (job["params"].min or 0)


@pytest.mark.slow
def test_several_sets_share_a_warm_supernet_and_each_has_a_network() -> None:
    on = on_images(TINY, epochs=7)
    most = [middle(TINY, on, "params", share) for share in (0.8, 0.5, 0.2)]
    algorithm = RcDarts(
        batch=16, alpha_lr=0.3, warmup=0.3, bounds=tuple({"params": Limits(max=bound)} for bound in most)
    )
    engine = algorithm.engine(on)
    assert engine.lengths == (4, 2, 1), "two epochs of warm-up, and five for three sets"
    assert engine.settings.warmup_epochs == 1
    starts: dict[int, Any] = {}
    told: dict[str, list[int]] = {}
    for event in drive(engine.search(), Evaluator(on)):
        if isinstance(event, Propose):
            given = zip(event.genotypes, event.known, strict=True)
            told |= {genotype.key(): values["error"].detail["goals"] for genotype, values in given}
        if isinstance(event, Progress):
            relaxation = engine.relaxation
            assert isinstance(relaxation, Bounded)
            starts.setdefault(relaxation.goal, relaxation.shared)
            genotype = list(engine.derived.values())[-1]
            assert count(Architecture(genotype, on.targets[0])).params <= most[relaxation.goal]
            assert told[genotype.key()][-1] == relaxation.goal + 1
    assert starts[1] is not None and starts[1] is starts[2]
    assert {goal for goals in told.values() for goal in goals} == {1, 2, 3} and list(told) == list(engine.derived)


@pytest.mark.slow
def test_when_time_is_up_every_set_has_a_network_all_the_same() -> None:
    on = on_images(TINY, epochs=50)
    most = [middle(TINY, on, "params", share) for share in (0.9, 0.5, 0.2, 0.0)]
    on = replace(on, time_is_up=lambda: True)
    algorithm = RcDarts(batch=16, bounds=tuple({"params": Limits(max=bound)} for bound in most))
    networks = {genotype.key(): genotype for genotype in proposed(driven(algorithm, on))}
    sizes = sorted(count(Architecture(genotype, on.targets[0])).params for genotype in networks.values())
    assert sizes[0] == most[-1]
    assert all(any(size <= bound for size in sizes) for bound in most)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    """In every epoch, warm-up and both sets of bounds; projections at every second step of alpha."""

    def fresh() -> Problem[Any]:
        return on_images(TINY, epochs=5)

    bound = middle(TINY, fresh(), "macs", 0.3)
    algorithm = RcDarts(
        batch=16, alpha_lr=0.3, interval=2, bounds=({"macs": Limits(max=2 * bound)}, {"macs": Limits(max=bound)})
    )
    whole: list[Any] = []
    on = fresh()
    for event in drive(start(algorithm, on), Evaluator(on)):
        if isinstance(event, Checkpoint):
            checkpoint.save(event.state, tmp_path / f"{len(whole)}.pt")
        whole.append(event)
    places = [place for place, event in enumerate(whole) if isinstance(event, Checkpoint)]
    assert len(places) == 5
    for place, until in pairwise([*places, len(whole)]):  # each time as far as the next one, which is equal
        on = fresh()
        rest = []
        for event in drive(start(algorithm, on, checkpoint.load(tmp_path / f"{place}.pt")), Evaluator(on)):
            rest.append(event)
            if isinstance(event, Checkpoint):
                assert same(checkpoint.copied(event.state), checkpoint.load(tmp_path / f"{until}.pt"))
                break
        assert [genotype.key() for genotype in proposed(rest)] == [
            genotype.key() for genotype in proposed(whole[place + 1 : until + 1])
        ]


def test_bounds_close_in() -> None:
    """From what alpha costs at first to where they belong by half of the epochs behind the warm-up."""
    on = on_images(TINY, epochs=10)
    target = middle(TINY, on, "macs", 0.1)
    on = replace(on, axes=replace(on.axes, bounds={"macs": Bound(max=target)}))
    relaxation = RcDarts(batch=16, warmup=0.2).engine(on).relaxation
    assert isinstance(relaxation, Bounded)
    at = relaxation.sets[0]
    seen = []
    for epoch in range(10):
        relaxation.begin(0, epoch)
        if epoch >= 2:
            at.start = {"macs": target + 400.0}
            seen.append(at.aimed(relaxation.share())["macs"])
    assert [bound.max for bound in seen] == [target + extra for extra in (300, 200, 100, 0, 0, 0, 0, 0)]
    assert [bound.min for bound in seen] == [pytest.approx(0.8 * (bound.max or 0)) for bound in seen]


def test_a_wide_bound_pulls_nothing_up() -> None:
    """Of a limit that no network reaches the band is none: alpha stays as it is, to the bit."""
    on = on_images(TINY, epochs=10)
    on = replace(on, axes=replace(on.axes, bounds={"macs": Bound(max=1.3 * middle(TINY, on, "macs", 1.0))}))
    relaxation = RcDarts(batch=16, warmup=0.2).engine(on).relaxation
    assert isinstance(relaxation, Bounded)
    for epoch in range(4):
        relaxation.begin(0, epoch)
        before = {name: alpha.detach().clone() for name, alpha in relaxation.alpha.items()}
        relaxation.after_epoch()
        assert all(torch.equal(alpha, before[name]) for name, alpha in relaxation.alpha.items())


@pytest.mark.slow
def test_what_begins_below_the_band_is_raised_to_it() -> None:
    """Alpha by and by, the network at once; without a band both are as cheap as they like."""
    on = on_images(TINY, epochs=4)
    most = middle(TINY, on, "macs", 0.6)
    on = replace(on, axes=replace(on.axes, bounds={"macs": Bound(max=most)}))
    for band in (0.2, 0.5, None):
        relaxation = RcDarts(batch=16, warmup=0.25, anneal=0.6, band=band).engine(on).relaxation
        assert isinstance(relaxation, Bounded)
        at, cheapest = relaxation.sets[0], {}
        for name, alpha in relaxation.alpha.items():
            entries = torch.from_numpy(TINY.cost_table(on.targets[0], "macs").entries[name])
            cheapest[name] = F.one_hot(entries.argmin(axis=1), alpha.shape[1]).double().numpy()
        relaxation.begin(0, 1)
        at.start = {"macs": at.constraints.ranges["macs"][0]}
        lows = [at.aimed(share)["macs"].min for share in (0.0, 0.5, 1.0)]
        (network,) = (at.network(cheapest),)
        costs = count(Architecture(network, on.targets[0])).macs
        assert at.aimed(1.0, band=False) == at.bounds
        if band is None:
            assert lows == [None] * 3 and costs == at.start["macs"]
        else:
            first, middling, last = lows
            assert first == at.start["macs"] and last == pytest.approx((1 - band) * most)
            assert middling == pytest.approx((first + last) / 2)
            assert (1 - band) * most <= costs <= most


def test_of_bands_that_cannot_be_had_together_one_is_kept() -> None:
    """And told of. A set that bounds something itself leaves the job's own bounds as they are."""
    told: list[str] = []
    on = replace(on_images(TINY, epochs=4), warn=told.append)
    few, wide = middle(TINY, on, "macs", 0.1), 0.99 * middle(TINY, on, "params", 1.0)
    on = replace(on, axes=replace(on.axes, bounds={"macs": Bound(max=few), "params": Bound(max=wide)}))
    relaxation = RcDarts(batch=16).engine(on).relaxation
    assert isinstance(relaxation, Bounded)
    at = relaxation.sets[0]
    assert at.aims == {"macs": Bound(0.8 * few, few), "params": Bound(max=wide)}
    assert at.constraints.holds(at.known, at.aims)
    assert len(told) == 1 and f"with 'params' between {0.8 * wide:.6g} and its upper bound" in told[0]
    most = middle(TINY, on, "macs", 0.6)
    relaxation = RcDarts(batch=16, bounds=({"macs": Limits(max=most)}, {})).engine(on).relaxation
    assert isinstance(relaxation, Bounded) and len(told) == 2
    assert [at.aims["params"].min for at in relaxation.sets] == [None, None]
    assert relaxation.sets[0].aims["macs"] == Bound(0.8 * few, few)


@pytest.mark.slow
def test_a_network_of_two_goals_counts_for_both() -> None:
    """What a weight ends with is often what the next one begins with; here alpha learns as good as nothing."""
    on = on_images(TINY, epochs=3)
    given = Darts(batch=16, alpha_lr=1e-9, resource="macs", resource_weights=(0.0, 0.1, 0.3))
    told = [
        values["error"].detail["goals"]
        for event in driven(given, on)
        if isinstance(event, Propose)
        for values in event.known
    ]
    assert told == [[1], [1, 2], [1, 2, 3]]


def test_a_band_that_cannot_be_had_is_given_up() -> None:
    """Few multiply-adds beside a wide limit on parameters, where alpha begins with many of both."""
    on = on_images(TINY, epochs=4)
    few, wide = middle(TINY, on, "macs", 0.1), middle(TINY, on, "params", 1.0)
    on = replace(on, axes=replace(on.axes, bounds={"macs": Bound(max=few), "params": Bound(max=wide)}))
    relaxation = RcDarts(batch=16, warmup=0.25, anneal=0.0).engine(on).relaxation
    assert isinstance(relaxation, Bounded)
    with torch.no_grad():
        for name, alpha in relaxation.alpha.items():
            dearest = TINY.cost_table(on.targets[0], "params").entries[name].argmax(axis=1)
            alpha.copy_(F.one_hot(torch.from_numpy(dearest), alpha.shape[1]).float())
    relaxation.begin(0, 1)
    relaxation.after_epoch()
    at = relaxation.sets[0]
    assert relaxation.metrics()["held"] == 1.0 and at.excess(relaxation.logits(), 1.0) == 0


@pytest.mark.parametrize(
    ("given", "job", "error", "said"),
    [
        (
            {"bounds": ({"weight": Limits(max=1.0)},)},
            {},
            InvalidSettingsError,
            "'weight' is no cost of this job that adds up over ops",
        ),
        ({"bounds": ({"error": Limits(max=1.0)},)}, {}, InvalidSettingsError, "of these it has: params, macs"),
        ({"bounds": ({"params": Limits(max=9.0)},)}, {}, BoundsError, "params': max 9 lies beyond 316, the least"),
        ({}, {"macs": Bound(min=1e9)}, BoundsError, "macs': min 1000000000 lies beyond .*, the most any network has"),
        (
            {"bounds": ({"params": Limits(min=700.0)},)},
            {"params": Bound(max=600.0)},
            BoundsError,
            "no network was found",
        ),
        ({"bounds": ({},) * 50}, {"params": Bound(max=600.0)}, InvalidSettingsError, "50 sets, but budget.evaluations"),
    ],
)
def test_8_a_search_fails_before_it_trains(given: Any, job: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        RcDarts(**given).engine(on_images(TINY, job))


def test_bounds_that_no_sum_can_hold_are_left_to_the_fronts_with_a_warning() -> None:
    told: list[str] = []
    on = on_images(TINY, {"squared": Bound(max=1e9)}, squared=Squared(), params=Params())
    on = replace(on, warn=told.append)
    engine = RcDarts(batch=16).engine(on)
    assert not isinstance(engine.relaxation, Bounded)
    assert told == [
        "the bound on 'squared' is not held while searching, since that is no sum over ops; fronts look at it"
    ]
