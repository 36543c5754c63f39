"""The DARTS space with levels and searched connections (in the style of RC-DARTS): genotypes, costs, supernet."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import CONNECTIONS, PRE, RESOURCES, count, groups_for
from nas_core.counting import Wanted, architecture_of, built_cost
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.evaluation import Evaluator
from nas_core.events import Evaluated
from nas_core.ops import Norm, Shuffle, prepare
from nas_core.parts import Part, parts_of, parts_on
from nas_core.search import drive, start
from nas_core.settings import parse
from nas_core.spaces.darts import LEVEL_TYPES, DartsCells
from nas_core.supernet.network import SupernetCell
from tests.contracts.problems import problem

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = [
    pytest.param(levels, connection, fan_in, id=f"{levels}-{connection}-{fan_in}")
    for levels, connection, fan_in in product((1, 3, "cell"), (False, True), ("two", "any"))
]


def space_of(levels: Any, connection: bool = False, fan_in: Any = "two", **settings: Any) -> DartsCells:
    return DartsCells(**{"cells": 5, "channels": 4, **settings}, levels=levels, connection=connection, fan_in=fan_in)


def test_the_usual_space_is_as_it_was() -> None:
    """Hashes from before there were levels."""
    usual, rng = DartsCells(), np.random.default_rng(0)
    hashes = [Architecture(usual.sample(rng), usual.skeleton((3, 32, 32), 10)).hash for _ in range(2)]
    assert hashes == [
        "1180bc4402f76895a0692b5dfae534958c0057f3a615db3dd89f2ed900855a22",
        "a54d5fd2f0fe555508fa294a14a11f46abcaf6d00dd37b83941774011b2e4aec",
    ]


def test_types_stand_where_they_belong() -> None:
    stack = space_of(3, cells=8).skeleton((3, 32, 32), 10).cells
    assert stack == ("normal1", "normal1", "reduce1", "normal2", "normal2", "reduce2", "normal3", "normal3")
    deep = Counter(space_of(3).skeleton((3, 32, 32), 10, cells=20).cells)
    assert deep == {"normal1": 6, "normal2": 6, "normal3": 6, "reduce1": 1, "reduce2": 1}
    each = space_of("cell").skeleton((3, 32, 32), 10).cells
    assert each == ("normal1", "reduce2", "normal3", "reduce4", "normal5")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 3, "cells": 4}, "in three levels has at least 5; got 4"),
        ({"levels": 2}, "levels: Input should be 1, 3 or 'cell'"),
    ],
)
def test_stacks_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingsError, match=message):
        parse(DartsCells, settings, "space")


def test_cells_of_their_own_are_as_many_as_were_searched() -> None:
    with pytest.raises(InvalidSettingsError, match="each of the 5 searched cells has a type of its own"):
        space_of("cell").skeleton((3, 32, 32), 10, cells=6)


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "connection", "fan_in"), KINDS)
def test_variation_stays_inside_and_reaches_everything(levels: Any, connection: bool, fan_in: Any) -> None:
    space, rng = space_of(levels, connection, fan_in), np.random.default_rng(0)
    one, other = space.sample(rng), space.sample(rng)
    pre: set[str] = set()
    for _ in range(150):
        child = space.mutate(space.crossover(one, other, rng), rng)
        space.check(child)
        one, other = other, child
        pre |= {op for cell in space.sample(rng).types.values() for op in cell.pre}
    assert pre == (set(CONNECTIONS) if connection else {"conv_1x1"})


def test_a_mutation_changes_one_edge_or_one_connection() -> None:
    space, rng = space_of(3, True), np.random.default_rng(0)
    changes = Counter[str]()
    for _ in range(200):
        parent = space.sample(rng)
        child = space.mutate(parent, rng)
        edges = sum(len(set(child.types[name].edges) - set(parent.types[name].edges)) for name in LEVEL_TYPES)
        pre = sum(a != b for n in LEVEL_TYPES for a, b in zip(child.types[n].pre, parent.types[n].pre, strict=True))
        assert edges + pre == 1
        changes["pre" if pre else "edge"] += 1
    assert 20 < changes["pre"] < 70, "two of ten choices of a cell are connections"


@pytest.mark.parametrize(("levels", "connection", "fan_in"), KINDS)
def test_genotypes_go_to_selections_and_back(levels: Any, connection: bool, fan_in: Any) -> None:
    space = space_of(levels, connection, fan_in)
    genotype = space.sample(np.random.default_rng(1))
    strengths = {name: chosen.astype(float) for name, chosen in space.selection(genotype).items()}
    if fan_in == "any":  # an edge that is not there is one of ``none``
        for name in space.types:
            strengths[name][:, 0] += ~strengths[name].any(axis=1)
    assert space.derive(strengths) == genotype


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "connection", "fan_in"), KINDS)
def test_table_count_and_built_network_are_equal(levels: Any, connection: bool, fan_in: Any) -> None:
    """Property 1 of RC-DARTS, to the integer; channels that groups do and do not divide. Every kind is built once,
    the kinds together at all sizes.
    """
    rng = np.random.default_rng(0)
    sizes = list(product((2, 6, 16), [(3, 32, 32), (1, 13, 11), (3, 64, 64)]))
    kind = [tuple(each.values) for each in KINDS].index((levels, connection, fan_in))
    for number, (channels, input) in enumerate(sizes):
        space = space_of(levels, connection, fan_in, channels=channels)
        architecture = Architecture(space.sample(rng), space.skeleton(input, 7))
        cost = count(architecture)
        if number == kind % len(sizes):
            assert (cost.params, cost.macs) == built_cost(architecture)
        for resource in RESOURCES:
            table = space.cost_table(architecture.skeleton, resource)
            assert table.of(space.selection(architecture.genotype)) == getattr(cost, resource)


@pytest.mark.slow
def test_a_networks_tables_are_exact() -> None:
    """Property 1 on a network as large as those that are wanted."""
    space = space_of(3, True, cells=20, channels=36)
    architecture = Architecture(space.sample(np.random.default_rng(3)), space.skeleton((3, 32, 32), 10))
    cost = count(architecture)
    assert (cost.params, cost.macs) == built_cost(architecture)
    for resource in RESOURCES:
        table = space.cost_table(architecture.skeleton, resource)
        assert table.of(space.selection(architecture.genotype)) == getattr(cost, resource)


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "connection", "fan_in"), KINDS)
def test_extremes_bound_what_is_drawn(levels: Any, connection: bool, fan_in: Any) -> None:
    space, rng = space_of(levels, connection, fan_in), np.random.default_rng(0)
    skeleton = space.skeleton((3, 16, 16), 10)
    for resource in RESOURCES:
        low, high = (space.extreme(skeleton, resource, highest) for highest in (False, True))
        space.check(low)
        space.check(high)
        least, most = (getattr(count(Architecture(each, skeleton)), resource) for each in (low, high))
        for _ in range(30):
            parent = space.sample(rng)
            assert least <= getattr(count(Architecture(parent, skeleton)), resource) <= most
        for genotype, sign in ((low, 1), (high, -1)):  # no single change is beyond
            for _ in range(60):
                other = getattr(count(Architecture(space.mutate(genotype, rng), skeleton)), resource)
                assert sign * other >= sign * (least if sign > 0 else most)


@pytest.mark.parametrize(("resource", "floor"), [("params", 1_370_134), ("macs", 227_272_320)])
def test_connections_lower_the_floor(resource: Any, floor: int) -> None:
    """Property 11 of RC-DARTS: with fixed preprocessing nothing lies below these."""
    for connection in (False, True):
        space = space_of(3, connection, cells=8, channels=36)
        skeleton = space.skeleton((3, 32, 32), 10, cells=20)
        least = getattr(count(Architecture(space.extreme(skeleton, resource, False), skeleton)), resource)
        assert least < 0.5 * floor if connection else least == floor


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "connection"), [(1, True), (3, False), (3, True), ("cell", True)])
def test_the_parts_of_the_space_are_those_of_its_networks(levels: Any, connection: bool) -> None:
    space, rng = space_of(levels, connection), np.random.default_rng(0)
    skeleton = space.skeleton((3, 16, 16), 10)
    met: set[Part] = set()
    for _ in range(250):
        met |= set(parts_of(Architecture(space.sample(rng), skeleton)))
    assert met == parts_on(space, skeleton)


def test_what_is_not_of_the_space_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidGenotypeError, match="wants the cell types normal1, reduce1, normal2, reduce2 and nor"):
        space_of(3).check(space_of(1).sample(rng))
    connected = space_of(1, True).sample(rng)
    with pytest.raises(InvalidGenotypeError, match=r"preprocessing '.*' is not of this space; use conv_1x1"):
        space_of(1).check(connected)


def test_a_genotype_alone_is_counted_on_a_stack_of_its_levels() -> None:
    genotype = space_of(3, True).sample(np.random.default_rng(0))
    text = Genotype.key(genotype)
    assert len(architecture_of(text, Wanted(cells=11)).skeleton.cells) == 11
    own = space_of("cell").sample(np.random.default_rng(0))
    assert len(architecture_of(own.key(), Wanted()).skeleton.cells) == 5


# --- what stands between cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", CONNECTIONS)
def test_connections_have_one_shape_and_order_of_memory(op: str, stride: int) -> None:
    torch.manual_seed(0)
    module = prepare(op, 12, 8, stride, Norm())
    for size in (6, 7):
        x = torch.randn(3, 12, size, size).to(memory_format=torch.channels_last)
        out = module.to(memory_format=torch.channels_last)(x)  # type: ignore[call-overload]
        assert out.shape == (3, 8, -(-size // stride), -(-size // stride))
        assert out.is_contiguous(memory_format=torch.channels_last)
    relus = [layer for layer in module.modules() if isinstance(layer, nn.ReLU)]
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 1 and len(relus) <= 1


def test_a_shuffle_takes_groups_in_turn() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert Shuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("most", "widths", "groups"),
    [(8, (144, 36), 4), (8, (108, 36), 4), (8, (32, 16), 8), (8, (9, 3), 1), (4, (4, 4), 2)],
)
def test_groups_divide_what_is_there(most: int, widths: tuple[int, ...], groups: int) -> None:
    assert groups_for(most, *widths) == groups


# --- the supernet -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_shapes_of_gates() -> None:
    space = space_of(3, True)
    net = space.supernet(space.skeleton((3, 8, 8), 5))
    table = space.cost_table(net.skeleton, "params")
    assert net.shapes == {name: entries.shape for name, entries in table.entries.items()}
    assert len([name for name in net.shapes if not name.endswith(PRE)]) == 5
    assert net.shapes["normal1.pre"] == (2, len(CONNECTIONS))


def test_a_relaxed_connection_is_the_mixture_of_its_ops() -> None:
    torch.manual_seed(0)
    space = space_of(3, True)
    net = space.supernet(space.skeleton((3, 8, 8), 5)).double()
    cell = net.cells[0]
    assert isinstance(cell, SupernetCell)
    x = torch.randn(6, 12, 8, 8, dtype=torch.float64)
    gates = torch.randn(2, len(CONNECTIONS), dtype=torch.float64).softmax(dim=1)
    outputs = [op(x) for op in cell.pre[1]]  # type: ignore[union-attr]
    expected = sum(gate * out for gate, out in zip(gates[1], outputs, strict=True))
    assert torch.allclose(cell._prepared(1, x, gates, None), expected)
    only = np.eye(len(CONNECTIONS), dtype=bool)[[2, 3]]
    assert torch.equal(cell._prepared(1, x, None, only), outputs[3])


def test_gradients_of_a_level_reach_its_own_gates_alone() -> None:
    """Property 9 of RC-DARTS, its first half: five tensors, of which a level's cells move one."""
    torch.manual_seed(0)
    space = space_of(3, True, nodes=2)
    net = space.supernet(space.skeleton((3, 8, 8), 5))
    gates = {name: torch.full(shape, 1 / shape[1]).requires_grad_() for name, shape in net.shapes.items()}
    assert len({id(gate) for name, gate in gates.items() if not name.endswith(PRE)}) == 5
    states = [state.detach() for state in net.stem(torch.randn(4, 3, 8, 8))]
    for cell in net.cells:
        assert isinstance(cell, SupernetCell)
        names = cell.cell_type, cell.cell_type + PRE
        out = cell(states, gates[names[0]], None, gates[names[1]], None)
        found = torch.autograd.grad(out.square().sum(), list(gates.values()), allow_unused=True)
        assert {name for name, gradient in zip(gates, found, strict=True) if gradient is not None} == set(names)
        states = [states[-1], out.detach()]
    loss = F.cross_entropy(net(torch.randn(4, 3, 8, 8), gates), torch.arange(4))
    assert all(gradient is not None and gradient.any() for gradient in torch.autograd.grad(loss, list(gates.values())))


