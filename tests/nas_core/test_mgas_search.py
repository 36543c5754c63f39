"""MGAS: what a faithful implementation must show of whole searches, by the numbers of its specification: retention,
budgets, sub-nets, re-pruning, regrowth; and what is ours: several targets in one run, resumption to the bit, epochs
that do not suffice, settings that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nas_core import checkpoint
from nas_core.algorithms.mgas import FixedRatios, Mgas
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count, sites
from nas_core.errors import (
    DivergedError,
    IncompatibleSpaceError,
    InvalidGenotypeError,
    InvalidSettingsError,
    MissingPartError,
)
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated, Event, Progress, Propose
from nas_core.granularity.measure import ByParts, Published, reachable, smallest, total
from nas_core.granularity.slots import slot_of
from nas_core.granularity.spent import cost_of
from nas_core.granularity.trajectory import Trajectory
from nas_core.memory import LiveTensors
from nas_core.network import Network
from nas_core.objectives.flops import Flops
from nas_core.objectives.params import Params
from nas_core.predicted import ByOperations, FromProfile
from nas_core.recipe import ShortTraining
from nas_core.search import Axes, Bound, Problem, drive
from nas_core.settings import form
from nas_core.spaces.darts import DartsCells
from nas_core.values import Value
from nas_core.valuing import exact_value
from tests.contracts.problems import problem
from tests.nas_core.mgas_problems import images, subnet
from tests.nas_core.test_rc_darts import profile_of

pytestmark = pytest.mark.usefixtures("one_thread")

OPS = ("skip_connect", "sep_conv_3x3", "max_pool_3x3")
SPACE = DartsCells(
    cells=3, channels=4, nodes=2, fan_in="free", levels="cell", filters=True, normal_ops=OPS, reduce_ops=OPS
)
TINY = replace(SPACE, nodes=1)
QUICK: dict[str, Any] = {
    "batch": 60,
    "initial_epochs": 1,
    "commit_every": 1,
    "lambda_start": 0.05,
    "few_ops": 2,
    "rho": (0.8, 0.8, 0.8),
    "alpha_lr": 10.0,
    "threshold_lr": 0.05,
    "weight_threshold_lr": 0.02,
    "seed_training": ShortTraining(epochs=1),
}


def on(space: DartsCells = SPACE, warnings: list[str] | None = None, **changed: Any) -> Problem[Any]:
    made = problem(space=space, **{"epochs": 120, "evaluations": 30, **changed})
    object.__setattr__(made, "targets", (made.skeleton,))
    object.__setattr__(made, "warn", (warnings if warnings is not None else []).append)
    return made


def run(trajectory: Trajectory, each: Callable[[Event], None] = lambda event: None) -> list[Event]:
    events = []
    for event in drive(trajectory.search(), Evaluator(trajectory.problem)):
        events.append(event)
        each(event)
    return events


def proposals(events: list[Event]) -> list[Genotype]:
    return [genotype for event in events if isinstance(event, Propose) for genotype in event.genotypes]


def size(genotype: Genotype, problem: Problem[Any]) -> int:
    return count(Architecture(genotype, problem.targets[0])).params


class Stops:
    """What a trajectory was at the start and at the end of each phase."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.starts: list[tuple[int, float, float]] = []
        """(phase, cost, budget)"""
        self.commits: list[tuple[int, float]] = []
        """(phase, cost) after each commit."""
        self.thresholds: list[float] = []
        enter, commit = trajectory._enter, trajectory._commit

        def entering(phase: int) -> None:
            enter(phase)
            self.starts.append((phase, trajectory.cost(), trajectory.budget))
            every = [tensor for gates in trajectory.net.gates for tensor in (*gates.coarse().values(), gates.weight)]
            self.thresholds.append(max(float(tensor.detach().abs().max()) for tensor in every))

        def committing(loss: float, last: bool = False) -> int:
            removed = commit(loss, last)
            self.commits.append((trajectory.phase, trajectory.cost()))
            return removed

        trajectory._enter, trajectory._commit = entering, committing  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def whole() -> tuple[Trajectory, list[Event], Stops, list[str]]:
    """One search with two targets, of which the tests of this file look at different sides."""
    warnings: list[str] = []
    trajectory = Mgas(targets=(4000.0, 1300.0), **QUICK).trajectory(on(warnings=warnings, seeds=1))
    stops = Stops(trajectory)
    return trajectory, run(trajectory), stops, warnings


