"""Kernels of the fused executor, with gradients of their own, and how their maps lie.

Maps are (N, C, H, W) in channels-last order; ``rows`` is such a map as (N * H * W, C). Ops side by side share the
channels: (N, ops * C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_core.compiled import Step, aten, dense, moments

# --- how maps lie ---------------------------------------------------------------------------------------------------


def _rows(x: Tensor) -> Tensor:  # (N, C, H, W) -> (N * H * W, C)
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _by_op(x: Tensor, ops: int) -> Tensor:  # (N, ops * C, H, W) -> (ops, N * H * W, C)
    rows = _rows(x)
    return rows.view(len(rows), ops, -1).transpose(0, 1)


def _maps(rows: Tensor, like: Tensor) -> Tensor:  # (N * H * W, C), (N, *, H, W) -> (N, C, H, W)
    n, _, height, width = like.shape
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)


def to_even(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x


def to_phases(x: Tensor) -> Tensor:  # (N, C, H, W) -> (4N, C, ceil(H / 2), ceil(W / 2))
    """Four maps of every second row and column, in channels-last order; odd sizes end in zeros."""
    n, c, height, width = (x := to_even(x)).shape
    rows = x.permute(0, 2, 3, 1).reshape(n, height // 2, 2, width // 2, 2, c)
    return rows.permute(2, 4, 0, 1, 3, 5).reshape(4 * n, height // 2, width // 2, c).permute(0, 3, 1, 2)


def from_phases(x: Tensor) -> Tensor:  # (4N, C, H, W) -> (N, C, 2H, 2W)
    n, c, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(2, 2, n // 4, height, width, c)
    return rows.permute(2, 3, 0, 4, 1, 5).reshape(n // 4, 2 * height, 2 * width, c).permute(0, 3, 1, 2)


# --- kernels with gradients of their own ----------------------------------------------------------------------------


class Halves(torch.autograd.Function):
    """What the two convolutions of a factorized reduce see of a map: ReLU of every second row and column, from the
    first and from the second; the latter ends in zeros where the size is odd. Its gradient fills one map, in the order
    that all others have.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> twice (N, C, ceil(H/2), ceil(W/2))
        even, odd = dense(x[:, :, ::2, ::2]).relu(), dense(to_even(x)[:, :, 1::2, 1::2]).relu()
        ctx.save_for_backward(even, odd)
        ctx.shape = x.shape
        ctx.set_materialize_grads(False)
        return even, odd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor:
        some = next(gradient for gradient in gradients if gradient is not None)
        found = torch.empty(ctx.shape, dtype=some.dtype, device=some.device, memory_format=torch.channels_last).zero_()
        for first, (gradient, half) in enumerate(zip(gradients, ctx.saved_tensors, strict=True)):
            if gradient is not None:
                place = found[:, :, first::2, first::2]
                height, width = place.shape[2:]
                place.copy_(aten.threshold_backward(gradient, half, 0)[:, :, :height, :width])
        return found


def _side_by_side(weights: Sequence[Tensor]) -> Tensor:  # (C, 1, k, k) by op -> (ops * C, 1, k, k)
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _stacked(some: Sequence[Tensor]) -> Tensor:
    """As ``torch.stack``, which copies even a single one."""
    return some[0][None] if len(some) == 1 else torch.stack(list(some))


def _pointwise(rows: Tensor, weights: Tensor, like: Tensor) -> Tensor:  # (ops, N * H * W, C), (ops, C, C) -> like
    """A matrix product for each op, side by side."""
    if len(rows) == 1:
        return _maps(torch.bmm(rows, weights)[0], like)
    found = torch.empty_like(like)
    torch.bmm(rows, weights, out=_by_op(found, len(rows)))
    return found


def _depthwise(x: Tensor, weight: Tensor, step: Step) -> Tensor:
    return F.conv2d(x, weight, None, step.stride, step.padding, step.dilation, groups=len(weight))


def _backward(g: Tensor, x: Tensor, weight: Tensor, step: Step, wanted: tuple[bool, bool]) -> Any:
    """Gradients by a depthwise convolution's input and weight, None for what is not wanted."""
    return _convolved(g, x, weight, step, (step.padding, step.padding), wanted)


