"""The primitive operations as modules (DARTS, arXiv 1806.09055, section 3.1.1 and its evaluation network).

Convolutions have no bias; every module maps (N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from nas_core.costs import BARE, FAMILIES, check_channels, groups_for
from nas_core.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Norm:
    """How batch norms are made: search cells have no affine parameters and always use batch statistics."""

    affine: bool = True
    track: bool = True

    def __call__(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, affine=self.affine, track_running_stats=self.track)


SEARCH_NORM = Norm(affine=False, track=False)
"""DARTS A.1.1: batch statistics and no affine parameters while searching."""


class PointConv(nn.Conv2d):
    """A 1 x 1 convolution without bias.

    Where gradients are wanted, one of few channels with a stride picks its pixels first, which is the same. oneDNN's
    gradient of the strided one writes past its workspace in channels-last order (docs/decisions/0013).
    """

    BLOCK = 16
    """Channels, of a group, from which on that does not happen, with any instruction set."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, 1, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        step = self.stride[0]
        narrow = step > 1 and self.in_channels // self.groups < self.BLOCK
        if narrow and torch.is_grad_enabled() and not torch.compiler.is_exporting():
            return F.conv2d(x[:, :, ::step, ::step], self.weight, groups=self.groups)
        return super().forward(x)


class ReluConvNorm(nn.Sequential):
    """ReLU, k x k convolution, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: Norm) -> None:
        convolution = (
            PointConv(inputs, outputs, stride)
            if kernel == 1
            else nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        )
        super().__init__(nn.ReLU(), convolution, norm(outputs))


class SplitConv(nn.Sequential):
    """ReLU, 1 x k with stride (1, s), k x 1 with stride (s, 1), batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: Norm) -> None:
        half = kernel // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), padding=(0, half), bias=False),
            nn.Conv2d(outputs, outputs, (kernel, 1), (stride, 1), padding=(half, 0), bias=False),
            norm(outputs),
        )


class DilatedConv(nn.Sequential):
    """ReLU, depthwise k x k of dilation 2, pointwise, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: Norm) -> None:
        depthwise = nn.Conv2d(inputs, inputs, kernel, stride, padding=kernel - 1, dilation=2, groups=inputs, bias=False)
        super().__init__(nn.ReLU(), depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))


class SeparableConv(nn.Sequential):
    """Twice ReLU, depthwise k x k, pointwise, batch norm; only the first depthwise has the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: Norm, middle: int | None) -> None:
        between, half = middle or inputs, kernel // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, inputs, kernel, stride, padding=half, groups=inputs, bias=False),
            nn.Conv2d(inputs, between, 1, bias=False),
            norm(between),
            nn.ReLU(),
            nn.Conv2d(between, between, kernel, 1, padding=half, groups=between, bias=False),
            nn.Conv2d(between, outputs, 1, bias=False),
            norm(outputs),
        )


class FactorizedReduce(nn.Module):
    """ReLU, two 1 x 1 convolutions of stride 2, the second on the map shifted by one pixel; concatenation, norm.

    The right and bottom edge is padded by one before the shift, so that odd sizes work; even ones do not change.
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm, groups: int = 1) -> None:
        super().__init__()
        groups = groups_for(groups, inputs, outputs // 2, outputs - outputs // 2)
        self.straight = PointConv(inputs, outputs // 2, 2, groups)
        self.shifted = PointConv(inputs, outputs - outputs // 2, 2, groups)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', ceil(H / 2), ceil(W / 2))
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        out: Tensor = self.norm(cat([self.straight(x), self.shifted(shifted)], dim=1))
        return out


class Shuffle(nn.Module):
    """Channels of ``groups`` groups in turn (ShuffleNet, arXiv 1707.01083): what is next sees all of them.

    In memory the channels of a pixel stay together (channels last), as everywhere here.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> the same shape
        pixels = x.movedim(1, -1)
        groups = pixels.reshape(*pixels.shape[:-1], self.groups, -1)
        return groups.transpose(-1, -2).flatten(-2).movedim(-1, 1)


