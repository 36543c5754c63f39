"""Settings that all differentiable searches share."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from nas_core.settings import settings


@settings
class Collapse:
    """When a search ends early because it collapses; what it has found by then stays."""

    parameter_free: Annotated[float, Gt(0), Le(1)] | None = None
    """Share of ops without parameters (skips, pools) in the normal cell derived last, from which it ends; none:
    never."""
    gap: Annotated[float, Gt(0)] | None = None
    """Validation loss minus training loss of the supernet, nats, from which it ends; none: never."""
    epochs: Annotated[int, Ge(1)] = 1
    """For how many epochs in a row one of them must be reached."""


@settings
class Steps:
    """How alpha and weights learn in turn."""

    batch: Annotated[int, Ge(2)] = 64
    """Images of a training batch and of a validation batch."""
    lr: Annotated[float, Gt(0)] = 0.025
    """Initial learning rate of the weights, cosine to ``lr_min``."""
    lr_min: Annotated[float, Ge(0)] = 0.001
    """Where the cosine ends."""
    weight_decay: Annotated[float, Ge(0)] = 3e-4
    """Of the weights."""
    alpha_lr: Annotated[float, Gt(0)] = 3e-4
    """Learning rate of the architecture parameters (Adam, betas 0.5 and 0.999)."""
    alpha_weight_decay: Annotated[float, Ge(0)] = 1e-3
    """Of alpha."""
    train_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the training part that weights learn from, the same images in all epochs, of each class its part."""
    validation_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """The same of the validation part, from which alpha learns and on which networks are scored."""
    warmup_epochs: Annotated[int, Ge(0)] = 0
    """First epochs in which the weights alone learn; fewer than ``budget.epochs``."""
    share_features: bool = False
    """One feature per (source, op) for all targets; the published DARTS has one per edge."""
    fused: bool | None = None
    """Whether cells are run by the fused executor: the same but for rounding, and on a CPU faster. None: on a CPU,
    where one process searches."""
    collapse: Collapse = Collapse()
    """When the search ends before its time."""