def _convolved(
    g: Tensor, x: Tensor, weight: Tensor, step: Step, padding: tuple[int, int], wanted: tuple[bool, bool]
) -> Any:
    stride, dilation, groups = [step.stride] * 2, [step.dilation] * 2, x.shape[1] // weight.shape[1]
    return aten.convolution_backward(
        g, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [*wanted, False]
    )[:2]


def _weight_gradient(g: Tensor, x: Tensor, weight: Tensor, step: Step, windows: bool) -> Tensor:
    """Of a depthwise convolution, (C, 1, k, k). oneDNN has a fast gradient for three columns, not for more."""
    size, half = weight.shape[-1], weight.shape[-1] // 2
    if not windows or half < 2 or step.dilation > 1:
        whole: Tensor = _backward(g, x, weight, step, (False, True))[1]
        return whole
    if step.stride == 1 and x.shape[2] < size:  # nor for maps that are lower than the kernel
        below = 0, 0, 0, size - x.shape[2]
        g, x = dense(F.pad(g, below)), F.pad(x, below)
    found = []
    for centre in (*range(-half, -1), 0, *range(2, half + 1)):
        reach = 0 if centre else 1  # three columns in the middle, one at a time beside them
        moved = F.pad(x, (-centre, centre)) if abs(centre) < x.shape[3] else torch.zeros_like(x)
        columns = weight[..., half + centre - reach : half + centre + reach + 1]
        found.append(_convolved(g, moved if centre else x, columns, step, (step.padding, reach), (False, True))[1])
    return torch.cat(found, dim=3)


class Repeat(torch.autograd.Function):
    """The same map several times, side by side in channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, times: int) -> Tensor:  # (N, C, H, W) -> (N, times * C, H, W)
        ctx.times = times
        return torch.cat([x] * times, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        rows = _rows(g)
        return _maps(rows.view(len(rows), ctx.times, -1).sum(dim=1), g), None


class Chains(torch.autograd.Function):
    """Depthwise and pointwise convolutions, batch norm and ReLU between two such pairs, of several ops side by side."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, steps: tuple[Step, ...], eps: float, windows: bool, *weights: Tensor
    ) -> tuple[Tensor, ...]:  # (N, ops * C, H, W), ..., by op (C, 1, k, k), (C', C, 1, 1), ... -> (N, C', H', W') by op
        depths = [_side_by_side(weights[2 * index :: 2 * len(steps)]) for index in range(len(steps))]
        points = [_stacked(weights[2 * index + 1 :: 2 * len(steps)]).flatten(2) for index in range(len(steps))]
        kept = [x]
        for index, step in enumerate(steps):
            if index:
                z, mean, inverse = torch.native_batch_norm(x, None, None, None, None, True, 0.0, eps)
                kept += [x, mean, inverse, F.relu_(z)]
                x = z
            between = dense(_depthwise(x, depths[index], step))
            kept.append(between)
            rows, mixes = _by_op(between, len(points[index])), points[index].transpose(1, 2)
            if index == len(steps) - 1:
                outputs = tuple(_maps(some, between) for some in torch.bmm(rows, mixes).unbind())
            else:
                x = _pointwise(rows, mixes, between)
        ctx.save_for_backward(*weights, *kept)
        ctx.steps, ctx.eps, ctx.windows, ctx.count = steps, eps, windows, len(weights)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, weights, kept = ctx.steps, ctx.saved_tensors[: ctx.count], list(ctx.saved_tensors[ctx.count :])
        learn = any(ctx.needs_input_grad[4:])
        found: list[Tensor | None] = [None] * ctx.count
        rows = _stacked([_rows(g) for g in gradients])  # (ops, N * H' * W', C')
        ops = len(rows)
        g = gradients[0]
        for index in reversed(range(len(steps))):
            between, step = kept.pop(), steps[index]
            places = slice(2 * index + 1, None, 2 * len(steps))
            wide = _pointwise(rows, _stacked(weights[places]).flatten(2), between)
            if learn:
                found[places] = torch.bmm(rows.transpose(1, 2), _by_op(between, ops))[..., None, None].unbind()
            x, depth = kept[-1], _side_by_side(weights[2 * index :: 2 * len(steps)])
            if learn:
                found[2 * index :: 2 * len(steps)] = _weight_gradient(wide, x, depth, step, ctx.windows).chunk(ops)
            if not index and not ctx.needs_input_grad[0]:
                return None, None, None, None, *found
            g = _backward(wide, x, depth, step, (True, False))[0]
            if index:
                y, mean, inverse, z = kept[-4:]
                del kept[-4:]
                g = aten.threshold_backward.grad_input(g, z, 0, grad_input=g)
                norm = None, None, None, mean, inverse, True, ctx.eps, [True, False, False]
                g = aten.native_batch_norm_backward(g, y, *norm)[0]
                rows = _by_op(g, ops)
        return g, None, None, None, *found