class GroupConv(nn.Sequential):
    """ReLU, 1 x 1 convolution in groups (a factorized reduce at stride 2), batch norm, channel shuffle."""

    def __init__(self, inputs: int, outputs: int, groups: int, stride: int, norm: Norm) -> None:
        if stride == 2:
            reduce = FactorizedReduce(inputs, outputs, norm, groups)
            super().__init__(reduce, Shuffle(groups_for(2 * reduce.straight.groups, outputs)))
            return
        groups = groups_for(groups, inputs, outputs)
        super().__init__(nn.ReLU(), PointConv(inputs, outputs, stride, groups), norm(outputs), Shuffle(groups))


class DepthwiseGroupConv(nn.Sequential):
    """ReLU, depthwise 3 x 3, 1 x 1 convolution in groups, batch norm, channel shuffle."""

    def __init__(self, inputs: int, outputs: int, groups: int, stride: int, norm: Norm) -> None:
        groups = groups_for(groups, inputs, outputs)
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        super().__init__(nn.ReLU(), depthwise, PointConv(inputs, outputs, 1, groups), norm(outputs), Shuffle(groups))


class PoolConv(nn.Sequential):
    """The mean of stride x stride pixels (at an edge, of those that are there), 1 x 1 convolution; no norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        super().__init__(pool, PointConv(inputs, outputs))


class Zero(nn.Module):
    """No connection: zeros of the right shape, never 0 * x, which keeps NaN alive.

    They lie in memory as ``x`` does (channels last): what they are added to would else change its order, and every op
    behind would be slower.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def _pool(kind: str, kernel: int, channels: int, stride: int, norm: Norm, pool_norm: bool) -> nn.Module:
    half = kernel // 2
    pool: nn.Module = (
        nn.MaxPool2d(kernel, stride, padding=half)
        if kind == "max"
        else nn.AvgPool2d(kernel, stride, padding=half, count_include_pad=False)
    )
    return nn.Sequential(pool, norm(channels)) if pool_norm else pool


def make_op(
    name: str,
    channels: int,
    stride: int,
    norm: Norm,
    *,
    pool_norm: bool = False,
    middle: int | None = None,
    outputs: int | None = None,
) -> nn.Module:
    """The op from a node of ``channels`` to one of ``outputs`` (default: as many).

    Raises UnknownNameError, and InvalidGenotypeError for widths that it cannot join.
    """
    if name not in FAMILIES:
        raise UnknownNameError("op", name, FAMILIES)
    family, kernel = FAMILIES[name]
    outputs = channels if outputs is None else outputs
    check_channels(name, channels, outputs, stride)
    match family:
        case "none":
            return Zero(stride)
        case "skip":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, outputs, norm)
        case "sep":
            return SeparableConv(channels, outputs, kernel, stride, norm, middle)
        case "dil":
            return DilatedConv(channels, outputs, kernel, stride, norm)
        case "conv":
            return ReluConvNorm(channels, outputs, kernel, stride, norm)
        case "split":
            return SplitConv(channels, outputs, kernel, stride, norm)
        case "poolconv":
            return PoolConv(channels, outputs, stride)
        case "group":
            return GroupConv(channels, outputs, kernel, stride, norm)
        case "dwgroup":
            return DepthwiseGroupConv(channels, outputs, kernel, stride, norm)
        case _:
            return _pool(family, kernel, channels, stride, norm, pool_norm)


def preprocess(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """Brings a cell's input to the cell's channels, and to half of its size at stride 2."""
    return FactorizedReduce(inputs, outputs, norm) if stride == 2 else ReluConvNorm(inputs, outputs, 1, 1, norm)


def prepare(op: str, inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """What a cell does to an input first: ``preprocess``, another map to the same shape, or nothing."""
    if op == BARE:
        return nn.Identity()
    if op == "conv_1x1":
        return preprocess(inputs, outputs, stride, norm)
    return make_op(op, inputs, stride, norm, outputs=outputs)
