"""The supernet of gates and selection: equal to an op-by-op reference; what is not active does not exist."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.costs import sites
from nas_core.data import TensorSplit
from nas_core.ops import SEARCH_NORM, make_op, preprocess
from nas_core.spaces.darts import TYPES, DartsCells
from nas_core.supernet import Supernet
from nas_core.supernet.network import SupernetCell
from nas_core.supernet.weights import AveragedWeights, WeightLearner, supernet_errors

SPACE = DartsCells(cells=4, channels=4, nodes=3)
SKELETON = SPACE.skeleton((3, 8, 8), 5)


def supernet(seed: int = 0, share: bool = False) -> Supernet:
    torch.manual_seed(seed)
    return SPACE.supernet(SKELETON, share_features=share)


def images(seed: int = 1, count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def softmax_gates(seed: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = len(SPACE.edges), len(SPACE.normal_ops)
    return {name: torch.randn(shape, generator=generator).softmax(dim=1) for name in TYPES}


class Reference(nn.Module):
    """The published relaxed network written out op by op: every op computed, ``none`` as zeros, weighted, summed."""

    def __init__(self, original: Supernet) -> None:
        super().__init__()
        self.stem, self.classifier = original.stem, original.classifier
        self.where = sites({name: SPACE.cell(name) for name in TYPES}, SKELETON)
        self.cells = nn.ModuleList()
        for site, cell in zip(self.where, original.cells, strict=True):
            assert isinstance(cell, SupernetCell)
            shape = SPACE.cell(site.type)
            pre = nn.ModuleList(preprocess(c, site.channels, s, SEARCH_NORM) for c, s in site.inputs)
            pre.load_state_dict(cell.pre.state_dict())
            ops = nn.ModuleList()
            for row, (_, source) in enumerate(SPACE.edges):
                for column, name in enumerate(SPACE.ops(site.type)):
                    op = make_op(name, site.channels, site.stride(shape, source), SEARCH_NORM, pool_norm=True)
                    if name != "none":
                        op.load_state_dict(cell.ops[f"edge{row}_{column}"].state_dict())
                    ops.append(op)
            self.cells.append(nn.ModuleDict({"pre": pre, "ops": ops}))

    def forward(self, x: Tensor, gates: dict[str, Tensor]) -> Tensor:
        before, last = self.stem(x)
        for site, cell in zip(self.where, self.cells, strict=True):
            weights = gates[site.type]
            nodes = [cell["pre"][0](before), cell["pre"][1](last)]  # type: ignore[index]
            for node in range(2, 2 + SPACE.nodes):
                total = torch.zeros(())
                for row, (target, source) in enumerate(SPACE.edges):
                    if target == node:
                        for column in range(weights.shape[1]):
                            op = cell["ops"][row * weights.shape[1] + column]  # type: ignore[index]
                            total = total + weights[row, column] * op(nodes[source])
                nodes.append(total)
            before, last = last, torch.cat(nodes[2:], dim=1)
        out: Tensor = self.classifier(last)
        return out


def test_dense_equals_the_op_by_op_reference() -> None:
    net = supernet().double()
    reference = Reference(net).double()
    gates = {name: gate.double().requires_grad_() for name, gate in softmax_gates().items()}
    x = images().double()
    mine, theirs = net(x, gates), reference(x, gates)
    assert (mine - theirs).abs().max() < 1e-6
    labels = torch.arange(6) % 5
    of_mine = torch.autograd.grad(F.cross_entropy(mine, labels), list(gates.values()), retain_graph=True)
    of_theirs = torch.autograd.grad(F.cross_entropy(theirs, labels), list(gates.values()))
    for one, other in zip(of_mine, of_theirs, strict=True):
        assert (one - other).abs().max() < 1e-6


def one_path(seed: int = 3) -> dict[str, np.ndarray]:
    return SPACE.selection(SPACE.sample(np.random.default_rng(seed)))


def op_of(net: Supernet, cell: int, row: int, column: int) -> nn.Module:
    found = net.cells[cell]
    assert isinstance(found, SupernetCell)
    return found.ops[found._key(row, column)]


def test_what_is_not_active_is_not_computed() -> None:
    net, active = supernet(), one_path()
    ran: list[tuple[int, int, int]] = []
    expected: list[tuple[int, int, int]] = []
    for position, cell in enumerate(net.cells):
        assert isinstance(cell, SupernetCell)
        for row in range(len(SPACE.edges)):
            for column, name in enumerate(SPACE.ops(cell.cell_type)):
                if name != "none":
                    place = (position, row, column)
                    op_of(net, *place).register_forward_hook(lambda *_, place=place: ran.append(place))
                    if active[cell.cell_type][row, column]:
                        expected.append(place)
    net(images(), None, active)
    assert sorted(ran) == sorted(expected)


def test_what_is_not_active_gets_no_gradient_momentum_or_decay() -> None:
    net = supernet()
    learner = WeightLearner(net, epochs=2, lr=0.1, weight_decay=0.1)
    learner.start(0)
    labels = torch.arange(6) % 5
    learner.step(images(), labels, (None, None))  # everything has momentum now
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    momentum = {
        name: learner.optimizer.state[parameter]["momentum_buffer"].clone()
        for name, parameter in net.named_parameters()
    }
    active = one_path()
    learner.step(images(5), labels, (None, active))
    untouched = touched = 0
    for name, parameter in net.named_parameters():
        parts = name.split(".")
        if parts[0] != "cells" or parts[2] != "ops":
            continue
        cell = net.cells[int(parts[1])]
        assert isinstance(cell, SupernetCell)
        row, column = (int(number) for number in parts[3].removeprefix("edge").split("_"))
        if active[cell.cell_type][row, column]:
            touched += 1
            assert parameter.grad is not None
            assert not torch.equal(parameter, before[name])
        else:
            untouched += 1
            assert parameter.grad is None
            assert torch.equal(parameter, before[name])
            assert torch.equal(learner.optimizer.state[parameter]["momentum_buffer"], momentum[name])
    assert touched and untouched


@pytest.mark.slow
def test_an_active_op_with_gate_zero_is_computed_and_has_a_gradient() -> None:
    net, active = supernet(), one_path()
    gates = {name: torch.ones(chosen.shape) for name, chosen in active.items()}
    row, column = (int(index) for index in np.argwhere(active["normal"])[0])
    gates["normal"][row, column] = 0.0
    for gate in gates.values():
        gate.requires_grad_()
    ran: list[int] = []
    op_of(net, 0, row, column).register_forward_hook(lambda *_: ran.append(1))
    F.cross_entropy(net(images(), gates, active), torch.arange(6) % 5).backward()
    assert ran
    assert gates["normal"].grad is not None
    assert gates["normal"].grad[row, column] != 0


def test_equal_gates_give_the_mean_of_the_ops_and_a_large_logit_gives_that_op_alone() -> None:
    """DARTS property 5, on the first cell."""
    net = supernet()
    cell = net.cells[0]
    assert isinstance(cell, SupernetCell)
    before = net.stem(images())
    active = np.zeros((len(SPACE.edges), 8), dtype=bool)
    active[0] = True  # edge 0 -> 2 alone
    states = cell.pre[0](before[0])
    outputs = [op_of(net, 0, 0, column)(states) for column in range(1, 8)]
    even = cell(before, torch.full(active.shape, 1 / 8), active)[:, :4]
    assert (even - sum(outputs) / 8).abs().max() < 1e-6
    logits = torch.zeros(active.shape)
    logits[0, 4] = 50.0
    alone = cell(before, logits.softmax(dim=1), active)[:, :4]
    assert (alone - outputs[3]).abs().max() < 1e-5


def test_shared_features_are_computed_once_per_source() -> None:
    net = supernet(share=True)
    cell = net.cells[0]
    assert isinstance(cell, SupernetCell)
    calls: list[str] = []
    for name, op in cell.ops.items():
        op.register_forward_hook(lambda *_, name=name: calls.append(name))
    net(images(), softmax_gates())
    sources = 2 + SPACE.nodes - 1
    assert sorted(calls) == sorted(f"source{source}_{column}" for source in range(sources) for column in range(1, 8))


@pytest.mark.parametrize(("share", "weights"), [(False, 1_930_618), (True, 749_050)])
def test_reference_counts(share: bool, weights: int) -> None:
    space = DartsCells()
    with torch.device("meta"):
        net = space.supernet(space.skeleton((3, 32, 32), 10), share_features=share)
    assert sum(parameter.numel() for parameter in net.parameters()) == weights


def test_cells_have_no_affine_parameters_and_keep_no_statistics() -> None:
    """DARTS property 8, the search half."""
    norms = [module for module in supernet().cells.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(not norm.affine and not norm.track_running_stats for norm in norms)


def test_a_node_without_active_inputs_is_zero() -> None:
    net = supernet()
    nothing = {name: np.zeros((len(SPACE.edges), 8), dtype=bool) for name in TYPES}
    x = images()
    assert torch.equal(net(x, None, nothing), net.classifier.linear.bias.expand(len(x), -1))


def test_averaged_weights_follow_with_their_decay() -> None:
    net, start = supernet(), supernet()
    averaged = AveragedWeights(net, 0.75)
    for value in (1.0, -2.0):
        for parameter in net.parameters():
            parameter.data.fill_(value)
        averaged.follow()
    pairs = zip(averaged.supernet.parameters(), start.parameters(), strict=True)
    for parameter, first in pairs:
        expected = 0.75 * (0.75 * first + 0.25 * 1.0) + 0.25 * -2.0
        assert torch.allclose(parameter, expected, atol=1e-6) and not parameter.requires_grad


@pytest.mark.slow
def test_both_errors_of_a_sub_network() -> None:
    net, active = supernet(), SPACE.selection(SPACE.sample(np.random.default_rng(0)))
    pixels = torch.randn(12, 8, 8, 3, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(12) % 5
    split = TensorSplit(pixels, labels, (0.0,) * 3, (1.0,) * 3)
    error, expected = supernet_errors(net, split, (None, active), torch.device("cpu"))
    chances = net(pixels.permute(0, 3, 1, 2), None, active).softmax(dim=1).detach()
    assert error == pytest.approx(float((chances.argmax(dim=1) != labels).double().mean()))
    others = torch.tensor(
        [float(sum(row[c] for c in range(5) if c != y)) for row, y in zip(chances, labels, strict=True)]
    )
    assert expected == pytest.approx(float(others.mean()), abs=1e-5)
    assert expected != error