Whole = tuple[Trajectory, list[Event], Stops, list[str]]


@pytest.mark.slow
def test_4_retention_is_no_input_and_differs_by_level(whole: Whole) -> None:
    _, events, _, _ = whole
    last = [event.metrics for event in events if isinstance(event, Progress)][-1]
    kept = [last[f"{level}_kept"] for level in ("ops", "filters", "weights")]
    assert len(set(kept)) == 3 and all(0 <= share < 1 for share in kept)
    finals = [event.metrics for event in events if isinstance(event, Progress) and event.phase == "final"]
    assert len({metrics["ops_kept"] for metrics in finals}) > 1, "other sizes, other shares"


def test_4_no_setting_names_a_share_that_is_kept() -> None:
    names = set(form(Mgas)["properties"])
    assert not {name for name in names if "ratio" in name or "keep" in name} - {"fixed_ratios"}
    assert Mgas().fixed_ratios is None


@pytest.mark.slow
def test_5_stages_end_below_their_budgets_and_networks_below_their_targets(whole: Whole) -> None:
    trajectory, events, stops, warnings = whole
    assert warnings == []
    assert [phase for phase, *_ in stops.starts] == [1, 2, 3], "the first began when it was made"
    for phase, cost, budget in stops.starts[:-1]:
        assert budget == pytest.approx(0.8 * cost)
        ended = [after for at, after in stops.commits if at == phase]
        assert ended[-1] < budget and all(earlier >= budget for earlier in ended[:-1])
    sizes = [size(genotype, trajectory.problem) for genotype in proposals(events)[:-1]]
    known = [event.known[0]["error"] for event in events if isinstance(event, Propose) and event.known]
    told = [value.detail.get("goals") for value in known]
    assert told == [None if each >= 4000 else [1] if each >= 1300 else [2] for each in sizes]
    assert [1] in told and [2] in told
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) < 1300 and len(sizes) >= 2
    assert trajectory.served == 2


@pytest.mark.slow
def test_5_a_smaller_target_gives_a_part_of_the_network_of_a_larger_one(whole: Whole) -> None:
    """In one run, and as good as in two: what comes before the final phase knows no target."""
    trajectory, events, _, _ = whole
    found = proposals(events)[:-1]
    for larger, smaller in pairwise(found):
        for name, cell in smaller.types.items():
            before = larger.types[name]
            assert {slot_of(edge) for edge in cell.edges} <= {slot_of(edge) for edge in before.edges}
            assert (cell.width or 0) <= (before.width or 0)
            middles = {slot_of(edge): edge.width or before.width for edge in before.edges}
            assert all((edge.width or cell.width) <= middles[slot_of(edge)] for edge in cell.edges)  # type: ignore[operator]
    alone = proposals(run(Mgas(targets=(1300.0,), **QUICK).trajectory(on(seeds=1))))[-2]
    larger = found[-1]
    largest = next(each for each in found if size(each, trajectory.problem) < 4000)
    assert ops_of(alone) <= ops_of(largest) and ops_of(larger) <= ops_of(largest)
    for name, cell in alone.types.items():
        assert (cell.width or 0) <= (largest.types[name].width or 0)


def ops_of(genotype: Genotype) -> set[tuple[str, int, int, str]]:
    return {(name, *slot_of(edge)) for name, cell in genotype.types.items() for edge in cell.edges}


