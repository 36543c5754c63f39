"""EnTranNAS and EnTranNAS-DST: what a faithful implementation must show, by the numbers of its specification."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core import checkpoint
from nas_core.algorithms.entrannas import EnTranNas, SparseTransit, Transit
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count, sites
from nas_core.differentiable.sparse import sparse_gates, sparsity, thresholds
from nas_core.engines import positions
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint
from nas_core.network import Cell, Network
from nas_core.ops import SEARCH_NORM
from nas_core.recipe import Recipe
from nas_core.search import Problem, drive
from nas_core.spaces.darts import TYPES, DartsCells
from nas_core.spaces.nasbench201 import NasBench201
from nas_core.supernet import Supernet
from nas_core.supernet.network import SupernetCell
from nas_core.supernet.weights import choice_of
from nas_core.training import Training
from tests.contracts.problems import problem
from tests.contracts.test_algorithms import shown

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = DartsCells(cells=5, channels=2, nodes=3)
FREE = replace(SPACE, fan_in="free")
WHOLE = DartsCells(cells=8, channels=2)
NODES = [[0, 1], [2, 3, 4], [5, 6, 7, 8]]
"""Rows of the edges into each node of SPACE."""


def made(space: Any = SPACE, **settings: Any) -> tuple[Supernet, Transit]:
    """With the plain supernet, whose ops can be watched."""
    on = problem(space=space)
    engine = EnTranNas(batch=16, fused=False, **settings).engine(on)
    assert isinstance(engine.relaxation, Transit)
    return engine.supernet, engine.relaxation


def randomised(relaxation: Transit, seed: int, alpha: float = 1.0, beta: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for table in relaxation.alpha.values():
            table.copy_(alpha * torch.randn(table.shape, generator=generator))
        if isinstance(relaxation, SparseTransit):
            for table in relaxation.beta.values():
                table.copy_(beta * torch.randn(table.shape, generator=generator))
    relaxation.sync()


def images(relaxation: Transit, count: int = 6) -> Tensor:
    shape = relaxation.problem.skeleton.input
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def transit_cells(net: Supernet, relaxation: Transit) -> list[tuple[int, SupernetCell]]:
    cells = [(at, cell) for at, cell in enumerate(net.cells) if at not in relaxation.engines]
    return [(at, cell) for at, cell in cells if isinstance(cell, SupernetCell)]


def calls(net: Supernet) -> tuple[list[tuple[int, str]], list[Any]]:
    """(position, name of the op) of every op that runs from now on, and the hooks."""
    ran: list[tuple[int, str]] = []
    hooks = [
        op.register_forward_hook(lambda *_, at=at, name=name: ran.append((at, name)))
        for at, cell in enumerate(net.cells)
        if isinstance(cell, SupernetCell)
        for name, op in cell.ops.items()
    ]
    return ran, hooks


def selected(cell: SupernetCell, chosen: np.ndarray) -> set[str]:
    return {cell._key(int(row), int(column)) for row, column in np.argwhere(chosen)}


def alpha_gradients(net: Supernet, relaxation: Transit) -> list[Tensor | None]:
    x = images(relaxation)
    loss = F.cross_entropy(net(x, *relaxation.choice()), torch.arange(len(x)) % 2)
    return list(torch.autograd.grad(loss, list(relaxation.alpha.values()), allow_unused=True))


@pytest.mark.parametrize("settings", [{}, {"space": FREE, "dst": True}], ids=["plain", "dst"])
def test_property_01_alpha_learns_from_engine_cells_alone(settings: dict[str, Any]) -> None:
    net, relaxation = made(**settings)
    randomised(relaxation, 0, beta=0.1)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in alpha_gradients(net, relaxation))
    mixing, _ = relaxation.choice()
    assert not isinstance(mixing, dict)
    for place, gates in enumerate(mixing):  # type: ignore[arg-type]
        assert (gates is not None and gates.requires_grad) == (place in relaxation.engines)
    relaxation.engines = ()
    assert alpha_gradients(net, relaxation) == [None, None]


def test_property_02_transit_cells_follow_at_once() -> None:
    net, relaxation = made(share_features=False)
    randomised(relaxation, 0)
    before = [parameter.clone() for parameter in net.parameters()]
    ran, _ = calls(net)
    net(images(relaxation), *relaxation.choice())
    seen = set(ran)
    row, column = (int(place) for place in np.argwhere(relaxation.selection["normal"])[0])
    other = next(c for c in range(1, 8) if c != column)
    alpha = relaxation.alpha["normal"]
    with torch.no_grad():  # the two logits change places
        alpha[row, [column, other]] = alpha[row, [other, column]]
    relaxation.after_step()
    ran.clear()
    net(images(relaxation), *relaxation.choice())
    for at, cell in transit_cells(net, relaxation):
        now = {name for place, name in ran if place == at}
        assert now == selected(cell, relaxation.selection[cell.cell_type])
        if cell.cell_type == "normal":
            assert f"edge{row}_{column}" in {name for place, name in seen if place == at} - now
            assert f"edge{row}_{other}" in now
    assert all(map(torch.equal, net.parameters(), before))


def test_property_02_every_alpha_step_hands_on_what_it_derives() -> None:
    engine = EnTranNas(batch=16, alpha_lr=3.0).engine(problem(space=SPACE))
    relaxation = engine.relaxation
    assert isinstance(relaxation, Transit)
    batch = next(engine.problem.splits.validation.batches(16, None, None, engine.problem.device))
    met = set()
    for _ in range(3):
        engine.alpha_step(batch, batch)
        assert relaxation.derived == SPACE.derive(relaxation.strengths())
        met.add(relaxation.derived.key())
    assert len(met) > 1


@pytest.mark.parametrize("share", [False, True])
def test_property_03_transit_cells_run_what_is_selected(share: bool) -> None:
    net, relaxation = made(WHOLE, share_features=share)
    for seed in range(2):
        randomised(relaxation, seed)
        ran, hooks = calls(net)
        net(images(relaxation), *relaxation.choice())
        times = Counter(ran)
        for at, cell in transit_cells(net, relaxation):
            here = {name: n for (place, name), n in times.items() if place == at}
            assert set(here) == selected(cell, relaxation.selection[cell.cell_type])
            assert set(here.values()) == {1} and len(here) <= 8 and (share or len(here) == 8)
        for hook in hooks:
            hook.remove()


def test_property_04_features_are_shared() -> None:
    net, relaxation = made(WHOLE)
    assert all(len(cell.ops) == 35 for cell in net.cells)  # type: ignore[arg-type]
    ran, _ = calls(net)
    net(images(relaxation), *relaxation.choice())
    per_cell = Counter(at for at, _ in ran)
    assert [per_cell[at] for at in sorted(relaxation.engines)] == [35, 35]
    assert all(per_cell[at] <= 8 for at, _ in transit_cells(net, relaxation))
    cell = net.cells[0]
    assert isinstance(cell, SupernetCell)
    before, gates = net.stem(images(relaxation)), torch.full((14, 8), 1 / 8)
    only = np.zeros((14, 8), dtype=bool)
    only[[row for row, (_, source) in enumerate(WHOLE.edges) if source == 1], 4] = True
    one = cell(before, gates, only).split(2, dim=1)
    with torch.no_grad():
        for parameter in cell.ops["source1_4"].parameters():
            parameter.mul_(torch.rand_like(parameter))
    other = cell(before, gates, only).split(2, dim=1)
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))  # all four targets


@pytest.mark.slow
@pytest.mark.parametrize("dst", [False, True])
def test_property_05_sharing_equals_copies(dst: bool) -> None:
    space = FREE if dst else SPACE
    shared, relaxation = made(space, share_features=True, dst=dst)
    apart, _ = made(space, share_features=False, dst=dst)
    state, given = apart.state_dict(), shared.state_dict()
    for name in state:
        parts = name.split(".")
        if parts[0] == "cells" and parts[2] == "ops":
            row, column = parts[3].removeprefix("edge").split("_")
            parts[3] = f"source{space.edges[int(row)][1]}_{column}"
        state[name] = given[".".join(parts)]
    apart.load_state_dict(state)
    randomised(relaxation, 3)
    with torch.no_grad():
        one, other = (net(images(relaxation), *relaxation.choice()) for net in (shared, apart))
    assert (one - other).abs().max() < 1e-5


def saved_bytes(net: Supernet, choice: Any, x: Tensor) -> int:
    """Distinct storage that is kept for the backward pass, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # an address is not given away twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(x, *choice)
    return sum(kept.values())


