"""When a search by stages does what: epochs, warm-up, dropout behind skip connections, ops that an edge has left.

TND-NAS (arXiv 2111.03892) after P-DARTS (arXiv 1904.12760, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stages:
    """Stages of equal length; all counts are from 0."""

    count: int
    epochs: int
    """Of all stages together."""
    warmup: float
    """Share of a stage's epochs in which the weights alone learn."""
    skip_dropout: Sequence[float] = ()
    """Initial rate of each stage; stages beyond the last have the last. Empty: none."""

    def length(self, stage: int) -> int:
        """Epochs of a stage; what does not divide evenly goes to the first ones."""
        whole, rest = divmod(self.epochs, self.count)
        return whole + (stage < rest)

    def before(self, stage: int) -> int:
        """Epochs of all stages before it."""
        return sum(self.length(earlier) for earlier in range(stage))

    def warm(self, stage: int) -> int:
        """Epochs before the first policy step; one epoch at least has some."""
        return min(round(self.warmup * self.length(stage)), self.length(stage) - 1)

    def skip_rate(self, stage: int, epoch: int) -> float:
        """Dropout behind skip connections: falls to 0 through the warm-up, starts anew after it and decays."""
        if not self.skip_dropout:
            return 0.0
        rate, length = self.skip_dropout[min(stage, len(self.skip_dropout) - 1)], self.length(stage)
        if epoch < self.warm(stage):
            return rate * (length - epoch - 1) / length
        return rate * math.exp(-0.2 * (epoch - self.warm(stage)))

    def left_after(self, stage: int, ops: int, given: Sequence[int] = ()) -> int:
        """Ops of an edge after a stage, of ``ops`` at first: as ``given``, else in equal steps to 1; 2 at least before
        the last stage, which has to have something to choose.
        """
        if given:
            return given[stage]
        least = 1 if stage == self.count - 1 else min(2, ops)
        return max(least, ops - math.ceil((ops - 1) * (stage + 1) / self.count))