def leaves(state: Any) -> list[Tensor]:
    """Every tensor of a state, in order; what is no tensor as one of its text."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, Mapping):
        return [leaf for key in state for leaf in leaves(state[key])]
    if isinstance(state, list | tuple):
        return [leaf for item in state for leaf in leaves(item)]
    return [torch.tensor(list(repr(state).encode()))]


@pytest.mark.slow
def test_5_candidates_hold_what_stands_in_the_trajectory(whole: Whole) -> None:
    trajectory, events, _, _ = whole
    candidate = trajectory.candidate()
    assert candidate.genotype.key() == proposals(events)[-2].key(), "the last before the seeds"
    SPACE.check(candidate.genotype)
    network = Network(Architecture(candidate.genotype, trajectory.skeleton))
    assert candidate.masks is not None and candidate.genotype.masks == candidate.masks.digest
    candidate.masks.check(Architecture(candidate.genotype, trajectory.skeleton))
    proposed = [event for event in events if isinstance(event, Propose)][-2]
    assert proposed.masks == (candidate.masks,)
    (weights,) = proposed.weights
    assert weights is not None and candidate.masks.leaks(weights) == []
    inherited = trajectory.inherited(candidate.genotype)
    assert weights.keys() == inherited.keys() and all(torch.equal(weights[name], inherited[name]) for name in weights)
    network.load_state_dict(inherited)
    seeds = [event for event in events if isinstance(event, Evaluated)][-1].evaluation
    assert seeds.genotype == trajectory.problem.seeds[0] and seeds.values[0]["error"].kind == "trained"
    scored = next(event for event in events if isinstance(event, Evaluated)).evaluation
    assert scored.values[0]["error"].kind == "supernet" and scored.failure is None
    assert scored.values[0]["params"].value == size(scored.genotype, trajectory.problem)


@pytest.mark.slow
def test_6_a_stage_builds_and_computes_its_own_cells_alone() -> None:
    trajectory = Mgas(**QUICK, targets=(2000.0,)).trajectory(on())
    assert len(trajectory.net.network.cells) == 1
    taken = []
    for end, stage in ((0, 0), (1, 1), (2, None)):
        net = subnet(replace(SPACE, channels=8), end=end, stage=stage)
        with LiveTensors() as counting:
            loss = net(images(8)).sum()
            taken.append(counting.most)
        loss.backward()
    assert taken[0] < 0.75 * taken[2] and taken[1] < taken[2]


@pytest.mark.slow
def test_7_thresholds_begin_at_zero_and_earlier_cells_are_pruned_on(whole: Whole) -> None:
    _, _, stops, _ = whole
    assert stops.thresholds == [0.0] * 3
    for reprune in (True, False):
        trajectory = Mgas(**{**QUICK, "reprune": reprune}, targets=(2000.0,)).trajectory(on())
        trajectory._leave()
        assert trajectory.name == "stage 2" and trajectory.newest == 1
        first = trajectory.net.gates[0].alive.copy()
        trajectory.control.value = 100.0
        trajectory.epochs = trajectory.initial
        trajectory._epoch()
        trajectory._commit(1.0)
        again = trajectory.net.gates[0].alive
        assert not (again & ~first).any() and again[-1].any()
        assert (again.sum() < first.sum()) == reprune
        assert trajectory.net.gates[1].alive.sum() < first.sum(), "and the new ones, too"


@pytest.mark.slow
def test_8_regrowth_is_bounded_fresh_and_only_after_later_stages() -> None:
    trajectory = Mgas(**QUICK, targets=(2000.0,)).trajectory(on())
    for phase in range(3):
        assert trajectory.settles == (phase > 0)
        for gates in trajectory.net.gates:
            with torch.no_grad():
                gates.alpha.copy_(torch.linspace(-2, 2, gates.alpha.numel()).reshape(gates.alpha.shape))
                gates.operation.fill_(0.4)
                for name, beta in gates.beta.items():
                    beta[: len(beta) // 2] = -3.0 if not name.startswith("pre") else 0.0
                gates.filter.fill_(0.2)
        removed = trajectory._commit(1.0)
        before = [gates.alive.copy() for gates in trajectory.net.gates]
        alpha = [gates.alpha.detach().clone() for gates in trajectory.net.gates]
        old = trajectory.net
        trajectory._leave(regrow=trajectory.settles)
        back = [now.alive & ~was for now, was in zip(trajectory.net.gates, before, strict=False)]
        came = int(sum(slots.sum() for slots in back))
        assert came <= int(0.2 * removed) and (came > 0) == (phase > 0)
        for position, slots in enumerate(back):
            gates = trajectory.net.gates[position]
            assert torch.equal(gates.alpha.detach(), alpha[position]), "it resumes with the score it had"
            for row, column in np.argwhere(slots):
                name = ".".join(map(str, gates.table.slot(int(row), int(column))))
                if f"{name}.output" in gates.beta:
                    assert gates.filters[f"{name}.output"].all() and not gates.beta[f"{name}.output"].any()
        if phase > 0:
            kernels = {n: p for n, p in trajectory.net.network.named_parameters() if n in old.kept}
            assert all(trajectory.net.kept[name].shape == kernel.shape for name, kernel in kernels.items())
        if not trajectory.final:
            trajectory.epochs = trajectory.initial
            trajectory._epoch()


@pytest.mark.slow
def test_resumed_in_any_phase_it_is_the_unbroken_run_to_the_bit(tmp_path: Path) -> None:
    algorithm = Mgas(**QUICK, targets=(2500.0, 2000.0))
    unbroken = algorithm.trajectory(on(TINY, epochs=14))
    kept: dict[tuple[str, bool], Path] = {}
    phases = []

    def keep(event: Event) -> None:
        if isinstance(event, Checkpoint):
            path = tmp_path / f"{len(phases)}.pt"
            checkpoint.save(event.state, path)
            phases.append(unbroken.name)
            kept[unbroken.name, unbroken.settling] = path

    run(unbroken, keep)
    assert {"stage 1", "stage 2", "stage 3", "final"} <= set(phases)
    wanted = leaves(unbroken.state())
    for path in kept.values():
        again = algorithm.trajectory(on(TINY, epochs=14))
        for _ in drive(again.search(checkpoint.load(path)), Evaluator(again.problem)):
            pass
        for one, other in zip(leaves(again.state()), wanted, strict=True):
            assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("finish", [False, True])
def test_epochs_that_do_not_suffice_end_it_with_a_reason_and_the_best_so_far(finish: bool) -> None:
    warnings: list[str] = []
    slow = {**QUICK, "lambda_start": 1e-9, "finish": finish}
    trajectory = Mgas(**slow, targets=(3500.0, 2000.0)).trajectory(on(TINY, warnings, epochs=8))
    events = run(trajectory)
    assert trajectory.done <= 8 and trajectory.finished
    sizes = [size(genotype, trajectory.problem) for genotype in proposals(events)]
    final = [text for text in warnings if "final" in text or "epochs ran out" in text]
    assert len(warnings) == len(final) + 3, "one for each stage"
    assert all("budget.epochs" in text for text in warnings)
    if finish:
        assert [any(low <= each < high for each in sizes) for low, high in ((2000, 3500), (0, 2000))] == [True, True]
        assert len(final) == 2 and all("weakest ops went" in text for text in final)
    else:
        assert len(set(sizes)) == 1 and len(final) == 2, "commits differ in single weights alone"
        assert all("without meeting its budget" in text for text in final)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2, 4, 5, 8])
def test_no_target_is_lost_however_few_the_epochs(epochs: int) -> None:
    """Each is met by a network, or a warning names it: ops that went for a larger one do not come back."""
    warnings: list[str] = []
    targets = (4000.0, 3000.0, 2000.0, 1300.0)
    trajectory = Mgas(**QUICK, targets=targets).trajectory(on(SPACE, warnings, epochs=epochs))
    sizes = [size(genotype, trajectory.problem) for genotype in proposals(run(trajectory))]
    assert trajectory.served == len(targets) and trajectory.done <= epochs
    for target in targets:
        told = any(f"below {target:.6g}; it costs" in text or f"not below {target:.6g}" in text for text in warnings)
        assert any(each < target for each in sizes) != told
    idle = [
        phase for phase in ("stage 1", "stage 2", "stage 3") if any(f"{phase} has no epochs" in w for w in warnings)
    ]
    assert idle == {1: ["stage 1", "stage 2", "stage 3"], 2: ["stage 1", "stage 2"]}.get(epochs, idle)


@pytest.mark.slow
@pytest.mark.parametrize("ops", [OPS, ("skip_connect",)], ids=["ops", "skips"])
def test_a_target_that_can_be_met_is_met_when_epochs_run_out(ops: tuple[str, ...]) -> None:
    """Just above the smallest network of all: by cheaper ops and fewer filters, where fewer ops are too little."""
    warnings: list[str] = []
    made = on(replace(SPACE, normal_ops=ops, reduce_ops=ops), warnings, epochs=4)
    slow = {**QUICK, "lambda_start": 1e-9, "rho": (0.99, 0.99, 0.99)}
    free = Mgas(**slow).trajectory(made)
    floor = total(free.measure, smallest(free.measure, derived(free), made.targets[0], True), made.targets[0], True)
    trajectory = Mgas(**slow, targets=(floor + 1.0,)).trajectory(made)
    assert size(proposals(run(trajectory))[-1], made) < floor + 1.0
    assert any("of the filters of every cell went at once" in text for text in warnings)


@pytest.mark.slow
def test_the_last_stage_leaves_the_largest_target_to_the_final_phase() -> None:
    deep = {**QUICK, "rho": (0.1, 0.1, 0.1), "lambda_start": 0.2}
    trajectory = Mgas(**deep, targets=(7500.0, 1500.0)).trajectory(on(SPACE, epochs=40))
    phases: list[tuple[str, float]] = []
    run(trajectory, lambda event: phases.append((trajectory.name, trajectory.budget)))
    around = trajectory.measure.around(trajectory.target, sites(trajectory.full, trajectory.target)[-1])
    assert max(budget for name, budget in phases if name == "stage 3") == 7500.0 - around


@pytest.mark.slow
def test_targets_that_the_stages_left_behind_are_told() -> None:
    """One commit of a stage may take far more than its budget asks for."""
    warnings: list[str] = []
    trajectory = Mgas(**{**QUICK, "lambda_start": 1e3}, targets=(4000.0, 1300.0)).trajectory(on(SPACE, warnings))
    run(trajectory)
    (told,) = [text for text in warnings if "the stages pruned the network to" in text]
    assert "below 4000" in told


@pytest.mark.slow
def test_ops_that_went_too_fast_are_told_as_the_reason() -> None:
    """All but one of each node, and not the cheapest: no more epochs would bring that below the target."""
    warnings: list[str] = []
    made = on(TINY, warnings, epochs=12)
    hasty = {**QUICK, "lambda_start": 20.0, "stages": 1, "filters": False, "weights": False}
    free = Mgas(**hasty).trajectory(made)
    least = smallest(free.measure, derived(free), made.targets[0], False)
    floor = total(free.measure, least, made.targets[0], whole=True)
    trajectory = Mgas(**hasty, targets=(floor + 1.0,)).trajectory(made)
    events = run(trajectory)
    assert size(proposals(events)[-1], made) > floor + 1.0
    assert any("Every node is down to its last op" in text and "smaller lambda_start" in text for text in warnings)
    assert not any("its 0 weakest ops" in text for text in warnings)


@pytest.mark.slow
def test_thresholds_that_rise_above_all_scores_are_told() -> None:
    """Once a phase, and not where the network still learns."""
    warnings: list[str] = []
    hasty = {**QUICK, "lambda_start": 2.0, "few_ops": 1000, "stages": 1, "initial_epochs": 0}
    trajectory = Mgas(**hasty, targets=(1200.0,)).trajectory(on(TINY, warnings, epochs=12))
    lines = [event.metrics for event in run(trajectory) if isinstance(event, Progress)]
    silent = [text for text in warnings if "says the same of all images" in text]
    assert 1 <= len(silent) <= 2 and "lambda_start" in silent[0]
    assert max(line["loss"] for line in lines if "loss" in line) > np.log(trajectory.skeleton.classes) - 0.005


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_few_epochs_still_give_a_network(epochs: int) -> None:
    trajectory = Mgas(**QUICK).trajectory(on(TINY, epochs=epochs))
    events = run(trajectory)
    assert len(proposals(events)) >= 1 and trajectory.done == epochs


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"stages": 1, "rho": (0.5,)},
        {"filters": False, "weights": False},
        {"weights": False, "measure": "macs", "targets": (30_000.0,)},
        {"filters": False, "measure": "published", "cost_weight": 0.5},
        {"fixed_ratios": FixedRatios(ops=0.5)},
        {"fixed_ratios": FixedRatios(ops=0.5), "regrow": 1.0, "space": ("skip_connect", "dil_conv_5x5")},
    ],
    ids=["one stage", "ops alone", "macs", "published", "foil", "other ops in reductions"],
)
def test_levels_measures_and_stages_by_setting(changed: dict[str, Any]) -> None:
    space = replace(TINY, reduce_ops=changed.pop("space", OPS))
    trajectory = Mgas(**{**QUICK, **changed}).trajectory(on(space, epochs=12))
    stops = Stops(trajectory)
    events = run(trajectory)
    found = proposals(events)
    assert found
    for genotype in found:
        space.check(genotype)
    if not trajectory.plan.levels.filters:
        assert [cell.width for cell in found[-1].types.values()] == [4, 8, 16]
    if not trajectory.plan.levels.weights:
        assert trajectory.candidate().masks is None and trajectory.net.kept == {}
    if changed.get("stages") == 1:
        assert {event.phase for event in events if isinstance(event, Progress)} == {"stage 1", "final"}
    if changed.get("measure") == "macs":
        assert stops.commits[-1][1] == count(Architecture(found[-1], trajectory.target)).macs
    if "fixed_ratios" in changed:
        assert trajectory.served == 1


def timed(narrow: bool, **changed: Any) -> Problem[Any]:
    """With a latency that a made-up profile predicts, of full widths or of narrow ones, too."""
    made = on(TINY, **changed)
    latency = FromProfile(profile_of(TINY, made.skeleton, "all" if narrow else "full"), "ms")
    object.__setattr__(made, "axes", Axes({**made.axes.objectives, "latency_ms": latency}, {}))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("filters", [False, True])
def test_a_predicted_latency_can_be_the_target(filters: bool) -> None:
    made = timed(filters, epochs=12)
    latency = made.axes.objectives["latency_ms"]
    trajectory = Mgas(**QUICK, measure="latency_ms", filters=filters).trajectory(made)
    full = Architecture(Genotype("darts", derived(trajectory)), trajectory.target)
    assert total(trajectory.measure, full.genotype.types, trajectory.target, True) == pytest.approx(
        latency.value(full).value  # type: ignore[attr-defined]
    )
    found = proposals(run(trajectory))[-1]
    value = latency.value(Architecture(found, trajectory.target)).value  # type: ignore[attr-defined]
    assert trajectory.cost() == pytest.approx(value)
    assert value < trajectory.plan.targets[0] < latency.value(full).value  # type: ignore[attr-defined]


def test_a_profile_without_narrow_parts_is_told_before_the_search() -> None:
    with pytest.raises(MissingPartError, match="measure these sizes as well"):
        Mgas(measure="latency_ms").trajectory(timed(narrow=False))


def test_what_a_profile_predicts_is_what_a_search_counts() -> None:
    """Of any widths, many ops to a node among them."""
    made = timed(narrow=True)
    latency = made.axes.objectives["latency_ms"]
    measure = Mgas(measure="latency_ms").trajectory(made).measure
    rng, interpolated = np.random.default_rng(0), []
    for _ in range(20):
        network = Architecture(TINY.narrowed(TINY.sample(rng), rng), made.skeleton)
        value = exact_value("latency_ms", latency, network)
        assert total(measure, network.genotype.types, made.skeleton, True) == pytest.approx(value.value)
        interpolated.append(value.detail["interpolated"])
    assert max(interpolated) > 0


class Own:
    """A plug-in's sum, of which nothing is known but its values: a picojoule for a multiply-add."""

    unit, direction, source, resource = "mJ", "minimize", "exact", "macs"

    def value(self, architecture: Architecture) -> Value:
        return Value(1e-9 * count(architecture).macs, "mJ", "exact", {})


