"""DARTS: what a faithful implementation must show, by the numbers of its specification.

Number 1 in full (all published genotypes) is in test_costs and test_counting, 5 and 8 for whole networks in
test_supernet, 10 for more sizes in test_network, 12 for every checkpoint of a search in tests/contracts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core import checkpoint
from nas_core.algorithms.darts import Darts
from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.data import Augmentation, Splits, tensor_splits
from nas_core.differentiable.bilevel import VirtualStep, gradients, second_order
from nas_core.network import Cell, Network, drop_path
from nas_core.spaces.darts import TYPES, DartsCells, from_darts
from nas_core.supernet.network import SupernetCell
from tests.contracts.problems import problem
from tests.nas_core.published import DARTS_V2, ISTA_IMAGENET, PUBLISHED

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = DartsCells()
CIFAR = SPACE.skeleton((3, 32, 32), 10, 20, 36)
IMAGENET = SPACE.skeleton((3, 224, 224), 1000, 14, 48)


@pytest.mark.slow
def test_property_01_parameter_counts() -> None:
    with torch.device("meta"):
        searched = SPACE.supernet(SPACE.skeleton((3, 32, 32), 10))
        trained = [Network(Architecture(from_darts(DARTS_V2), skeleton)) for skeleton in (CIFAR, IMAGENET)]
    found = [sum(parameter.numel() for parameter in net.parameters()) for net in (searched, *trained)]
    assert found == [1_930_618, 3_349_342, 4_718_752]


@pytest.mark.parametrize(
    ("genotype", "millions"),
    [
        pytest.param(PUBLISHED["DARTS_V2"]["genotype"], 545, id="DARTS_V2"),
        pytest.param(PUBLISHED["PDARTS"]["genotype"], 557, id="PDARTS"),
        pytest.param(PUBLISHED["PC_DARTS_cifar"]["genotype"], 586, id="PC_DARTS_cifar"),
        pytest.param(PUBLISHED["PC_DARTS_image"]["genotype"], 597, id="PC_DARTS_image"),
        pytest.param(ISTA_IMAGENET, 638, id="ISTA_ImageNet"),
    ],
)
def test_property_02_counter_b(genotype: dict[str, Any], millions: int) -> None:
    cost = count(Architecture(from_darts(genotype), IMAGENET))
    assert round(cost.macs_counter_b / 1e6) == millions


@pytest.mark.slow
@pytest.mark.parametrize("xi", [0.0, 0.1, 0.5, 0.7])
def test_property_03_the_bilevel_problem_of_the_paper(xi: float) -> None:
    """Figure 2: the alternation rests at alpha = w = 2 / (1 + 2 xi): 2 in first order, the solution 1 at xi = 0.5."""
    alpha = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    w = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)

    def train() -> list[Tensor]:
        return [(w - alpha) ** 2]

    def validation() -> list[Tensor]:
        return [alpha * w - 2 * alpha + 1]

    for _ in range(600):
        found, _ = second_order(train, validation, [w], [alpha], VirtualStep(xi))
        if xi == 0:
            assert found == gradients(validation, [alpha])[0]
        assert found[0] is not None
        with torch.no_grad():
            alpha -= 0.1 * found[0]
        by_training = gradients(train, [w])[0][0]
        assert by_training is not None
        with torch.no_grad():
            w -= 0.1 * by_training
    assert alpha.item() == pytest.approx(2 / (1 + 2 * xi), abs=1e-3)
    assert w.item() == pytest.approx(2 / (1 + 2 * xi), abs=1e-3)


class Smooth:
    """A tiny network of mixed smooth ops in float64, whose weights are explicit."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.weights = [drawn(4, 5).requires_grad_(), drawn(5, 3).requires_grad_()]
        self.alphas = [drawn(3).requires_grad_(), drawn(2).requires_grad_()]
        self.batches = [(drawn(8, 4), drawn(8, 3)), (drawn(8, 4), drawn(8, 3))]

    def loss(self, which: int, weights: list[Tensor]) -> Tensor:
        x, y = self.batches[which]
        first, second = (alpha.softmax(0) for alpha in self.alphas)
        hidden = x @ weights[0]
        hidden = first[0] * hidden.tanh() + first[1] * hidden.sigmoid() + first[2] * F.softplus(hidden)
        out = hidden @ weights[1]
        return ((second[0] * out + second[1] * out.sin() - y) ** 2).mean()

    def closure(self, which: int) -> Callable[[], list[Tensor]]:
        return lambda: [self.loss(which, self.weights)]


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_property_04_second_order_equals_double_differentiation(momentum: float, weight_decay: float) -> None:
    net = Smooth()
    buffers = [torch.full_like(weight, 0.1) for weight in net.weights] if momentum else ()
    step = VirtualStep(0.05, momentum, weight_decay, buffers)
    before = [weight.detach().clone() for weight in net.weights]
    found, loss = second_order(net.closure(0), net.closure(1), net.weights, net.alphas, step)
    assert all(torch.equal(weight, old) for weight, old in zip(net.weights, before, strict=True))
    inner = torch.autograd.grad(net.loss(0, net.weights), net.weights, create_graph=True)
    moved = [
        weight - 0.05 * (momentum * 0.1 + gradient + weight_decay * weight)
        for weight, gradient in zip(net.weights, inner, strict=True)
    ]
    outer = net.loss(1, moved)
    assert loss.item() == pytest.approx(outer.item())
    first = torch.autograd.grad(net.loss(1, net.weights), net.alphas)
    for mine, exact, ignorant in zip(found, torch.autograd.grad(outer, net.alphas), first, strict=True):
        assert mine is not None
        assert (mine - exact).norm() < 1e-3 * exact.norm() < (ignorant - exact).norm()


