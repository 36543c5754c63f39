"""How networks are trained, as data. The published evaluation recipe of DARTS (arXiv 1806.09055, A.2.1) is the model:
SGD with momentum, cosine to 0, gradient clip, optional cutout, auxiliary head and drop path.

We step the cosine schedule per batch, not per epoch: the same curve in long trainings, and no steps in short ones.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from nas_core.errors import InvalidSettingsError
from nas_core.settings import settings

TRAINING_PASSES = 3
"""Multiply-adds of a training step, in forward passes."""
SMALLEST_SIDE = 2
"""Of images a supernet is trained on, pixels."""


@settings
class Recipe:
    """Training of one stand-alone network."""

    epochs: Annotated[int, Ge(1)] = 20
    batch: Annotated[int, Ge(2)] = 96
    lr: Annotated[float, Gt(0)] = 0.025
    """Initial learning rate, cosine to 0."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[float, Ge(0)] = 3e-4
    clip: Annotated[float, Gt(0)] = 5.0
    """Largest norm of the gradient."""
    drop_path: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Probability at the end of a linear ramp."""
    auxiliary: Annotated[float, Ge(0)] = 0.0
    """Weight of the auxiliary loss; 0 = no auxiliary head."""
    augment: bool = True
    """Whether the data set's own augmentation (crops, flips) is used; short trainings of small networks learn more
    without."""
    cutout: Annotated[int, Ge(0)] = 0
    """Side of the square, pixels; 0 = none."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0


@settings
class ShortTraining:
    """Score a candidate by training it briefly on the search skeleton."""

    epochs: Annotated[int, Ge(1), Le(10_000)] = 2
    subset: Annotated[int, Ge(2)] | None = None
    """Training images used, the same ones for every candidate; default: all of the train split."""
    batch: Annotated[int, Ge(2), Le(65_536)] = 64
    lr: Annotated[float, Gt(0), Le(10)] = 0.05
    score_images: Annotated[int, Ge(2)] | None = None
    """Validation images a candidate is scored on, the same ones for all; default: all of them."""

    def recipe(self) -> Recipe:
        return Recipe(epochs=self.epochs, batch=self.batch, lr=self.lr)


@settings
class SupernetTraining:
    """Score candidates with weights inherited from one supernet, trained on sampled paths.

    Guo et al., "Single Path One-Shot NAS with Uniform Sampling", arXiv 1904.00420.
    """

    supernet_epochs: Annotated[int, Ge(1), Le(10_000)]
    """Epochs of the shared supernet; the job's ``budget.epochs`` may end it earlier."""
    batch: Annotated[int, Ge(2), Le(65_536)] = 64
    lr: Annotated[float, Gt(0), Le(10)] = 0.05
    """Initial learning rate, cosine to ``lr_end``."""
    lr_end: Annotated[float, Ge(0), Le(10)] = 0.0
    """Equal to ``lr``: the rate is constant, and a supernet trained for longer is the same one, further on."""
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 3e-4
    augment: bool = True
    """Whether the data set's own augmentation (crops, flips) is used."""
    average: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Decay, a step, of the moving average of the weights that candidates are scored with; 0: the last weights."""
    draws: Annotated[int, Ge(1), Le(100)] = 1
    """Genotypes drawn for each step, of which the one with the most multiply-adds is trained: what costs more needs
    more training. 1: paths are uniform."""
    shrink: Annotated[int, Ge(1), Le(64)] = 1
    """Images are made this many times smaller on either side, by averaging; a small supernet sees more of them in the
    same time."""
    score: Literal["error", "expected_error"] = "error"
    """What stands for a candidate's error: the share of images it gets wrong, or the mean probability that it gives to
    wrong classes."""
    score_images: Annotated[int, Ge(2)] | None = None
    """Validation images a candidate is scored on, the same ones for all; default: all of them."""
    share_features: bool = False
    """One feature per (source, op) for all targets instead of one per edge."""


def shrunk_input(input: tuple[int, int, int], shrink: int, setting: str = "evaluate.shrink") -> tuple[int, int, int]:
    """What ``shrink`` leaves of images of ``input`` (C, H, W). Raises InvalidSettingsError, naming the setting, where
    that is too little.
    """
    channels, height, width = input
    most = max(1, min(height, width) // SMALLEST_SIDE)
    if shrink > most:
        raise InvalidSettingsError(
            f"{setting}: {shrink} leaves {height // shrink}x{width // shrink} pixels of {height}x{width}; "
            f"at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed: use {most} or less"
        )
    return channels, height // shrink, width // shrink


Estimation = ShortTraining | SupernetTraining