def test_what_is_not_active_is_not_computed_in_connections_either() -> None:
    torch.manual_seed(0)
    space = space_of("cell", True, nodes=2)
    net, active = space.supernet(space.skeleton((3, 8, 8), 5)), space.selection(space.sample(np.random.default_rng(0)))
    F.cross_entropy(net(torch.randn(4, 3, 8, 8), None, active), torch.arange(4)).backward()
    for cell in net.cells:
        assert isinstance(cell, SupernetCell)
        chosen = active[cell.cell_type + PRE]
        for place, ways in enumerate(cell.pre):
            for column, op in enumerate(ways):  # type: ignore[arg-type]
                learnt = [parameter.grad is not None for parameter in op.parameters()]
                assert all(learnt) if chosen[place, column] else not any(learnt)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("random", {"batch": 4, "evaluate": {"supernet_epochs": 1, "batch": 16, "draws": 2}}),
        ("nsga2", {"population": 4, "evaluate": {"epochs": 1, "batch": 16}}),
        ("darts", {"batch": 16}),
        ("tnd-nas", {"preferences": 2, "stages": 2, "batch": 16, "samples": 2, "rescored": 2, "max_skips": 1}),
    ],
)
def test_algorithms_search_levels_and_connections(name: str, given: dict[str, Any]) -> None:
    space = space_of(3, True, channels=2, nodes=2)
    on = problem(evaluations=6, epochs=2, widths=2, seeds=1, space=space)
    seen: set[str] = set()
    if name == "tnd-nas":
        given = {**given, "ranked_by": {"supernet": 1.0}}
    for event in drive(start(parse(algorithms[name], given, name), on), Evaluator(on)):
        if isinstance(event, Evaluated):
            space.check(event.evaluation.genotype)
            assert event.evaluation.failure is None
            seen.add(event.evaluation.genotype.key())
    assert len(seen) >= 3