@pytest.mark.slow
def test_property_04_weights_of_the_supernet_are_bit_identical_after_a_second_order_step() -> None:
    """Momentum, decay and learning rate are those of the weights' next step; first order goes elsewhere."""
    moved = []
    for order in ("first", "second"):
        run = Darts(batch=16, alpha_lr=0.1, lr=0.5, order=order).engine(problem())  # type: ignore[arg-type]
        training = next(run.problem.splits.train.batches(16, None, None, run.problem.device))
        validation = next(run.problem.splits.validation.batches(16, None, None, run.problem.device))
        run.learner.start(0)
        for _ in range(2):  # without and with momentum
            before = [parameter.detach().clone() for parameter in run.supernet.parameters()]
            run.alpha_step(validation, training)
            assert all(torch.equal(p, old) for p, old in zip(run.supernet.parameters(), before, strict=True))
            assert all(parameter.grad is None for parameter in run.supernet.parameters())
            step = run._virtual_step(list(run.supernet.parameters()))
            run.weight_step(*training)
            run.supernet.zero_grad()
        assert step.lr == 0.5 and step.momentum == 0.9 and all(buffer is not None for buffer in step.buffers)
        moved.append(run.relaxation.alpha["reduce"].detach().clone())
    assert not torch.allclose(moved[0], moved[1], atol=1e-4)


def test_property_05_equal_gates_are_the_mean_and_a_large_logit_is_that_op_alone() -> None:
    space = DartsCells(cells=3, channels=4, nodes=1)
    net = space.supernet(space.skeleton((3, 8, 8), 3))
    cell, before = net.cells[0], net.stem(torch.randn(4, 3, 8, 8))
    assert isinstance(cell, SupernetCell)
    active = np.array([[True] * 8, [False] * 8])
    x = cell.pre[0](before[0])
    outputs = [cell.ops[f"edge0_{column}"](x) for column in range(1, 8)]
    even = cell(before, torch.zeros(2, 8).softmax(dim=1), active)
    assert (even - sum(outputs) / 8).abs().max() < 1e-6  # none is one of the eight
    logits = torch.zeros(2, 8)
    logits[0, 5] = 50.0
    assert (cell(before, logits.softmax(dim=1), active) - outputs[4]).abs().max() < 1e-6


