"""Operations against the same in float64, where PyTorch computes without oneDNN."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nas_core.ops import FAMILIES, FactorizedReduce, Norm, make_op


def gradients(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Of the parameters and the images, of a sum that no batch norm makes constant."""
    module.zero_grad()
    images = images.detach().requires_grad_()
    out = module(images)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)).sum().backward()
    return [images.grad, *(parameter.grad for parameter in module.parameters())]  # type: ignore[list-item]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [2, 4, 6, 12, 20, 32])
@pytest.mark.parametrize("size", [6, 7, 16])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_in_channels_last(channels: int, size: int, stride: int) -> None:
    """All ops at once: what one writes where it must not may show in another (docs/decisions/0013)."""
    torch.manual_seed(channels + size)
    ops = [make_op(name, channels, stride, Norm()) for name in FAMILIES if name != "none"]
    ops.append(FactorizedReduce(channels, channels + 1, Norm()))
    images = torch.randn(8, channels, size, size)
    for op in ops:
        exact = gradients(copy.deepcopy(op).double(), images.double())
        fast = gradients(
            op.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            images.to(memory_format=torch.channels_last),
        )
        for one, other in zip(fast, exact, strict=True):
            assert torch.allclose(one.double(), other, rtol=1e-3, atol=1e-3 * max(1.0, float(other.abs().max())))


def test_a_strided_convolution_is_the_same_with_and_without_gradients() -> None:
    torch.manual_seed(0)
    op, images = FactorizedReduce(4, 6, Norm()).eval(), torch.randn(2, 4, 7, 7)
    with torch.no_grad():
        without = op(images)
    assert torch.allclose(op(images), without, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_no_connection_keeps_the_order_of_memory(stride: int) -> None:
    x = torch.full((2, 4, 6, 6), torch.nan).to(memory_format=torch.channels_last)
    out = make_op("none", 4, stride, Norm())(x)
    assert out.shape == (2, 4, 6 // stride, 6 // stride) and not out.any()
    assert out.is_contiguous(memory_format=torch.channels_last)