def test_narrower_ops_cost_their_share_of_a_table() -> None:
    made = on()
    energy = Own()
    object.__setattr__(made, "axes", Axes({**made.axes.objectives, "energy_mj": energy}, {}))
    trajectory = Mgas(**QUICK, measure="energy_mj").trajectory(made)
    whole_cost = total(trajectory.measure, derived(trajectory), trajectory.target, whole=True)
    architecture = Architecture(Genotype("darts", derived(trajectory)), trajectory.target)
    assert whole_cost == pytest.approx(energy.value(architecture).value, rel=1e-6)
    types = derived(trajectory)
    narrow = {**types, "normal1": replace(types["normal1"], width=2)}
    ops = sum(edge.op.startswith("sep") for edge in types["normal1"].edges)
    less = ops * 2 * (9 * 4 + 4 * 4 - 9 * 2 - 2 * 2) * 36 * 1e-9  # of the ops alone, on maps of 6 x 6
    assert whole_cost - total(trajectory.measure, narrow, trajectory.target, True) == pytest.approx(less)


def derived(trajectory: Trajectory) -> dict[str, Any]:
    return {name: replace(cell, pool_norm=True) for name, cell in trajectory.full.items()}


@pytest.mark.parametrize(("objective", "measure", "times"), [(Flops(), "macs", 2), (Params(), "params", 1)])
def test_a_resource_counts_the_same_under_any_name(objective: Any, measure: str, times: int) -> None:
    made, bound = on(), 6000.0 if measure == "params" else 60_000.0
    object.__setattr__(made, "axes", Axes({**made.axes.objectives, "own": objective}, {"own": Bound(max=bound)}))
    own, plain = Mgas(measure="own").trajectory(made), Mgas(measure=measure).trajectory(made)
    ends = [reachable(each.measure, made.space, made.skeleton, made.skeleton, True) for each in (own, plain)]
    assert ends[0] == (times * ends[1][0], times * ends[1][1])
    if times == 1:
        assert plain.plan.targets == (bound,), "the job's bound, by whatever name"
    assert own.plan.targets == (bound,)