def test_property_06_derivation_takes_two_inputs_never_none_and_ignores_a_constant() -> None:
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(size=(14, 8)) for name in TYPES}
    for table in logits.values():
        table[:, 0] = 50.0  # none is strongest everywhere

    def softmax(table: np.ndarray) -> np.ndarray:
        weights = np.exp(table - table.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    derived = SPACE.derive({name: softmax(table) for name, table in logits.items()})
    for cell in derived.types.values():
        for node in range(2, 6):
            assert len({edge.source for edge in cell.into(node)}) == len(cell.into(node)) == 2
            assert all(edge.op != "none" for edge in cell.into(node))
    shifted = {name: softmax(table + rng.normal(size=(14, 1))) for name, table in logits.items()}
    assert SPACE.derive(shifted) == derived
    architecture = Architecture(derived, SPACE.skeleton((1, 8, 8), 2, 3, 4))
    net = Network(architecture)
    for name, cell in zip(architecture.skeleton.cells, net.cells, strict=True):
        assert isinstance(cell, Cell)
        wires = [(node, source) for node, ways in enumerate(cell.wires, start=2) for _, source, _ in ways]
        assert wires == [(edge.target, edge.source) for edge in derived.types[name].edges]
    again = {name: chosen.astype(float) for name, chosen in SPACE.selection(derived).items()}
    assert SPACE.derive(again) == derived


@pytest.mark.slow
def test_property_07_the_training_half_does_not_reach_alpha_in_first_order() -> None:
    moved: dict[str, list[Tensor]] = {"first": [], "second": []}
    for order, found in moved.items():
        for seed in (0, 1):
            run = Darts(batch=16, alpha_lr=0.1, order=order).engine(problem())  # type: ignore[arg-type]
            splits, device = run.problem.splits, run.problem.device
            run.learner.start(0)
            validation = next(splits.validation.batches(16, None, None, device))
            order_of = torch.Generator().manual_seed(seed)
            run.alpha_step(validation, next(splits.train.batches(16, order_of, None, device)))
            found.append(run.relaxation.alpha["reduce"].detach().clone())
    assert torch.equal(*moved["first"])
    assert not torch.equal(*moved["second"])


def test_property_08_norms_are_affine_in_evaluation_alone_and_pools_have_one_in_search_alone() -> None:
    pools = DartsCells(cells=3, channels=4, nodes=1, normal_ops=("avg_pool_3x3",), reduce_ops=("max_pool_3x3",))
    skeleton = pools.skeleton((1, 8, 8), 2)
    searched = pools.supernet(skeleton).cells
    trained = Network(Architecture(pools.sample(np.random.default_rng(0)), skeleton)).cells
    assert not any(norm.affine for norm in searched.modules() if isinstance(norm, nn.BatchNorm2d))
    assert all(norm.affine for norm in trained.modules() if isinstance(norm, nn.BatchNorm2d))
    behind = [[isinstance(m, nn.BatchNorm2d) for m in net[0].ops.modules()] for net in (searched, trained)]  # type: ignore[union-attr]
    assert any(behind[0]) and not any(behind[1])


def test_property_09_drop_path_keeps_the_mean() -> None:
    """Identities that are never dropped, and evaluation: test_network."""
    out = drop_path(torch.full((20_000, 1, 1, 1), 3.0), 0.3, torch.Generator().manual_seed(0))
    assert abs(out.mean() - 3.0) < 3 * 3.0 * (0.3 / 0.7) ** 0.5 / 20_000**0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("skeleton", "images", "sizes"), [(CIFAR, (3, 32, 32), [32, 16, 8]), (IMAGENET, (3, 224, 224), [28, 14, 7])]
)
def test_property_10_maps_and_logits(skeleton: Any, images: tuple[int, int, int], sizes: list[int]) -> None:
    seen: list[int] = []
    with torch.device("meta"):
        net = Network(Architecture(from_darts(DARTS_V2), skeleton), auxiliary=True)
        for cell in net.cells:
            cell.register_forward_hook(lambda _module, _input, out: seen.append(out.shape[-1]))
        logits, auxiliary = net.with_auxiliary(torch.empty(2, *images))
        assert logits.shape == (2, skeleton.classes) and auxiliary is not None
        assert net.eval().with_auxiliary(torch.empty(2, *images))[1] is None
    assert list(dict.fromkeys(seen)) == sizes


def far_apart(seed: int, images: int = 1440, size: int = 10) -> Splits:
    """Pairs of dots, four pixels apart: beside each other in one class, one below the other in the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    pixels = np.zeros((images, size, size, 1), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        for row, column in rng.integers(0, size, (2, 2)):
            image[row, column] = image[(row + 4 * label) % size, (column + 4 * (1 - label)) % size] = 255
    held = images // 8
    return tensor_splits(
        (pixels[held:], labels[held:].astype(np.int64)),
        (pixels[:held], labels[:held].astype(np.int64)),
        classes=2,
        seed=seed,
        fraction=1.0,
        augmentation=Augmentation(),
    )


def small_search(ops: tuple[str, ...], seed: int, epochs: int) -> tuple[float, np.ndarray]:
    """Validation loss of the last epoch, and the softmax of the one normal cell."""
    space = DartsCells(cells=3, channels=4, nodes=1, normal_ops=ops, reduce_ops=("skip_connect",))
    parts = far_apart(seed)
    on = replace(
        problem(seed, epochs=epochs, space=space), splits=parts, skeleton=space.skeleton(parts.input, parts.classes)
    )
    run = Darts(batch=32, lr=0.1, alpha_lr=0.05).engine(on)
    for _ in range(epochs):
        metrics = run.epoch()
    return metrics["validation_loss"], run.relaxation.strengths()["normal"]


@pytest.mark.slow
def test_property_11_the_only_useful_op_wins() -> None:
    """Dots that are farther apart than all other ops can see: by the mean softmax of both edges, on two seeds of
    three.
    """
    blind = ("skip_connect", "conv_1x1")
    loss, _ = small_search(blind, 0, 6)
    assert loss > 0.5  # 0.69 is chance
    wins = seed = 0
    while wins < 2 and seed < 3:
        loss, strengths = small_search((*blind, "sep_conv_5x5"), seed, 6)
        wins += loss < 0.4 and int(strengths.mean(axis=0).argmax()) == 2
        seed += 1
    assert wins >= 2, "of three"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_property_12_resuming_in_mid_search_gives_the_same_alpha(order: Any) -> None:
    settings = Darts(batch=16, alpha_lr=0.1, order=order)
    whole = settings.engine(problem())
    whole.epoch()
    kept = checkpoint.copied(whole.state())
    whole.epoch()
    on = problem()
    torch.manual_seed(9)
    rest = settings.engine(on)
    rest.resume(kept)
    rest.epoch()
    for name, alpha in whole.relaxation.alpha.items():
        assert torch.equal(alpha, rest.relaxation.alpha[name])
    assert all(map(torch.equal, whole.supernet.parameters(), rest.supernet.parameters()))
