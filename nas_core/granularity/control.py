"""How strong the regulariser is: MGAS' rule (arXiv 2310.15074, by its code of August 2025), told after each commit how
many ops it removed. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGHEST = 100.0
"""What lambda may grow to as long as the loss outweighs the regulariser."""


@dataclass
class LambdaControl:
    """Lambda and the step by which it grows next."""

    start: float = 1e-5
    """First step."""
    factor: float = 2.0
    few: int = 12
    """Removed ops: with fewer than twice as many lambda grows, from four times as many on it falls."""
    value: float = 0.0
    """Lambda, in which the regulariser is added to a loss in nats."""
    delta: float = 0.0
    """Step by which it grew last; 0: not yet."""

    def removed(self, ops: int, loss: float = float("inf"), regulariser: float = 0.0) -> None:
        """After a commit that removed so many ops.

        ``loss`` and ``regulariser`` are means of the epoch (the latter of its ops alone, with the factor of the
        phase): where lambda times the regulariser outweighs the loss, neither lambda nor its step may grow.
        """
        limit = self.value if loss < self.value * regulariser else HIGHEST
        delta = self.delta or self.start
        if ops >= 4 * self.few:
            self.delta, self.value = self.start, self.value / self.factor
        elif ops < 2 * self.few and self.value < limit:
            self.delta = self.factor**2 * delta
            self.value = min(self.value + self.delta, limit)
