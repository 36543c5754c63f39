"""Kernels of our own for chains of convolutions: the same as torch's, and done without where they cannot be built."""

import copy
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from nas_core import compiled
from nas_core.compiled import CompiledChains, Step, chains, dense, fits
from nas_core.ops import Norm, make_op
from nas_core.quick import quicken

EPS = 1e-5
needed = pytest.mark.skipif(chains() is None, reason="no C compiler: CC names one")
CASES = {  # images, channels, height, width; ops; kernel, stride, dilation; pairs of convolutions
    "separable": ((3, 8, 7, 9), 2, (3, 1, 1), 2),
    "wide": ((2, 16, 8, 8), 1, (5, 1, 1), 2),
    "separable-reduction": ((2, 8, 12, 11), 2, (5, 2, 1), 2),
    "dilated": ((4, 4, 6, 5), 3, (5, 1, 2), 1),
    "dilated-reduction": ((5, 8, 9, 7), 2, (3, 2, 2), 1),
    "seven": ((1, 12, 5, 5), 2, (7, 1, 1), 1),
    "lower-than-the-kernel": ((3, 8, 2, 3), 2, (5, 1, 2), 1),
    "one-pixel": ((2, 4, 1, 1), 1, (3, 1, 1), 2),
    "three-channels": ((2, 3, 5, 6), 2, (3, 1, 1), 2),
    "odd-channels": ((2, 9, 6, 5), 3, (5, 2, 2), 1),
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def expected(x: Tensor, steps: Sequence[Step], weights: Sequence[Tensor]) -> list[Tensor]:
    """By torch, op by op."""
    found, count = [], 2 * len(steps)
    for place in range(0, len(weights), count):
        y = x
        for index, step in enumerate(steps):
            depth, point = weights[place + 2 * index : place + 2 * index + 2]
            if index:
                y = F.relu(F.batch_norm(y, None, None, training=True, eps=EPS))
            y = F.conv2d(y, depth, None, step.stride, step.padding, step.dilation, groups=len(depth))
            y = F.conv2d(y, point)
        found.append(y)
    return found


def given(case: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, tuple[Step, ...], list[Tensor]]:
    shape, ops, (kernel, stride, dilation), pairs = CASES[case]
    generator = torch.Generator().manual_seed(0)
    steps = Step(stride, dilation * (kernel // 2), dilation), *[Step(1, kernel // 2, 1)] * (pairs - 1)
    shapes = [(shape[1], 1, kernel, kernel), (shape[1], shape[1], 1, 1)] * pairs * ops
    x, *weights = (torch.randn(each, dtype=dtype, generator=generator).requires_grad_() for each in (shape, *shapes))
    return x, steps, weights


def gradients(outputs: Sequence[Tensor], by: Sequence[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    ahead = [torch.randn(y.shape, dtype=y.dtype, generator=generator) for y in outputs]
    return torch.autograd.grad(outputs, by, ahead)


def differences(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Largest, beside the largest value there is."""
    pairs = zip(some, others, strict=True)
    return max(float(((one - other).abs().max() / one.abs().max().clamp(min=1)).detach()) for one, other in pairs)


@needed
@pytest.mark.parametrize("threaded", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_torch(case: str, threaded: int, threads: None) -> None:
    """With fewer images than threads, too; maps that are and that are not channels-last."""
    torch.set_num_threads(threaded)
    x, steps, weights = given(case)
    truth = expected(x, steps, weights)
    for layout in (x, dense(x)):
        assert fits(layout, weights)
        found = CompiledChains.apply(layout, steps, EPS, *weights)
        assert differences(truth, found) < 1e-12
        assert differences(gradients(truth, [x, *weights]), gradients(found, [x, *weights])) < 1e-12
        truth = expected(x, steps, weights)


@needed
def test_so_they_are_in_float32() -> None:
    x, steps, weights = given("wide", torch.float32)
    truth, found = expected(x, steps, weights), CompiledChains.apply(x, steps, EPS, *weights)
    assert differences(truth, found) < 1e-5
    assert differences(gradients(truth, [x, *weights]), gradients(found, [x, *weights])) < 1e-5


@needed
@pytest.mark.parametrize("outputs", [1, 4, 7, 8, 20])
def test_pointwise_convolutions_may_change_how_many_channels_there_are(outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    steps = Step(1, 1, 1), Step(1, 1, 1)
    shapes = [(3, 6, 5, 5), (6, 1, 3, 3), (outputs, 6, 1, 1), (outputs, 1, 3, 3), (5, outputs, 1, 1)]
    x, *weights = (torch.randn(each, dtype=torch.float64, generator=generator).requires_grad_() for each in shapes)
    truth, found = expected(x, steps, weights), CompiledChains.apply(x, steps, EPS, *weights)
    assert differences(truth, found) < 1e-12
    assert differences(gradients(truth, [x, *weights]), gradients(found, [x, *weights])) < 1e-12


@needed
@pytest.mark.parametrize("case", ["separable", "dilated-reduction"])
def test_only_what_is_wanted_is_computed(case: str) -> None:
    x, steps, weights = given(case)
    of_map, *of_weights = gradients(CompiledChains.apply(x, steps, EPS, *weights), [x, *weights])
    constant = [weight.detach() for weight in weights]
    (alone,) = gradients(CompiledChains.apply(x, steps, EPS, *constant), [x])
    assert torch.equal(alone, of_map)
    without = gradients(CompiledChains.apply(x.detach(), steps, EPS, *weights), weights)
    assert all(torch.equal(one, other) for one, other in zip(without, of_weights, strict=True))


@needed
def test_a_search_that_diverges_is_seen() -> None:
    x, steps, weights = given("separable")
    with torch.no_grad():
        weights[0][0, 0, 1, 1] = float("nan")
    first, second = CompiledChains.apply(x, steps, EPS, *weights)
    assert first.isnan().all() and not second.isnan().any(), "as by torch: batch norm and ReLU keep what is no number"


@needed
def test_the_same_threads_give_the_same_bits(threads: None) -> None:
    torch.set_num_threads(2)
    x, steps, weights = given("separable", torch.float32)
    runs = [gradients(CompiledChains.apply(x, steps, EPS, *weights), [x, *weights]) for _ in range(3)]
    assert all(torch.equal(one, other) for run in runs[1:] for one, other in zip(runs[0], run, strict=True))


@needed
def test_less_is_kept_for_the_backward_pass() -> None:
    """The map, and of each op what is between its two pairs."""
    x, steps, weights = given("wide")
    kept: dict[int, int] = {}

    def note(each: Tensor) -> Tensor:
        kept[each.data_ptr()] = each.nbytes
        return each

    with torch.autograd.graph.saved_tensors_hooks(note, lambda each: each):
        CompiledChains.apply(x, steps, EPS, *weights)
    own = sum(weight.nbytes for weight in weights) + 2 * x.shape[1] * x.element_size()
    assert sum(kept.values()) == 2 * x.nbytes + own


def test_what_does_not_fit() -> None:
    x, _, weights = given("wide")
    meta = x.to("meta"), [weight.to("meta") for weight in weights]
    assert not fits(*meta) and not fits(x.bfloat16(), [weight.bfloat16() for weight in weights])
    assert not fits(x.float(), weights), "one precision"
    assert not fits(x, [weights[0].expand(-1, 2, -1, -1), *weights[1:]]), "no depthwise convolution"


@needed
@pytest.mark.parametrize("op", ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_network_that_is_quickened_is_the_same(op: str, stride: int) -> None:
    """Outputs, gradients, running statistics and names; without gradients it is the plain one to the bit."""
    torch.manual_seed(0)
    plain = nn.Sequential(make_op(op, 6, stride, Norm()), nn.Dropout(0.0)).double()
    quick = copy.deepcopy(plain)
    quicken(quick)
    assert type(quick[0]) is not type(plain[0]) and isinstance(quick[0], type(plain[0]))
    x = torch.randn(3, 6, 9, 8, dtype=torch.float64)
    some, others = ([net(x), *net.parameters()] for net in (plain, quick))
    assert differences(some[:1], others[:1]) < 1e-12
    assert differences(gradients(some[:1], some[1:]), gradients(others[:1], others[1:])) < 1e-12
    assert list(plain.state_dict()) == list(quick.state_dict())
    assert differences(list(plain.buffers()), list(quick.buffers())) < 1e-12
    with torch.no_grad():
        quick.load_state_dict(plain.state_dict())
        assert torch.equal(plain.eval()(x), quick.eval()(x))
    assert isinstance(copy.deepcopy(quick)[0], type(quick[0]))


@needed
@pytest.mark.parametrize(
    "unusual",
    [
        {"kernel_size": 9, "padding": 4},
        {"kernel_size": (1, 3), "padding": (0, 1)},
        {"kernel_size": 3, "padding": 4},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": 1, "stride": (2, 1)},
    ],
    ids=["large", "flat", "far", "same", "reflect", "strides"],
)
def test_convolutions_of_another_kind_are_left_to_torch(unusual: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, groups=8, bias=False, **unusual)
    assert not compiled._usual(layer) or not fits(torch.randn(2, 8, 9, 9), (layer.weight, torch.randn(8, 8, 1, 1)))


@pytest.mark.slow
@needed
def test_autocast_checkpoints_and_exports_go_their_usual_way() -> None:
    net = nn.Sequential(make_op("sep_conv_3x3", 8, 1, Norm()), make_op("dil_conv_5x5", 8, 1, Norm()))
    quicken(net)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    exported = torch.export.export(net.eval(), (x.detach(),)).module()
    assert torch.allclose(exported(x), net(x), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits(x, (torch.randn(8, 1, 3, 3), torch.randn(8, 8, 1, 1)))


UNDER_A_LIMIT = """
import torch
from nas_core.compiled import CompiledChains, Step
torch.set_num_threads(2)
x = torch.ones(4, 8, 3, 3, requires_grad=True)
(y,) = CompiledChains.apply(x, (Step(1, 0, 1),), 0.0, torch.ones(8, 1, 3, 3), torch.ones(8, 8, 1, 1))
y.sum().backward()
print(torch.equal(y, torch.full((4, 8, 1, 1), 72.0)), torch.equal(x.grad, torch.full((4, 8, 3, 3), 8.0)))
"""


@pytest.mark.slow
@needed
def test_fewer_threads_than_asked_for_do_all_the_work() -> None:
    here = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    words = [sys.executable, "-c", UNDER_A_LIMIT]
    assert subprocess.run(words, env=here, capture_output=True, text=True, check=True).stdout.split() == [
        "True",
        "True",
    ]


PROGRAM = """
import logging
logging.basicConfig(level="INFO")
import torch
from nas_core.spaces.darts import DartsCells
from nas_core.supernet.fused import fuse
space = DartsCells(cells=3, channels=8, nodes=2)
net = fuse(space.supernet(space.skeleton((3, 8, 8), 2)))
net(torch.randn(2, 3, 8, 8), None).sum().backward()
from nas_core.compiled import chains
print(chains() is not None)
"""


def fused_elsewhere(cache: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """A fused supernet's step in a new process, with another environment."""
    here = {**os.environ, "XDG_CACHE_HOME": str(cache), **changed}
    words = [sys.executable, "-c", PROGRAM]
    return subprocess.run(words, env=here, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.slow
def test_without_a_compiler_the_supernet_runs_and_the_log_says_why(tmp_path: Path) -> None:
    done = fused_elsewhere(tmp_path, CC="no-such-compiler")
    assert done.stdout.strip() == "False"
    assert done.stderr.count("chains.c was not compiled") == 1 and "no-such-compiler" in done.stderr


@pytest.mark.slow
@needed
def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = fused_elsewhere(tmp_path / "file")
    assert done.stdout.strip() == "False" and "chains.c was not compiled" in done.stderr


@pytest.mark.slow
@needed
def test_a_broken_library_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = compiled._place()
    place.parent.mkdir()
    place.write_bytes(b"")
    assert compiled.chains.__wrapped__() is not None and place.stat().st_size > 0


@pytest.mark.parametrize("compiler", ["gcc '-O2", "true", ""], ids=["no-words", "no-compiler", "nothing"])
def test_a_compiler_that_is_none_is_no_fault(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    assert compiled.chains.__wrapped__() is None
    assert "chains.c was not compiled" in caplog.text


@pytest.mark.slow
@needed
def test_several_processes_build_at_once_and_one_library_is_left(tmp_path: Path) -> None:
    here = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    words = [sys.executable, "-c", PROGRAM]
    running = [subprocess.Popen(words, env=here, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in running] == ["True", "True"]
    (built,) = (tmp_path / "skyline").iterdir()
    assert built.suffix == ".so"


@needed
def test_a_compiler_that_fails_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "FLAGS", ("--no-such-flag",))
    with caplog.at_level(logging.INFO):
        assert compiled.chains.__wrapped__() is None
    assert "no-such-flag" in caplog.text
    assert not list((tmp_path / "skyline").iterdir())
