"""The fused executor of cells: its outputs and every gradient are those of the plain supernet."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas_core.costs import KEEP_CHANNELS, OPS
from nas_core.spaces.darts import TYPES, DartsCells
from nas_core.spaces.nasbench201 import NasBench201
from nas_core.supernet import Supernet
from nas_core.supernet.fused import ELSEWHERE, Fused, Ways, fuse, ways_for
from nas_core.supernet.kernels import from_phases, to_phases
from nas_core.supernet.network import SupernetCell
from nas_core.supernet.weights import WeightLearner, at_rest, make_supernet

SPACE = DartsCells(cells=3, channels=4, nodes=2)
EVERY_OP = DartsCells(cells=3, channels=4, nodes=2, normal_ops=tuple(OPS), reduce_ops=tuple(OPS))
CPU = torch.device("cpu")
INTERPRETED = Ways(compiled=False)
"""As on a machine without a C compiler."""
Selection = Mapping[str, NDArray[np.bool_]]


def pair(
    space: DartsCells | NasBench201,
    size: int,
    share: bool = False,
    ways: Ways | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Supernet, Supernet]:
    """The same supernet twice, plain and fused."""
    skeleton = space.skeleton((3, size, size), 5)
    made = [make_supernet(lambda: space.supernet(skeleton, share_features=share), 0, CPU).to(dtype) for _ in range(2)]
    return made[0], fuse(made[1], ways)


def images(size: int, dtype: torch.dtype = torch.float64, count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, dtype=dtype, generator=generator)


def softmax_gates(net: Supernet, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.randn(shape, dtype=dtype, generator=generator).softmax(dim=1) for name, shape in net.shapes.items()
    }


def some_active(net: Supernet, share: float, seed: int = 3) -> Selection:
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape) < share for name, shape in net.shapes.items()}


def results(
    net: Supernet, x: Tensor, gates: Mapping[str, Tensor] | None, active: Selection | None
) -> list[Tensor | None]:
    """Logits, and the gradients of all weights, of the gates and of the images."""
    net.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    mine = None if gates is None else {name: gate.clone().requires_grad_() for name, gate in gates.items()}
    logits = net(x, mine, active)
    F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1]).backward()
    found = [logits.detach(), x.grad, *(parameter.grad for parameter in net.parameters())]
    return found + ([] if mine is None else [gate.grad for gate in mine.values()])


def worst(plain: list[Tensor | None], fused: list[Tensor | None]) -> float:
    """The largest relative error; what has no gradient has none in both."""
    errors = []
    for one, other in zip(plain, fused, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            errors.append(float((one - other).norm() / (one.norm() + 1e-12)))
    return max(errors)


@pytest.mark.slow
@pytest.mark.parametrize("gated", [True, False], ids=["gates", "no-gates"])
@pytest.mark.parametrize("active", [None, 0.4, 0.1], ids=["dense", "many", "few"])
@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("ways", [Ways(), pytest.param(INTERPRETED, marks=pytest.mark.slow)], ids=["compiled", "torch"])
def test_outputs_and_gradients_are_the_plain_ones(
    ways: Ways, size: int, share: bool, active: float | None, gated: bool
) -> None:
    """Normal and reduction cells, maps down to two pixels; float64, so that rounding hides nothing."""
    plain, fused = pair(SPACE, size, share, ways)
    gates = softmax_gates(plain) if gated else None
    chosen = None if active is None else some_active(plain, active)
    assert worst(results(plain, images(size), gates, chosen), results(fused, images(size), gates, chosen)) < 1e-11


@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("ways", [Ways(), pytest.param(INTERPRETED, marks=pytest.mark.slow)], ids=["compiled", "torch"])
def test_so_they_are_in_float32(ways: Ways, share: bool) -> None:
    space = DartsCells(cells=3, channels=16, nodes=2)
    plain, fused = pair(space, 16, share, ways, dtype=torch.float32)
    x, gates = images(16, torch.float32), softmax_gates(plain, torch.float32)
    assert worst(results(plain, x, gates, None), results(fused, x, gates, None)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "ways",
    [ELSEWHERE, replace(INTERPRETED, phases=False), replace(INTERPRETED, windows=False), Ways(pools=False)],
    ids=["elsewhere", "no-phases", "no-windows", "no-pools"],
)
def test_no_choice_of_kernels_changes_anything(ways: Ways) -> None:
    plain, fused = pair(SPACE, 8, ways=ways)
    gates = softmax_gates(plain)
    assert worst(results(plain, images(8), gates, None), results(fused, images(8), gates, None)) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
def test_every_op_there_is(share: bool) -> None:
    plain, fused = pair(EVERY_OP, 10, share)
    assert set(EVERY_OP.normal_ops) > KEEP_CHANNELS
    gates = softmax_gates(plain)
    assert worst(results(plain, images(10), gates, None), results(fused, images(10), gates, None)) < 1e-11


def test_sampled_paths_of_nasbench201() -> None:
    space = NasBench201(cells=5, channels=4)
    plain, fused = pair(space, 8)
    for seed in range(3):
        active = space.selection(space.sample(np.random.default_rng(seed)))
        assert worst(results(plain, images(8), None, active), results(fused, images(8), None, active)) < 1e-11


def test_an_active_op_with_gate_zero_has_a_gradient_and_an_inactive_one_none() -> None:
    plain, fused = pair(SPACE, 8)
    gates = {name: torch.ones_like(gate) for name, gate in softmax_gates(plain).items()}
    active = some_active(plain, 0.3)
    row, column = (int(index) for index in np.argwhere(active["normal"][:, 1:])[0] + (0, 1))  # not none
    gates["normal"][row, column] = 0.0
    found = results(fused, images(8), gates, active)
    assert worst(results(plain, images(8), gates, active), found) < 1e-11
    of_normal = found[-len(TYPES)]
    assert of_normal is not None and of_normal[row, column] != 0
    assert not of_normal[torch.from_numpy(~active["normal"])].any()
    ops = {name: grad for (name, _), grad in zip(fused.named_parameters(), found[2:], strict=False) if ".ops." in name}
    assert any(grad is None for grad in ops.values()) and any(grad is not None for grad in ops.values())


@pytest.mark.slow
def test_dropout_behind_skips_draws_the_same_masks() -> None:
    for share in (False, True):
        plain, fused = pair(SPACE, 8, share)
        gates = softmax_gates(plain)
        for net in (plain, fused):
            net.drop_skips(0.5, torch.Generator().manual_seed(5))
        assert worst(results(plain, images(8), gates, None), results(fused, images(8), gates, None)) < 1e-11


def test_a_node_without_active_inputs_is_zero() -> None:
    _, fused = pair(SPACE, 8)
    nothing = some_active(fused, 0.0)
    assert torch.equal(fused(images(8), None, nothing), fused.classifier.linear.bias.expand(6, -1))


def test_weights_stay_the_plain_ones() -> None:
    plain, fused = pair(SPACE, 8)
    assert list(plain.state_dict()) == list(fused.state_dict())
    again = copy.deepcopy(fused)  # as averaged weights are made
    assert all(isinstance(cell, SupernetCell) and isinstance(cell.executor, Fused) for cell in again.cells)
    assert torch.equal(again(images(8)), fused(images(8)))


def test_a_step_of_the_learner_is_the_plain_one() -> None:
    plain, fused = pair(SPACE, 8)
    gates, active = softmax_gates(plain), some_active(plain, 0.3)
    for net in (plain, fused):
        learner = WeightLearner(net, epochs=2, lr=0.1)
        learner.start(0)
        learner.step(images(8), torch.arange(6) % 5, (gates, active))
    for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-11)


def test_weights_at_rest_get_no_gradient_and_gates_the_same_one() -> None:
    for net in pair(SPACE, 8):
        gates = {name: gate.requires_grad_() for name, gate in softmax_gates(net).items()}
        loss = F.cross_entropy(net(images(8), gates), torch.arange(6) % 5)
        awake = torch.autograd.grad(loss, list(gates.values()))
        with at_rest(net):
            F.cross_entropy(net(images(8), gates), torch.arange(6) % 5).backward()
        assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
        for one, gate in zip(awake, gates.values(), strict=True):
            assert torch.allclose(one, gate.grad, rtol=1e-11)


def test_there_are_no_gradients_of_gradients() -> None:
    _, fused = pair(SPACE, 8)
    gates = {name: gate.requires_grad_() for name, gate in softmax_gates(fused).items()}
    loss = fused(images(8), gates).square().sum()
    (first,) = torch.autograd.grad(loss, [gates["normal"]], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("size", [(6, 4), (5, 7)])
def test_phases_hold_every_second_pixel_and_go_back(size: tuple[int, int]) -> None:
    height, width = size
    x = torch.randn(2, 3, height, width)
    phases = to_phases(x)
    assert torch.equal(
        phases[2:4, :, : height // 2, : (width + 1) // 2][:, :, :, : width // 2],
        x[:, :, ::2, 1::2][:, :, : height // 2],
    )
    assert torch.equal(from_phases(phases)[:, :, :height, :width], x)


def test_which_kernels_a_device_gets() -> None:
    assert ways_for(CPU) == Ways()
    assert ways_for(torch.device("cuda")) == ELSEWHERE
