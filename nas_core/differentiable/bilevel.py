"""Gradients of the bilevel problem of DARTS (arXiv 1806.09055, equations 3 to 8), on plain tensors and closures.

    min over alpha of L_val(w*(alpha), alpha)    subject to    w*(alpha) = argmin over w of L_train(w, alpha)

A loss is a closure that gives its terms (one for each piece of a batch), so that only one graph is alive at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_core.groups import ALONE, Group

Loss = Callable[[], Iterable[Tensor]]
"""Scalars that add up to it, computed anew at each call."""
Gradients = list[Tensor | None]
"""One for each tensor that was asked about; None for what the loss does not use."""

PERTURBATION = 0.01
"""Length of the finite difference in weight space."""


def gradients(loss: Loss, wanted: Sequence[Tensor], group: Group = ALONE) -> tuple[Gradients, Tensor]:
    """Of the sum of a loss's terms, and that sum, detached; over all processes of a group."""
    found: Gradients = [None] * len(wanted)
    total: Tensor | None = None
    for term in loss():
        for place, gradient in enumerate(torch.autograd.grad(term, wanted, allow_unused=True)):
            so_far = found[place]
            found[place] = gradient if so_far is None or gradient is None else so_far + gradient
        total = term.detach() if total is None else total + term.detach()
    assert total is not None, "a loss has a term at least"
    group.add([total, *(gradient for gradient in found if gradient is not None)])
    return found, total


@dataclass(frozen=True, slots=True)
class VirtualStep:
    """The step of SGD that second-order gradients look through: w' = w - lr (momentum * buffer + gradient + decay * w),
    before any clipping.
    """

    lr: float
    """xi in the paper: the current learning rate of the weights; 0 is first order."""
    momentum: float = 0.0
    weight_decay: float = 0.0
    buffers: Sequence[Tensor | None] = ()
    """The optimiser's momentum, one for each weight; none before the first step."""

    def changes(self, weights: Sequence[Tensor], by_training: Gradients) -> Gradients:
        """By how much each weight falls; None for what training does not move."""
        buffers = self.buffers or [None] * len(weights)
        found: Gradients = []
        for weight, gradient, buffer in zip(weights, by_training, buffers, strict=True):
            if gradient is None:
                found.append(None)
                continue
            step = gradient + self.weight_decay * weight
            found.append(self.lr * (step if buffer is None else self.momentum * buffer + step))
        return found


def second_order(
    train: Loss,
    validation: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    step: VirtualStep,
    group: Group = ALONE,
) -> tuple[Gradients, Tensor]:
    """Of the validation loss after one step of training, with respect to alpha (equations 7 and 8); and that loss.

    The product with the second derivative is a central difference of two gradients of the training loss, at weights
    moved by 0.01 along the direction of v. The weights are what they were afterwards, bit for bit.
    """
    with _moved(weights) as (kept, move):
        by_training, _ = gradients(train, weights, group)
        move(step.changes(kept, by_training), -1.0)
        found, loss = gradients(validation, [*weights, *alphas], group)
        directions, direct = found[: len(weights)], found[len(weights) :]
        squares = [(direction**2).sum() for direction in directions if direction is not None]
        norm = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
        if norm == 0.0:
            return direct, loss
        epsilon = PERTURBATION / norm
        move(directions, epsilon)
        above, _ = gradients(train, alphas, group)
        move(directions, -epsilon)
        below, _ = gradients(train, alphas, group)
    return [
        straight if up is None or down is None else _or_zeros(straight, up) - step.lr * (up - down) / (2 * epsilon)
        for straight, up, down in zip(direct, above, below, strict=True)
    ], loss


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


@contextmanager
def _moved(weights: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], Callable[[Gradients, float], None]]]:
    """Copies of the weights, and a way to set these to the copies plus a multiple of something; then all is undone."""
    kept = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def move(by: Gradients, factor: float) -> None:
        for weight, old, change in zip(weights, kept, by, strict=True):
            weight.copy_(old if change is None else old + factor * change)

    try:
        yield kept, move
    finally:
        move([None] * len(kept), 0.0)