@pytest.mark.slow
def test_property_06_memory_of_activations() -> None:
    """At C=16, L=8 for images of 32x32: below DARTS by 4 times with shared features, by 2 without."""
    space = DartsCells()
    on = replace(problem(space=space), skeleton=space.skeleton((3, 32, 32), 10))
    x = torch.randn(2, 3, 32, 32)
    found = {}
    for share in (False, True):
        engine = EnTranNas(batch=2, share_features=share, fused=False).engine(on)
        assert isinstance(engine.relaxation, Transit)
        if not share:
            dense = {name: torch.full((14, 8), 1 / 8).requires_grad_() for name in TYPES}
            darts = saved_bytes(engine.supernet, (dense, None), x)
        found[share] = 0.0
        for seed in range(3):
            randomised(engine.relaxation, seed)
            found[share] += darts / saved_bytes(engine.supernet, engine.relaxation.choice(), x) / 3
    assert found[False] > 2 and found[True] > 4


def scalar_reference(p: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Equations 21 and 22, number by number."""
    q = np.zeros_like(p)
    for node, rows in enumerate(NODES):
        strongest = max(p[row, column] for row in rows for column in range(p.shape[1]))
        t = min(1 / (1 + np.exp(-beta[node])), 1 - 1e-6)
        for row in rows:
            for column in range(p.shape[1]):
                q[row, column] = max(0.0, p[row, column] / strongest - t)
            if q[row].sum() > 0:
                q[row] /= q[row].sum()
    return q


def test_property_07_the_formula() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        p = (torch.randn(9, 8, generator=generator) * 1.5).softmax(dim=1)
        for beta in (torch.randn(3, generator=generator), torch.full((3,), 30.0), torch.full((3,), -30.0)):
            q = sparse_gates(p, beta, NODES)
            reference = scalar_reference(p.double().numpy(), beta.double().numpy())
            assert np.abs(q.double().numpy() - reference).max() < 1e-5
            sums = q.sum(dim=1)
            assert bool(((sums == 0) | ((sums - 1).abs() < 1e-6)).all())
            alive = [(q[rows] != 0).sum().item() for rows in NODES]
            assert min(alive) >= 1
            if beta[0] == 30:
                assert alive == [1, 1, 1]
            if beta[0] == -30:
                assert sum(alive) == q.numel()
            single = (q != 0).sum(dim=1) == 1
            assert bool((q[single].max(dim=1).values == 1.0).all())


def test_property_07_gradients_reach_beta_through_edges_with_several_ops_alone() -> None:
    beta = torch.full((3,), -2.0, requires_grad=True)  # t = 0.119
    p = torch.tensor([[0.9, 0.1]] * 9)
    p[0] = torch.tensor([0.55, 0.45])
    q = sparse_gates(p, beta, NODES)
    assert [int((row != 0).sum()) for row in q] == [2] + [1] * 8
    (gradient,) = torch.autograd.grad((q * torch.arange(18.0).reshape(9, 2)).sum(), [beta])
    assert abs(gradient[0]) > 1e-3 and gradient[1:].abs().max() < 1e-5


def exported(net: Supernet, genotype: Genotype, place: int, space: DartsCells) -> Cell:
    """The stand-alone cell of a genotype with the weights of the supernet's cell at a position."""
    source = net.cells[place]
    assert isinstance(source, SupernetCell)
    where = sites({name: space.cell(name) for name in TYPES}, net.skeleton)[place]
    cell = Cell(where, replace(genotype.types[where.type], pool_norm=True), SEARCH_NORM)
    cell.pre.load_state_dict(source.pre.state_dict())
    for edge, op in zip(genotype.types[where.type].edges, cell.ops, strict=True):
        row, column = space.edges.index((edge.target, edge.source)), space.ops(where.type).index(edge.op)
        op.load_state_dict(source.ops[source._key(row, column)].state_dict())
    return cell


@pytest.mark.slow
def test_property_08_what_is_exported_equals_the_engine_cell() -> None:
    net, relaxation = made(FREE, dst=True)
    assert isinstance(relaxation, SparseTransit)
    sizes = set()
    for seed in range(12):
        randomised(relaxation, seed, alpha=(0.3, 1.0, 3.0)[seed % 3], beta=2.0)
        genotype = relaxation.derive()[0]
        FREE.check(genotype)
        mixing, active = relaxation.choice()
        for place in relaxation.engines:
            name = net.skeleton.cells[place]
            cell, engine = exported(net, genotype, place, FREE), net.cells[place]
            assert isinstance(engine, SupernetCell)
            before = [torch.randn(4, channels, 6, 6) for channels, _ in _inputs(net, place)]
            with torch.no_grad():
                expected = engine(before, mixing[place], active[name])  # type: ignore[index, call-overload]
                assert (cell(before, 0.0, None) - expected).abs().max() < 1e-5
                at_transit = engine(before, relaxation.transit[name], active[name])  # type: ignore[index, call-overload]
            assert torch.equal(at_transit, expected)
            assert len(cell.ops) == int(relaxation.selection[name].sum())
            sizes.add(len(cell.ops))
    assert min(sizes) <= 5 and max(sizes) > 14


def _inputs(net: Supernet, place: int) -> tuple[tuple[int, int], ...]:
    where = sites({name: FREE.cell(name) for name in TYPES}, net.skeleton)[place]
    assert {stride for _, stride in where.inputs} == {1}
    return where.inputs


def test_property_08_the_whole_search_network_is_the_derived_one() -> None:
    """Its logits are those of the network with inherited weights, bit for bit."""
    engine = EnTranNas(batch=16, dst=True).engine(problem(space=FREE))
    relaxation = engine.relaxation
    assert isinstance(relaxation, Transit)
    randomised(relaxation, 1)
    x = images(relaxation)
    with torch.no_grad():
        searched = engine.supernet(x, *relaxation.choice())
        derived = engine.supernet(x, *choice_of(FREE, relaxation.derive()[0], x.device))
    assert torch.equal(searched, derived)


def test_thresholds_learn_in_the_engine() -> None:
    """By the sparsity term, as far as Adam's first step goes; no decay pulls at them where nothing else does."""
    for strength, moved in ((1e3, 0.1), (0.0, 0.0)):
        settings = EnTranNas(batch=16, dst=True, alpha_lr=0.1, alpha_weight_decay=10.0, sparsity=strength)
        engine = settings.engine(problem(space=FREE))
        relaxation = engine.relaxation
        assert isinstance(relaxation, SparseTransit)
        with torch.no_grad():  # one op on each edge: no gradient of the loss reaches a threshold
            for name, alpha in relaxation.alpha.items():
                alpha.copy_(50.0 * F.one_hot(torch.full((len(alpha),), 3), alpha.shape[1]))
                relaxation.beta[name].fill_(0.0)
        relaxation.sync()
        batch = next(engine.train.batches(16, None, None, engine.problem.device))
        engine.alpha_step(batch, batch)
        for beta in relaxation.beta.values():
            assert torch.allclose(beta, torch.full_like(beta, moved), atol=1e-5)


def test_property_09_the_sparsity_term_prunes() -> None:
    _, relaxation = made(FREE, dst=True, sparsity=1.0)
    assert isinstance(relaxation, SparseTransit)
    randomised(relaxation, 0, beta=0.0)
    architect = torch.optim.Adam(list(relaxation.beta.values()), lr=0.2)
    alive, before = [int(sum(chosen.sum() for chosen in relaxation.selection.values()))], relaxation.beta["normal"]
    for _ in range(40):
        before = torch.cat([thresholds(beta.detach()) for beta in relaxation.beta.values()])
        penalty = relaxation.penalty()
        assert penalty is not None
        architect.zero_grad()
        penalty.backward()
        architect.step()
        relaxation.after_step()
        now = torch.cat([thresholds(beta.detach()) for beta in relaxation.beta.values()])
        assert bool((now > before).all())
        alive.append(int(sum(chosen.sum() for chosen in relaxation.selection.values())))
    assert alive == sorted(alive, reverse=True) and alive[-1] < alive[0]
    assert made(FREE, dst=True, sparsity=0.0)[1].penalty() is None
    betas = [torch.zeros(3), torch.zeros(3)]
    assert float(sparsity(betas)) == pytest.approx(np.log(2))


@pytest.mark.slow
def test_property_10_any_fan_in() -> None:
    _, relaxation = made(FREE, dst=True)
    widths: set[int] = set()
    together = 0
    for seed in range(10):
        randomised(relaxation, seed, alpha=0.7, beta=1.5)
        genotype = relaxation.derive()[0]
        FREE.check(genotype)
        architecture = Architecture(genotype, FREE.skeleton((1, 6, 6), 2))
        assert Architecture.from_json(architecture.to_json()) == architecture
        net = Network(architecture)
        assert sum(p.numel() for p in net.parameters()) == count(architecture).params
        table = FREE.cost_table(architecture.skeleton, "params")
        assert table.of(FREE.selection(genotype)) == count(architecture).params
        for cell in genotype.types.values():
            widths |= {len({edge.source for edge in cell.into(node)}) for node in range(2, 5)}
            together += any(edge.weight is not None for edge in cell.edges)
    assert {1, 2, 3} <= widths and together
    parts = relaxation.problem.splits
    training = Training(
        architecture, Recipe(epochs=1, batch=16), parts.train, parts.augmentation, 0, torch.device("cpu")
    )
    assert training.epoch() is not None


@pytest.mark.parametrize("dst", [False, True])
def test_property_11_inactive_weights_stay_bit_identical(dst: bool) -> None:
    engine = EnTranNas(batch=16, dst=dst, weight_decay=0.1).engine(problem(space=FREE if dst else SPACE))
    relaxation, net = engine.relaxation, engine.supernet
    assert isinstance(relaxation, Transit)
    batch = next(engine.problem.splits.train.batches(16, None, None, engine.problem.device))
    engine.learner.start(0)
    engine.learner.step(*batch, (None, None))  # everything has momentum now
    randomised(relaxation, 0, beta=1.0)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    engine.weight_step(*batch)
    untouched = 0
    for at, cell in transit_cells(net, relaxation):
        active = selected(cell, relaxation.selection[cell.cell_type])
        for name, op in cell.ops.items():
            for inner, parameter in op.named_parameters():
                same = torch.equal(parameter, before[f"cells.{at}.ops.{name}.{inner}"])
                assert same == (name not in active)
                untouched += same
    assert untouched


@pytest.mark.slow
def test_property_12_all_cells_engines_are_darts() -> None:
    net, relaxation = made(WHOLE, share_features=False, engines=tuple(range(8)), none=True)
    randomised(relaxation, 0)
    x = images(relaxation)
    with torch.no_grad():
        darts = net(x, {name: alpha.softmax(dim=1) for name, alpha in relaxation.alpha.items()})
        assert (net(x, *relaxation.choice()) - darts).abs().max() < 1e-6


# --- settings ---------------------------------------------------------------------------------------------------------


def test_positions_of_engines() -> None:
    skeleton = WHOLE.skeleton((1, 6, 6), 2).cells
    assert positions("first", skeleton, TYPES) == {0, 2}
    assert positions("last", skeleton, TYPES) == {7, 5}
    assert positions((2, 3, 4), skeleton, TYPES) == {2, 3, 4}
    for wanted, message in (
        ((8,), "no searched cell stands at 8; they stand at 0, 1"),
        ((0, 1), "none is of type 'reduce', whose alpha would learn nothing; its cells stand at 2, 5"),
    ):
        with pytest.raises(InvalidSettingsError, match=message):
            positions(wanted, skeleton, TYPES)
    stack = NasBench201(cells=5, channels=2).skeleton((1, 6, 6), 2).cells
    with pytest.raises(InvalidSettingsError, match="no searched cell stands at 1; they stand at 0, 2, 4"):
        positions((1,), stack, ["normal"])


def test_temperature_goes_from_one_to_the_other() -> None:
    _, relaxation = made(temperature=4.0, temperature_end=0.25)
    met = []
    for epoch in range(3):  # the problem has three
        relaxation.begin(0, epoch)
        met.append(relaxation.temperature)
    assert met == pytest.approx([4.0, 1.0, 0.25])
    randomised(relaxation, 0)
    gates, alpha = relaxation.gates()["normal"], relaxation.alpha["normal"][:, 1:]
    assert torch.allclose(gates[:, 1:], (alpha / 0.25).softmax(dim=1)) and bool((gates[:, 0] == 0).all())


@pytest.mark.parametrize(
    ("space", "settings", "kept"),
    [
        (SPACE, {}, False),
        (SPACE, {"none": True}, True),
        (NasBench201(cells=5, channels=2), {}, True),
        (NasBench201(cells=5, channels=2), {"none": False}, False),
        (FREE, {"dst": True}, False),
    ],
)
def test_none_is_a_candidate_where_an_edge_may_end_so(space: Any, settings: dict[str, Any], kept: bool) -> None:
    _, relaxation = made(space, **settings)
    column = space.ops("normal").index("none")
    assert bool((relaxation.gates()["normal"][:, column] > 0).all()) == kept


def test_what_dst_cannot_do_is_told() -> None:
    for space in (SPACE, NasBench201(cells=5, channels=2)):
        with pytest.raises(InvalidSettingsError, match="dst: needs .* darts with fan_in: free"):
            EnTranNas(dst=True).engine(problem(space=space))
    with pytest.raises(InvalidSettingsError, match="none: with dst thresholds leave ops out"):
        EnTranNas(dst=True, none=True).engine(problem(space=FREE))


def test_without_coefficients_transit_cells_are_sums() -> None:
    net, relaxation = made(FREE, dst=True, coefficients=False)
    randomised(relaxation, 0)
    genotype = relaxation.derive()[0]
    assert all(edge.weight is None for cell in genotype.types.values() for edge in cell.edges)
    mixing, _ = relaxation.choice()
    assert [gates is not None for gates in mixing] == [at in relaxation.engines for at in range(len(net.cells))]


@pytest.mark.slow
def test_dst_resumed_from_any_checkpoint_equals_never_stopping() -> None:
    """Of the plain method tests/contracts shows it."""
    algorithm = EnTranNas(batch=16, alpha_lr=0.3, dst=True, temperature=2.0, temperature_end=0.5, warmup_epochs=1)

    def on() -> Problem[Any]:
        return problem(space=FREE, seeds=2)

    whole, kept = [], {}
    for event in drive(algorithm.search(on()), Evaluator(on())):
        if isinstance(event, Checkpoint):
            kept[len(whole)] = checkpoint.copied(event.state)
        whole.append(shown(event))
    assert len(kept) == 3
    assert sum(event[0] == "evaluated" for event in whole) >= 6
    assert all(event[3] is None for event in whole if event[0] == "evaluated")
    for place, state in kept.items():
        torch.manual_seed(place)
        rest = [shown(event) for event in drive(algorithm.search(on(), state), Evaluator(on()))]
        assert rest == whole[place + 1 :]


# --- cells that take ops freely ---------------------------------------------------------------------------------------


def test_free_cells_vary_inside_their_space() -> None:
    rng = np.random.default_rng(0)
    one, other = FREE.sample(rng), FREE.sample(rng)
    several = 0
    for _ in range(200):
        child = FREE.mutate(one, rng)
        for name in TYPES:
            mine, theirs = (set(genotype.types[name].edges) for genotype in (child, one))
            assert len(mine - theirs) <= 1 and len(theirs - mine) <= 1
        assert child != one
        one, other = FREE.crossover(child, other, rng), child
        FREE.check(one)
        pairs = [(edge.target, edge.source) for cell in one.types.values() for edge in cell.edges]
        several += len(set(pairs)) < len(pairs)
    assert several


@pytest.mark.parametrize("resource", ["params", "macs"])
def test_free_extremes_bound_every_sample(resource: Any) -> None:
    skeleton, rng = FREE.skeleton((1, 6, 6), 2), np.random.default_rng(0)
    low, high = (
        getattr(count(Architecture(FREE.extreme(skeleton, resource, highest), skeleton)), resource)
        for highest in (False, True)
    )
    assert len(FREE.extreme(skeleton, "params", True).types["normal"].edges) == 9 * 7
    for _ in range(50):
        assert low <= getattr(count(Architecture(FREE.sample(rng), skeleton)), resource) <= high


def test_free_cells_refuse_an_op_twice() -> None:
    genotype = FREE.sample(np.random.default_rng(0))
    cell = genotype.types["normal"]
    twice = replace(genotype, types={**genotype.types, "normal": replace(cell, edges=(*cell.edges, cell.edges[0]))})
    with pytest.raises(InvalidGenotypeError, match=r"needs different \(input, op\), one at least"):
        FREE.check(twice)
    with pytest.raises(InvalidSettingsError, match="fan_in: 'two' has no cells with any number of ops on an edge"):
        SPACE.keep({name: np.ones((9, 8)) for name in TYPES})


def test_strengths_derive_one_op_an_edge_of_free_cells() -> None:
    rng = np.random.default_rng(0)
    strengths = {name: rng.dirichlet(np.ones(8), size=9) for name in TYPES}
    assert FREE.derive(strengths) == replace(SPACE, fan_in="any").derive(strengths)


def test_norms_of_exported_cells_are_those_of_the_search() -> None:
    net, relaxation = made(FREE, dst=True)
    cell = exported(net, relaxation.derive()[0], 0, FREE)
    assert not any(norm.affine for norm in cell.modules() if isinstance(norm, nn.BatchNorm2d))