def test_energy_by_operations_is_counted_part_by_part() -> None:
    objective = ByOperations(1, 4.6, 162.5, "here")
    made, rng = on(TINY), np.random.default_rng(0)
    for _ in range(5):
        network = Architecture(TINY.narrowed(TINY.sample(rng), rng), made.skeleton)
        counted = total(ByParts(objective), network.genotype.types, made.skeleton, True)
        assert counted == pytest.approx(objective.value(network).value)


def test_at_another_target_a_profile_needs_what_its_networks_have() -> None:
    """Cells as wide as the space has them, behind the target's stem."""
    made = on(TINY)
    target = replace(made.skeleton, channels=2 * made.skeleton.channels)
    latency = FromProfile(profile_of(TINY, target, "all"), "ms")
    axes = Axes({**made.axes.objectives, "latency_ms": latency}, {})
    trajectory = Mgas(measure="latency_ms").trajectory(replace(made, axes=axes, targets=(target,)))
    rng = np.random.default_rng(0)
    network = Architecture(TINY.narrowed(TINY.sample(rng), rng), target)
    counted = total(trajectory.measure, network.genotype.types, target, True)
    assert counted == pytest.approx(latency.value(network).value)


def test_bounds_of_the_job_are_the_default_target() -> None:
    assert Mgas().trajectory(on(bounds={"params": Bound(max=1500.0)})).plan.targets == (1500.0,)
    middle = Mgas().trajectory(on()).plan.targets
    assert 1000 < middle[0] < 8000
    assert Mgas().trajectory(on(bounds={"params": Bound(max=1e6)})).plan.targets == middle, "a bound that says nothing"


