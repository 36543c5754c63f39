"""The space nasbench201: its costs are the benchmark's for every cell, and its networks are what the table counts."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.architecture import Architecture, CellType, Edge, Genotype, Skeleton, skeleton_to_json
from nas_core.costs import count, sites
from nas_core.counting import built_cost
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError, UnknownNameError
from nas_core.network import Cell, Network
from nas_core.ops import SEARCH_NORM, make_op
from nas_core.seeds import read_genotype
from nas_core.settings import parse
from nas_core.spaces.nasbench201 import (
    BENCHMARK_OPS,
    EDGES,
    REDUCTION,
    NasBench201,
    cell,
    from_arch,
    genotype_of,
    is_connected,
    ops_of,
    to_arch,
)
from nas_core.stem import NormClassifier
from nas_core.supernet.network import SupernetCell

SPACE = NasBench201()
SKELETON = SPACE.skeleton((3, 32, 32), 10)
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
"""Index 9930 of the benchmark: 1.289 M params, 184.73 M multiply-adds as published."""
DEAD = "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_1x1~1|none~2|"
"""Its ops lead to and from nodes that the other end does not reach."""


def formula(ops: tuple[str, ...], classes: int = 10) -> tuple[int, int]:
    """Params and MACs by the benchmark's closed formulas, without the classifier's bias among the MACs."""
    ones, threes = ops.count("conv_1x1"), ops.count("conv_3x3")
    cells = sum(ones * (c * c + 2 * c) + threes * (9 * c * c + 2 * c) for c in (16, 32, 64))
    linear = 65 * (classes - 10)
    macs = 7_783_050 + 15 * (262_144 * ones + 2_359_296 * threes) + linear - classes
    return 73_306 + 5 * cells + linear, macs


def every_cell() -> Iterator[tuple[str, ...]]:
    return product(BENCHMARK_OPS, repeat=len(EDGES))


@pytest.mark.parametrize("classes", [10, 100])
def test_costs_of_all_cells_are_those_of_the_closed_formula(classes: int) -> None:
    skeleton = SPACE.skeleton((3, 32, 32), classes)
    columns = np.array(list(product(range(len(BENCHMARK_OPS)), repeat=len(EDGES))))
    expected = np.array([formula(ops, classes) for ops in every_cell()])
    assert len(columns) == 15_625
    for place, resource in enumerate(("params", "macs")):
        table = SPACE.cost_table(skeleton, resource)  # type: ignore[arg-type]
        totals = table.constant + table.entries["normal"][np.arange(len(EDGES)), columns].sum(axis=1)
        assert (totals == expected[:, place]).all()


def test_cells_counted_one_by_one_are_those_of_the_closed_formula_disconnected_ones_too() -> None:
    cells = list(every_cell())
    for index in np.random.default_rng(0).choice(len(cells), 300, replace=False):
        cost = count(Architecture(genotype_of(cells[index]), SKELETON))
        assert (cost.params, cost.macs) == formula(cells[index])


def test_published_figures() -> None:
    cost = count(Architecture(from_arch(BEST), SKELETON))
    assert (round(cost.params / 1e6, 3), round((cost.macs + 10) / 1e6, 2)) == (1.289, 184.73)


def test_the_benchmarks_own_table(nasbench201: Path) -> None:
    with gzip.open(nasbench201, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15_625
    table = {resource: SPACE.cost_table(SKELETON, resource) for resource in ("params", "macs")}  # type: ignore[arg-type]
    for row in rows:
        genotype = from_arch(row["arch"])
        assert to_arch(genotype) == row["arch"]
        assert is_connected(ops_of(genotype)) == (row["connected"] == "1")
        chosen = SPACE.selection(genotype)["normal"]
        params, macs = (table[name].of({"normal": chosen}) for name in table)
        assert params == round(float(row["params_m"]) * 1e6)
        assert macs + 10 == round(float(row["flops_m"]) * 1e6)


def test_as_many_cells_are_disconnected_as_published() -> None:
    assert sum(not is_connected(ops) for ops in every_cell()) == 341


@pytest.mark.slow
def test_built_networks_of_other_sizes_agree() -> None:
    small = NasBench201(cells=8, channels=6)
    for input, stem in (((1, 27, 35), "auto"), ((3, 64, 64), "auto"), ((3, 32, 32), "imagenet")):
        architecture = Architecture(from_arch(BEST), small.skeleton(input, 7, stem=stem))
        cost = count(architecture)
        assert built_cost(architecture) == (cost.params, cost.macs)


def test_the_network_is_the_benchmarks() -> None:
    network = Network(Architecture(from_arch(BEST), SKELETON)).eval()
    kinds = [type(module) for module in network.stem.first]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d]
    assert isinstance(network.classifier, NormClassifier)
    assert [len(cell.ops) for cell in network.cells] == [*[6] * 5, 3, *[6] * 5, 3, *[6] * 5]  # type: ignore[arg-type]
    assert all(isinstance(pre, nn.Identity) for cell in network.cells for pre in cell.pre)  # type: ignore[union-attr]
    assert all(norm.affine for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))
    assert network.stem(torch.randn(2, 3, 32, 32))[1].shape == (2, 16, 32, 32)
    block = network.cells[5]
    assert isinstance(block, Cell)
    x = torch.randn(2, 16, 32, 32)
    first, down, second = block.ops
    expected = second(first(x)) + F.conv2d(F.avg_pool2d(x, 2), down[1].weight)  # type: ignore[index,union-attr,arg-type]
    assert torch.allclose(block([x], 0.0, None), expected, atol=1e-5)
    with torch.no_grad():
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_pools_of_a_cell_have_no_norm_and_leave_padding_out() -> None:
    network = Network(Architecture(genotype_of(("avg_pool_3x3",) * 6), NasBench201(cells=5).skeleton((3, 8, 8), 4)))
    for pool in (op for place in (0, 2, 4) for op in network.cells[place].ops):  # type: ignore[union-attr]
        assert isinstance(pool, nn.AvgPool2d)
        assert not pool.count_include_pad


def test_gradient_reaches_every_weight_on_a_way_to_the_output() -> None:
    torch.manual_seed(0)
    network = Network(Architecture(from_arch(BEST), NasBench201(cells=5, channels=4).skeleton((3, 8, 8), 4)))
    F.cross_entropy(network(torch.randn(8, 3, 8, 8)), torch.arange(8) % 4).backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in network.parameters())  # type: ignore[union-attr]


# --- the supernet ---------------------------------------------------------------------------------------------


TINY = NasBench201(cells=5, channels=4)
TINY_SKELETON = TINY.skeleton((3, 8, 8), 5)


def reference(net: Any, x: Tensor, gates: Tensor) -> Tensor:
    """The relaxed network written out op by op: every op computed, ``none`` as zeros, weighted, summed."""
    state = net.stem(x)[-1]
    for site, inner in zip(sites({"normal": cell(), "reduce": REDUCTION}, TINY_SKELETON), net.cells, strict=True):
        if isinstance(inner, Cell):
            state = inner([state], 0.0, None)
            continue
        assert isinstance(inner, SupernetCell)
        nodes = [state]
        for node in (1, 2, 3):
            total = torch.zeros(())
            for row, (target, source) in enumerate(EDGES):
                for column, name in enumerate(BENCHMARK_OPS if target == node else ()):
                    op = make_op(name, site.channels, 1, SEARCH_NORM).double()
                    if name != "none":
                        op.load_state_dict(inner.ops[f"edge{row}_{column}"].state_dict())
                    total = total + gates[row, column] * op(nodes[source])
            nodes.append(total)
        state = nodes[-1]
    out: Tensor = net.classifier(state)
    return out


def test_dense_supernet_equals_the_op_by_op_reference() -> None:
    torch.manual_seed(0)
    net = TINY.supernet(TINY_SKELETON).double()
    assert net.shapes == {"normal": (6, 5)}
    gates = torch.randn(6, 5, dtype=torch.float64).softmax(dim=1).requires_grad_()
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    mine, theirs = net(x, {"normal": gates}), reference(net, x, gates)
    assert (mine - theirs).abs().max() < 1e-9
    labels = torch.arange(6) % 5
    (of_mine,) = torch.autograd.grad(F.cross_entropy(mine, labels), gates, retain_graph=True)
    (of_theirs,) = torch.autograd.grad(F.cross_entropy(theirs, labels), gates)
    assert (of_mine - of_theirs).abs().max() < 1e-9


def test_a_path_of_the_supernet_computes_its_ops_alone() -> None:
    net = TINY.supernet(TINY_SKELETON)
    genotype = from_arch(BEST)
    ran: list[str] = []
    first = net.cells[0]
    assert isinstance(first, SupernetCell)
    for name, op in first.ops.items():
        op.register_forward_hook(lambda *_, name=name: ran.append(name))
    net(torch.randn(4, 3, 8, 8), None, TINY.selection(genotype))
    expected = [f"edge{row}_{BENCHMARK_OPS.index(op)}" for row, op in enumerate(ops_of(genotype))]  # type: ignore[arg-type]
    assert sorted(ran) == sorted(expected)


# --- chance, derivation, extremes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_arch_strings_both_ways_and_as_a_seed() -> None:
    assert to_arch(from_arch(BEST)) == BEST
    assert to_arch(from_arch(f" {DEAD}\n")) == DEAD
    assert read_genotype({"arch": BEST}) == from_arch(BEST)
    keys = {genotype_of(ops).key() for ops in every_cell()}
    assert len(keys) == 15_625
    architecture = Architecture(from_arch(BEST), SKELETON)
    assert Architecture.from_json(json.dumps(architecture.to_json())) == architecture


def test_samples_mutants_and_children_are_connected_cells_of_the_space() -> None:
    rng = np.random.default_rng(0)
    for space in (SPACE, NasBench201(normal_ops=("none", "skip_connect"))):
        parents = [space.sample(rng) for _ in range(200)]
        for one, other in pairwise(parents):
            mutant, child = space.mutate(one, rng), space.crossover(one, other, rng)
            for genotype in (one, mutant, child):
                space.check(genotype)
            assert sum(a != b for a, b in zip(ops_of(one), ops_of(mutant), strict=True)) == 1
            assert all(c in (a, b) for a, b, c in zip(ops_of(one), ops_of(other), ops_of(child), strict=True))


def test_a_space_of_one_op_has_nothing_to_change() -> None:
    space, rng = NasBench201(normal_ops=("conv_3x3",)), np.random.default_rng(0)
    only = space.sample(rng)
    assert space.mutate(only, rng) == space.crossover(only, only, rng) == only


@pytest.mark.parametrize("ops", [BENCHMARK_OPS, ("none", "conv_1x1", "conv_3x3"), ("conv_3x3", "conv_1x1")])
@pytest.mark.parametrize("resource", ["params", "macs"])
def test_extremes_are_those_of_all_connected_cells(ops: Any, resource: Any) -> None:
    space = NasBench201(normal_ops=ops)
    table = space.cost_table(SKELETON, resource)
    costs = []
    for columns in product(range(len(ops)), repeat=len(EDGES)):
        if is_connected([ops[column] for column in columns]):
            costs.append(table.constant + int(table.entries["normal"][np.arange(len(EDGES)), columns].sum()))
    for highest, expected in ((False, min(costs)), (True, max(costs))):
        genotype = space.extreme(SKELETON, resource, highest)
        space.check(genotype)
        assert getattr(count(Architecture(genotype, SKELETON)), resource) == expected


def test_derive_takes_the_strongest_ops_and_the_best_connected_cell_otherwise() -> None:
    rng = np.random.default_rng(0)
    mended = 0
    for _ in range(30):
        logits = rng.normal(size=(6, 5))
        logits[:, 0] += 2.0  # none
        strengths = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        strongest = tuple(BENCHMARK_OPS[column] for column in strengths.argmax(axis=1))
        derived = ops_of(SPACE.derive({"normal": strengths}))
        if is_connected(strongest):
            assert derived == strongest
            continue
        mended += 1
        logs = np.log(strengths)
        best = max(
            (ops for ops in every_cell() if is_connected(ops)),
            key=lambda ops: sum(logs[row, BENCHMARK_OPS.index(op)] for row, op in enumerate(ops)),  # type: ignore[arg-type]
        )
        assert derived == best
        if mended == 3:
            break
    assert mended == 3
    SPACE.check(SPACE.derive({"normal": np.full((6, 5), 0.2)}))
    SPACE.check(SPACE.derive({"normal": np.eye(5)[[0] * 6]}))


# --- what is refused ------------------------------------------------------------------------------------------


def test_disconnected_cells_are_refused() -> None:
    with pytest.raises(InvalidGenotypeError, match=r"the cell \|none~0\|.* does not connect its input with its output"):
        SPACE.check(from_arch(DEAD))


def normal(**changes: Any) -> Genotype:
    whole = {"edges": cell(("conv_1x1",) * 6).edges, "inputs": 1, "nodes": 3, "combine": "last", "concat": ()}
    return Genotype(
        "nasbench201", {"normal": CellType(**{**whole, "pre": ("identity",), **changes}), "reduce": REDUCTION}
    )


@pytest.mark.parametrize(
    ("genotype", "words"),
    [
        (Genotype("darts", normal().types), "space 'nasbench201' wants the cell types normal and reduce; got space"),
        (Genotype("nasbench201", {"normal": cell(("none",) * 6)}), "got space 'nasbench201' with normal"),
        (normal(pre=("conv_1x1",)), "is not laid out as in NAS-Bench-201"),
        (normal(edges=cell(("conv_1x1",) * 6).edges[:-1]), "is not laid out as in NAS-Bench-201"),
        (normal(edges=(*cell(("conv_1x1",) * 6).edges[:-1], Edge(3, 2, "conv_1x1", weight=0.5))), "is not laid out"),
        (genotype_of(("sep_conv_3x3",) * 6), "op 'sep_conv_3x3' is not of this space; use none, skip_connect"),
        (
            Genotype("nasbench201", {"normal": cell(("conv_1x1",) * 6), "reduce": cell(("conv_1x1",) * 6)}),
            "cell 'reduce' is not the residual block",
        ),
    ],
)
def test_what_lies_outside_is_refused(genotype: Genotype, words: str) -> None:
    with pytest.raises(InvalidGenotypeError, match=words):
        SPACE.check(genotype)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no cell of NAS-Bench-201; it is written"),
        ("|none~0|", "is no cell of NAS-Bench-201"),
        (BEST[:-1], "is no cell of NAS-Bench-201"),
        (BEST.replace("~2", "~1"), "is no cell of NAS-Bench-201"),
        (BEST + "+|none~0|", "is no cell of NAS-Bench-201"),
        (
            BEST.replace("skip_connect", "sep_conv_3x3"),
            "op 'sep_conv_3x3' is not of NAS-Bench-201; use none, .*nor_conv",
        ),
    ],
)
def test_arch_strings_that_are_none(text: str, words: str) -> None:
    with pytest.raises(InvalidGenotypeError, match=words):
        from_arch(text)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"arch": BEST, "space": "nasbench201"}, "unknown field 'space'; a cell of NAS-Bench-201 is one string"),
        ({"arch": [BEST]}, "its arch is .*; a cell of NAS-Bench-201 is one string"),
    ],
)
def test_seeds_that_are_no_arch_strings(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidGenotypeError, match=words):
        read_genotype(document)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cells": 16}, "three equal stages and two reduction blocks, 3 N . 2 cells: 5, 8, .*; got 16"),
        ({"normal_ops": ["none"]}, "normal_ops: needs distinct ops, at least one besides 'none'"),
        ({"normal_ops": ["conv_1x1", "conv_1x1"]}, "normal_ops: needs distinct ops"),
        ({"normal_ops": ["sep_conv_3x3"]}, "normal_ops"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSettingsError, match=words):
        parse(NasBench201, settings, "space")


def test_a_target_of_stages_that_are_not_equal_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="got 18"):
        SPACE.skeleton((3, 32, 32), 10, cells=18)


# --- what the skeleton has learnt -----------------------------------------------------------------------------


def test_skeletons_without_a_frame_are_written_as_before() -> None:
    assert set(skeleton_to_json(Skeleton(("a",), 4, "cifar", (3, 8, 8), 2))) == {
        "cells",
        "channels",
        "stem",
        "input",
        "classes",
    }
    assert skeleton_to_json(SKELETON)["frame"] == "residual"


def bare(op: str, pre: str = "identity", reduction: bool = False) -> CellType:
    return CellType((Edge(1, 0, op),), 1, 1, reduction, "last", (), (pre,))


@pytest.mark.parametrize("op", ["skip_connect", "max_pool_3x3", "none"])
def test_an_op_that_keeps_channels_cannot_join_two_widths(op: str) -> None:
    architecture = Architecture(Genotype("x", {"a": bare(op)}), Skeleton(("a",), 4, "cifar", (3, 8, 8), 2))
    words = f"op '{op}' gives as many channels as it takes, but stands between nodes of 12 and 4"
    with pytest.raises(InvalidGenotypeError, match=words):
        count(architecture)
    with pytest.raises(InvalidGenotypeError, match=words):
        Network(architecture)


@pytest.mark.parametrize("op", ["conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "conv_7x1_1x7", "pool_conv_1x1"])
@pytest.mark.parametrize("reduction", [False, True])
def test_an_op_from_an_input_that_nothing_prepares(op: str, reduction: bool) -> None:
    cells = {"a": bare(op, reduction=reduction)}
    architecture = Architecture(Genotype("x", cells), Skeleton(("a",), 4, "cifar", (3, 9, 8), 2))
    cost = count(architecture)
    assert built_cost(architecture) == (cost.params, cost.macs)


def test_a_preprocessing_that_is_not_known_is_refused() -> None:
    architecture = Architecture(
        Genotype("x", {"a": bare("conv_3x3", "warp")}), Skeleton(("a",), 4, "cifar", (3, 8, 8), 2)
    )
    with pytest.raises(UnknownNameError, match="unknown preprocessing op 'warp'; known: conv_1x1, "):
        count(architecture)


def test_an_input_of_another_size_must_be_prepared() -> None:
    two = CellType((Edge(2, 0, "conv_3x3"), Edge(2, 1, "conv_3x3")), 2, 1, concat=(2,), pre=("identity", "conv_1x1"))
    cells = {"reduce": bare("conv_3x3", reduction=True), "two": two}
    architecture = Architecture(Genotype("x", cells), Skeleton(("reduce", "two"), 4, "cifar", (3, 8, 8), 2))
    with pytest.raises(InvalidGenotypeError, match=r"an input map of \(8, 8\) cannot be taken as it comes"):
        count(architecture)
