"""RC-DARTS-style search: what a faithful implementation must show, by number (docs of the method)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nas_core.additive import AdditiveTable, Logits, additive_table
from nas_core.architecture import Architecture
from nas_core.constraints import Constraints, Form, Rule, expected
from nas_core.constraints.projection import distance, violation
from nas_core.constraints.repair import Repair, extreme
from nas_core.costs import PRE
from nas_core.counting import built_cost
from nas_core.errors import BoundsError, InvalidSettingsError, MissingPartError
from nas_core.objectives._predicted import ByOperations, FromProfile
from nas_core.objectives.flops import Flops
from nas_core.objectives.macs import Macs
from nas_core.objectives.params import Params
from nas_core.parts import parts_on
from nas_core.profiles import Calibration, DeviceProfile, Protocol, Row
from nas_core.search import Bound
from nas_core.spaces.darts import DartsCells
from nas_core.spaces.nasbench201 import NasBench201
from nas_core.values import Value

pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = [("params",), ("macs",), ("params", "macs")]
FORMS: tuple[Form, ...] = ("full", "gated", "straight_through")
SPACES: Mapping[str, Any] = {
    "darts": DartsCells(),
    "levels": DartsCells(levels=3, connection=True),
    "any": DartsCells(fan_in="any"),
    "nasbench201": NasBench201(),
}
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


def profile_of(space: Any, skeleton: Any) -> DeviceProfile:
    """Times that do not follow from sizes, a scale and an offset."""
    rng = np.random.default_rng(7)
    rows = tuple(
        Row(
            op=part.op,
            inputs=part.inputs,
            outputs=part.outputs,
            size=part.size,
            stride=part.stride,
            middle=part.middle,
            pool_norm=part.pool_norm,
            ms=float(rng.uniform(0.01, 1.0)),
        )
        for part in sorted(parts_on(space, skeleton), key=str)
    )
    return DeviceProfile(
        name="made-up",
        device="cpu:none",
        protocol=Protocol(runtime="none"),
        parts=rows,
        latency=Calibration(scale=1.25, offset=3.0),
    )


# --- 1: exact cost model (the whole list is in test_levels.py) --------------------------------------------------------


@pytest.mark.parametrize("space", list(SPACES))
def test_1_tables_are_what_built_networks_have(space: str) -> None:
    made = SPACES[space]
    skeleton = made.skeleton((3, 32, 32), 10, cells=5, channels=12)
    on, rng = bounded(made, skeleton, ("params", "macs", "flops")), np.random.default_rng(0)
    for _ in range(3):
        genotype = made.sample(rng)
        params, macs = built_cost(Architecture(genotype, skeleton))
        assert on.costs(genotype) == {"params": params, "macs": macs, "flops": 2 * macs}


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


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("space", list(SPACES))
def test_3_upper_bounds_are_met_by_what_is_derived(space: str, keys: tuple[str, ...]) -> None:
    on, met, used = constraints(space, keys), 0, []
    for seed in range(20):
        logits = logits_of(on, seed, (1e-3, 0.3, 1.0, 3.0)[seed % 4])
        bounds = half(on, logits)
        _, genotype = on.finish(logits, bounds, np.random.default_rng(seed))
        assert genotype is not None
        SPACES[space].check(genotype)
        met += on.holds(genotype, bounds)
        used.append(max(on.cost(key, genotype) / (bounds[key].max or 1) for key in keys))
    assert met == 20
    assert np.median(used) > (0.5 if space == "nasbench201" else 0.9), "and what is allowed is used"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["full", "gated"])
@pytest.mark.parametrize("keys", KEYS)
def test_3_the_other_forms_meet_them_as_well(keys: tuple[str, ...], form: Form) -> None:
    on = constraints("darts", keys, form)
    for seed in range(20):
        logits = logits_of(on, seed, (1e-3, 0.3, 1.0, 3.0)[seed % 4])
        bounds = half(on, logits)
        _, genotype = on.finish(logits, bounds, np.random.default_rng(seed))
        assert genotype is not None and on.holds(genotype, bounds)


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("space", ["darts", "levels", "any"])
def test_4_lower_bounds_are_met_too(space: str, keys: tuple[str, ...]) -> None:
    on, no_dearer = constraints(space, keys), 0
    for seed in range(20):
        logits = logits_of(on, seed)
        bounds = half(on, logits, band=0.15)
        _, genotype = on.finish(logits, bounds, np.random.default_rng(seed))
        assert genotype is not None and on.holds(genotype, bounds)
        _, free = on.finish(logits, half(on, logits), np.random.default_rng(seed))
        assert free is not None
        no_dearer += all(on.cost(key, free) <= on.cost(key, genotype) for key in keys)
    assert no_dearer > 10


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


@pytest.mark.parametrize("space", ["darts", "nasbench201"])
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


@pytest.mark.parametrize("space", list(SPACES))
def test_5_no_blend_with_a_cheap_network_lies_much_closer(space: str) -> None:
    """None of 1,000 on the way from the start to random cheap ones is nearer than two thirds of the distance."""
    on, made, rng = constraints(space, ("params",)), SPACES[space], np.random.default_rng(0)
    for seed in range(2):
        logits = logits_of(on, seed)
        bounds = half(on, logits)
        found = on.project(logits, bounds)
        assert found.feasible and found.steps > 0 and on.project.holds(found.logits, bounds)
        reached = distance(found.logits, logits)
        cheap = [genotype for genotype in (made.sample(rng) for _ in range(1500)) if on.holds(genotype, bounds)][:125]
        cheap = cheap or [extreme(on.rule, on.tables["params"], False)]
        nearest = np.inf
        for number in range(500):
            one_hot = {name: 6.0 * chosen for name, chosen in made.selection(cheap[number % len(cheap)]).items()}
            share = rng.uniform(0, 0.6)
            blend = {name: (1 - share) * table + share * one_hot[name] for name, table in logits.items()}
            apart = distance(blend, logits)
            if apart < nearest and on.project.holds(blend, bounds):
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


@pytest.mark.parametrize("key", ["params", "macs"])
@pytest.mark.parametrize("space", list(SPACES))
def test_7_a_tighter_bound_gives_no_dearer_network(space: str, key: str) -> None:
    """Within one step of the lattice of costs: the dearest op instead of the cheapest on one edge."""
    on = constraints(space, (key,))
    step = max(float(np.ptp(entries, axis=1).max()) for entries in on.tables[key].entries.values())
    low, high = on.ranges[key]
    for seed in range(5):
        logits, costs = logits_of(on, seed), []
        for share in (1.0, 0.8, 0.6, 0.4):
            bounds = {key: Bound(max=low + share * (high - low))}
            _, genotype = on.finish(logits, bounds, np.random.default_rng(0))
            assert genotype is not None and on.holds(genotype, bounds)
            costs.append(on.cost(key, genotype))
        assert all(after <= before + step for before, after in pairwise(costs))
        assert costs[-1] < costs[0]


# --- 8: requests that cannot be met -----------------------------------------------------------------------------------


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


def test_9_a_bound_on_parameters_moves_the_last_level_most() -> None:
    """Against level 1, in logits: parameters sit in level 3, multiply-adds do not."""
    space = DartsCells(levels=3)
    skeleton = space.skeleton((3, 32, 32), 10, cells=20, channels=36)
    more = {}
    for key in ("params", "macs"):
        on = bounded(space, skeleton, (key,))
        assert len([name for name in on.tables[key].entries if not name.endswith(PRE)]) == 5
        counted = 0
        for seed in range(20):
            logits = logits_of(on, seed)
            found = on.project(logits, half(on, logits))
            moved = [
                float(np.linalg.norm(found.logits[f"normal{level}"] - logits[f"normal{level}"])) for level in (1, 3)
            ]
            counted += moved[1] > moved[0]
        more[key] = counted
    assert more["params"] > 10 and more["macs"] <= 10


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
