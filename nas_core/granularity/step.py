"""The step function by which units are kept, and its long-tailed estimator: Dynamic Sparse Training (Liu et al., ICLR
2020), as the code of MGAS (arXiv 2310.15074) uses it for operations, filters and weights alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STEEP, FLAT, FAR = 0.4, 0.4, 1.0
"""Up to where the estimate falls, at which height it stays then, and from where on there is none."""


def slope(x: Tensor) -> Tensor:
    """What stands for the derivative of the step: 2 - 4|x| up to 0.4, 0.4 up to 1 and 0 beyond."""
    away = x.abs()
    return torch.where(away <= STEEP, 2 - 4 * away, FLAT * (away <= FAR))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * slope(x)


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(weight, threshold, kept)
        return weight * ((weight.abs() > threshold) & kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, threshold, kept = ctx.saved_tensors
        away = weight.abs() - threshold
        gradient = gradients[0] * kept
        by_mask = gradient * weight * slope(away)
        return gradient * (away > 0) + by_mask * weight.sign(), -by_mask.sum().reshape(threshold.shape), None


def step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0. Its gradient is taken for ``slope``."""
    kept: Tensor = _Step.apply(x)  # type: ignore[no-untyped-call]
    return kept


def masked(weight: Tensor, threshold: Tensor, kept: Tensor) -> Tensor:
    """``weight * step(|weight| - threshold) * kept``, with the gradients of that to weight and threshold (a scalar), in
    few passes over the kernel; ``kept``: bool, the weight's shape.
    """
    out: Tensor = _Masked.apply(weight, threshold, kept)  # type: ignore[no-untyped-call]
    return out