class Mix(torch.autograd.Function):
    """Weighted sums of maps, the first of which are batch-normed (statistics of the batch, not affine)."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, epsilons: tuple[float, ...], *maps: Tensor
    ) -> tuple[Tensor, ...]:  # (sums, maps), (normed,), (N, C, H, W) each -> (N, C, H, W) each
        rows = [_rows(x) for x in maps]
        features = rows[0].new_empty((len(maps), *rows[0].shape))
        inverses = []
        for index, x in enumerate(rows):
            if index < len(epsilons):
                mean, inverse = moments(maps[index], epsilons[index])
                torch.addcmul(-mean * inverse, x, inverse, out=features[index])
                inverses.append(inverse)
            else:
                features[index] = x
        sums = (weights @ features.flatten(1)).view(len(weights), *rows[0].shape)
        ctx.save_for_backward(weights, features, *inverses)
        ctx.epsilons = epsilons
        return tuple(_maps(total, maps[0]) for total in sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, features, *inverses = ctx.saved_tensors
        g = torch.stack([_rows(gradient) for gradient in gradients]).flatten(1)
        by_weight = g @ features.flatten(1).t() if ctx.needs_input_grad[0] else None
        found = []
        for index, rows in enumerate((weights.t() @ g).view(features.shape)):
            gradient = _maps(rows, gradients[0])
            if index < len(inverses):  # of the norm's output alone: as if that had been its input
                inverse, x = inverses[index], _maps(features[index], gradients[0])
                zeros, ones = torch.zeros_like(inverse), torch.ones_like(inverse)
                norm = inverse, None, None, zeros, ones, True, ctx.epsilons[index], [True, False, False]
                gradient = aten.native_batch_norm_backward(gradient, x, *norm)[0]
            found.append(gradient)
        return by_weight, None, *found


class Sum(torch.autograd.Function):
    """The sum of maps, the first of which are batch-normed (statistics of the batch, not affine) and weighted."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor | None, epsilons: tuple[float, ...], *maps: Tensor
    ) -> Tensor:  # (normed,), (normed,), (N, C, H, W) each -> (N, C, H, W)
        normed, others = maps[: len(epsilons)], maps[len(epsilons) :]
        statistics = [moments(x, eps) for x, eps in zip(normed, epsilons, strict=True)]
        scales = [inverse for _, inverse in statistics]
        if weights is not None:
            scales = [scale * weight for scale, weight in zip(scales, weights, strict=True)]
        if normed:
            means = [mean * scale for (mean, _), scale in zip(statistics, scales, strict=True)]
            shift = -sum(means[1:], start=means[0])
            total = dense(torch.addcmul(shift[:, None, None], normed[0], scales[0][:, None, None]))
        else:
            total = others[0] + others[1]
        for x, scale in zip(normed[1:], scales[1:], strict=True):
            total.addcmul_(x, scale[:, None, None])
        for x in others if normed else others[2:]:
            total.add_(x)
        flat = [value for pair in statistics for value in pair]
        ctx.save_for_backward(weights, *flat, *normed)
        ctx.epsilons, ctx.others = epsilons, len(others)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *kept = ctx.saved_tensors
        normed, g = len(ctx.epsilons), dense(g)
        statistics, maps = kept[: 2 * normed], kept[2 * normed :]
        found: list[Tensor] = []
        by_weight: list[Tensor] = []
        for index, (x, eps) in enumerate(zip(maps, ctx.epsilons, strict=True)):
            weight = None if weights is None else weights[index].expand(x.shape[1]).contiguous()
            norm = weight, None, None, *statistics[2 * index : 2 * index + 2], True, eps
            gradient, by_scale, _ = aten.native_batch_norm_backward(g, x, *norm, [True, ctx.needs_input_grad[0], False])
            found.append(gradient)
            by_weight += [by_scale.sum()] if ctx.needs_input_grad[0] else []
        return torch.stack(by_weight) if by_weight else None, None, *found, *[g] * ctx.others
