"""The DARTS space and the steps of the algorithm; the properties of its specification: test_darts_properties."""

import numpy as np
import pytest
import torch

from nas_core.algorithms.darts import Darts
from nas_core.architecture import Edge
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.settings import parse
from nas_core.spaces.darts import TYPES, DartsCells, from_darts
from tests.contracts.problems import problem
from tests.nas_core.published import DARTS_V2

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = DartsCells()


def test_variation_stays_inside_the_space() -> None:
    rng = np.random.default_rng(0)
    one, other = SPACE.sample(rng), SPACE.sample(rng)
    for _ in range(200):
        child = SPACE.mutate(SPACE.crossover(one, other, rng), rng)
        SPACE.check(child)
        one, other = other, child


def test_a_mutation_changes_one_edge() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        parent = SPACE.sample(rng)
        child = SPACE.mutate(parent, rng)
        changed = sum(len(set(child.types[name].edges) - set(parent.types[name].edges)) for name in TYPES)
        assert changed == 1


def test_derivation_by_hand() -> None:
    strengths = {name: np.zeros((14, 8)) for name in TYPES}
    # node 3 has edges 2, 3, 4 (from 0, 1, 2): the two strongest are from 2 and 0
    strengths["normal"][2, 4], strengths["normal"][3, 5], strengths["normal"][4, 6] = 0.3, 0.1, 0.9
    node = SPACE.derive(strengths).types["normal"].into(3)
    assert node == (Edge(3, 0, "sep_conv_3x3"), Edge(3, 2, "dil_conv_3x3"))


def test_ties_go_to_the_smaller_index() -> None:
    node = SPACE.derive({name: np.full((14, 8), 0.125) for name in TYPES}).types["normal"].into(5)
    assert node == (Edge(5, 0, "max_pool_3x3"), Edge(5, 1, "max_pool_3x3"))


def test_genotypes_go_to_selections_and_back() -> None:
    genotype = SPACE.sample(np.random.default_rng(1))
    strengths = {name: chosen.astype(float) for name, chosen in SPACE.selection(genotype).items()}
    assert SPACE.derive(strengths) == genotype


def test_published_form_is_read() -> None:
    genotype = from_darts(DARTS_V2)
    SPACE.check(genotype)
    assert genotype.types["reduce"].into(5) == (Edge(5, 1, "max_pool_3x3"), Edge(5, 2, "skip_connect"))
    with pytest.raises(InvalidGenotypeError, match="lists 3 ops; two for each node"):
        from_darts({**DARTS_V2, "normal": DARTS_V2["normal"][:3]})


def test_published_form_by_node_takes_any_number_of_ops_and_any_concat() -> None:
    def grouped(name: str) -> list[list[list[object]]]:
        return [DARTS_V2[name][start : start + 2] for start in range(0, 8, 2)]

    document = {**DARTS_V2, "normal": grouped("normal"), "reduce": grouped("reduce")}
    assert from_darts(document) == from_darts(DARTS_V2)
    normal = [[["sep_conv_3x3", 0], ["skip_connect", 0], ["dil_conv_3x3", 1]], [["max_pool_3x3", 2]]]
    found = from_darts({**document, "normal": normal, "normal_concat": [3]})
    cell = found.types["normal"]
    assert (cell.nodes, cell.concat) == (2, (3,))
    assert cell.into(2) == (Edge(2, 0, "sep_conv_3x3"), Edge(2, 0, "skip_connect"), Edge(2, 1, "dil_conv_3x3"))
    assert cell.into(3) == (Edge(3, 2, "max_pool_3x3"),)
    assert found.types["reduce"] == from_darts(DARTS_V2).types["reduce"]
    for wrong, message in (
        ({"normal": [*normal, []]}, "node 4 has no input"),
        ({"normal": [*normal, ["skip_connect", 0]]}, "/normal/2/0: Input should be a valid"),
        ({"reduce": DARTS_V2["reduce"]}, "/reduce/0/0: Input should be a valid"),
        ({"normal": [[["skip_connect", 2]]]}, "edge 2->2 runs backwards"),
        ({"normal": [[["skip_connect", "0"]]]}, "/normal/0/0/1: Input should be a valid integer"),
    ):
        with pytest.raises(InvalidGenotypeError, match=message):
            from_darts({**document, **wrong})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cells": 0}, "cells: Input should be greater than or equal to 3 .got 0"),
        ({"depth": 3}, "depth: Unexpected keyword argument"),
        ({"cells": "8"}, "cells: Input should be a valid integer"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSettingsError, match=message):
        parse(DartsCells, settings, "space")


def test_unknown_ops_are_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="unknown op 'warp'; known: avg_pool_3x3"):
        parse(DartsCells, {"normal_ops": ["warp"]}, "space")


def test_a_space_of_one_genotype_mutates_into_itself() -> None:
    space = DartsCells(nodes=1, normal_ops=("skip_connect",), reduce_ops=("skip_connect",))
    rng = np.random.default_rng(0)
    only = space.sample(rng)
    assert space.mutate(only, rng) == only


def test_a_stack_without_normal_cells_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="at least 3; got 2"):
        SPACE.skeleton((3, 32, 32), 10, cells=2)


@pytest.mark.parametrize("depth", [3, 4, 5, 8, 14, 20])
def test_reduction_cells_stand_at_a_third_and_two_thirds(depth: int) -> None:
    cells = SPACE.skeleton((3, 32, 32), 10, cells=depth).cells
    assert {place for place, name in enumerate(cells) if name == "reduce"} == {depth // 3, 2 * depth // 3}


def test_alpha_steps_leave_weights_and_weight_steps_leave_alpha() -> None:
    run = Darts(batch=16, alpha_lr=0.1).engine(problem())
    images, labels = next(run.problem.splits.train.batches(16, run.chance, None, run.problem.device))
    before = {name: parameter.detach().clone() for name, parameter in run.supernet.named_parameters()}
    alpha = {name: tensor.detach().clone() for name, tensor in run.relaxation.alpha.items()}
    run.alpha_step((images, labels), (images, labels))
    assert all(torch.equal(parameter, before[name]) for name, parameter in run.supernet.named_parameters())
    assert all(parameter.grad is None for parameter in run.supernet.parameters())
    assert not torch.equal(run.relaxation.alpha["reduce"], alpha["reduce"])
    alpha = {name: tensor.detach().clone() for name, tensor in run.relaxation.alpha.items()}
    run.learner.start(0)
    run.weight_step(images, labels)
    assert all(torch.equal(tensor, alpha[name]) for name, tensor in run.relaxation.alpha.items())
    assert not torch.equal(next(iter(run.supernet.parameters())), next(iter(before.values())))