@pytest.mark.parametrize(
    ("settings", "changed", "message"),
    [
        ({"targets": (10.0,)}, {}, "the smallest network costs"),
        ({"targets": (1e9,)}, {}, "the full one"),
        ({"targets": (2000.0, 1900.0, 1800.0)}, {"evaluations": 2}, "evaluations leaves 2"),
        (
            {"measure": "latency_ms"},
            {},
            "no cost of this job that adds up over ops; use one of macs, params, published",
        ),
        ({}, {"space": replace(SPACE, filters=False)}, "filters: true"),
        ({}, {"space": replace(SPACE, normal_ops=("skip_connect", "conv_3x3"))}, "no gates for op 'conv_3x3'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    settings: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises((InvalidSettingsError, IncompatibleSpaceError), match=message):
        Mgas(**settings).trajectory(on(**changed))


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(InvalidSettingsError, match="one for each of 3 stages; got 1"):
        Mgas(rho=(0.5,))
    with pytest.raises(InvalidSettingsError, match="fan_in: free and levels: cell"):
        DartsCells(filters=True)


def test_a_search_that_diverges_says_so() -> None:
    trajectory = Mgas(**{**QUICK, "lr": 1e30}, targets=(2000.0,)).trajectory(on())
    with pytest.raises(DivergedError, match="the search diverged"):
        run(trajectory)


@pytest.mark.slow
@pytest.mark.parametrize("finish", [True, False])
def test_time_that_is_up_ends_it_in_good_order(finish: bool) -> None:
    warnings: list[str] = []
    made = on(TINY, warnings)
    object.__setattr__(made, "time_is_up", lambda: True)
    trajectory = Mgas(**{**QUICK, "finish": finish}, targets=(3500.0, 2000.0)).trajectory(made)
    sizes = [size(genotype, made) for genotype in proposals(run(trajectory))]
    assert trajectory.done == 1 and "cells behind it have not learnt" in warnings[0]
    assert [sum(low <= each < high for each in sizes) for low, high in ((2000, 3500), (0, 2000))] == [finish] * 2


def test_steps_in_pieces_learn_from_the_whole_batch() -> None:
    made = on(TINY, epochs=2)
    object.__setattr__(made, "pieces", 2)
    trajectory = Mgas(**QUICK, targets=(3500.0,)).trajectory(made)
    events = run(trajectory)
    detail = next(event.known[0]["error"].detail for event in events if isinstance(event, Propose))
    assert detail["micro_batch"] == 30
    assert all(np.isfinite(event.metrics["loss"]) for event in events if isinstance(event, Progress))


def test_the_space_knows_widths() -> None:
    skeleton = SPACE.skeleton((3, 8, 8), 10)
    rng = np.random.default_rng(0)
    drawn = SPACE.sample(rng)
    SPACE.check(drawn)

    def with_width(name: str, width: int | None, middle: int | None = None) -> Genotype:
        cell = drawn.types[name]
        edges = [replace(edge, width=middle if edge.op.startswith("sep") else None) for edge in cell.edges]
        return replace(drawn, types={**drawn.types, name: replace(cell, width=width, edges=tuple(edges))})

    for name, width, middle in (("normal1", 2, 4), ("normal1", 4, None), ("reduce2", 4, 8), ("reduce3", 16, 16)):
        SPACE.check(with_width(name, width, middle))
    for name, width, middle in (("normal1", 1, None), ("normal1", 5, None), ("reduce2", 2, None), ("reduce3", 8, None)):
        with pytest.raises(InvalidGenotypeError, match="width"):
            SPACE.check(with_width(name, width, middle))
    broken = [edge for edge in drawn.types["reduce2"].edges if edge.op.startswith("sep")]
    assert broken, "of this seed"
    with pytest.raises(InvalidGenotypeError, match="sep_conv alone takes one, of 6 to 8"):
        SPACE.check(with_width("reduce2", 6, 4))
    with pytest.raises(InvalidGenotypeError, match="laid out"):
        replace(SPACE, filters=False).check(with_width("normal1", 4))
    narrow = with_width("normal1", 2, 4)
    for resource in ("params", "macs"):
        least, most = (
            getattr(count(Architecture(SPACE.extreme(skeleton, resource, high), skeleton)), resource)
            for high in (False, True)
        )  # type: ignore[arg-type]
        for _ in range(20):
            narrow = SPACE.mutate(SPACE.crossover(narrow, SPACE.sample(rng), rng), rng)
            SPACE.check(narrow)
            assert least <= getattr(count(Architecture(narrow, skeleton)), resource) <= most
    assert narrow.types["normal1"].width == 2, "children have the widths of a parent"


def test_published_cost_follows_masks() -> None:
    net = subnet(SPACE)
    full = cost_of(Published(), net, net.skeleton, False, ())
    gates = net.gates[0]
    gates.filters["2.0.sep_conv_3x3.middle"][:2] = False
    gates.filters["2.0.sep_conv_3x3.output"][:1] = False
    # c k^2 + c f1 + k^2 f1 + C1 f2, with c = C1 = 4: f1 goes from 4 to 2, f2 from 4 to 3
    assert full - cost_of(Published(), net, net.skeleton, False, ()) == 4 * 2 + 9 * 2 + 4 * 1
