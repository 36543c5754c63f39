"""Several trade-offs searched side by side on one supernet: a policy and a reward for each, and where they stand.

The published method has one preference, whose exponents its authors tuned by hand from run to run; that several share a
supernet, spread over the trade-off and move to where the front has gaps, is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas_core.architecture import Genotype
from nas_core.pareto import hypervolume
from nas_core.policy import Columns, Policy, strongest
from nas_core.reward import Reward, widest_gap
from nas_core.search import Relaxable, derivable

Floats = NDArray[np.float64]
Left = dict[str, NDArray[np.bool_]]
IDLE = 0.25
"""Of the mean contribution to the hypervolume: a preference that adds less moves."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A genotype drawn from a policy, and the op it has on each edge."""

    genotype: Genotype
    columns: Columns


@dataclass
class Preference:
    """A direction of the trade-off and the policy that looks there."""

    direction: Floats
    """(1 + costs,): unit vector of accuracy and costs (``reward.directions``)."""
    left: Left
    """Ops on each edge that it has not dropped, (edges, ops) by type: what its weight steps train."""
    policy: Policy
    """Over all that the supernet still has: an op leaves an edge when no preference keeps it."""
    reward: Reward | None = None
    """None until the first samples show how much accuracy and costs vary; that of the stage before until those of a
    stage do."""

    def state(self) -> dict[str, Any]:
        reward = self.reward and {
            "exponents": dict(self.reward.exponents),
            "references": dict(self.reward.references),
        }
        return {
            "direction": self.direction.tolist(),
            "left": {name: torch.from_numpy(mask.copy()) for name, mask in self.left.items()},
            "policy": self.policy.state(),
            "reward": reward,
        }

    def resume(self, state: Mapping[str, Any], reward: Callable[..., Reward]) -> None:
        self.direction = np.array(state["direction"])
        self.left = {name: mask.numpy().copy() for name, mask in state["left"].items()}
        self.policy.resume(state["policy"])
        self.reward = None if state["reward"] is None else reward(**state["reward"])


def draw(space: Relaxable, policy: Policy, rng: np.random.Generator, explore: float = 0.0) -> Sample:
    """An op for each edge, and what the space makes of them: where they are no genotype of it, the one that its own
    rule of derivation comes to. Ops that this changed count as drawn.
    """
    drawn, strengths = policy.draw(rng, explore), policy.strengths()
    for name, ops in drawn.items():
        rows = np.arange(len(ops))
        chances = strengths[name][rows, ops]
        strengths[name] *= 0.5
        strengths[name][rows, ops] = 1.0 + chances
    genotype = space.derive(strengths)
    selection = space.selection(genotype)
    columns = {
        name: np.where(selection[name].any(axis=1), selection[name].argmax(axis=1), drawn[name]) for name in drawn
    }
    return Sample(genotype, columns)


def with_few_skips(
    space: Relaxable, name: str, genotype: Genotype, strengths: Mapping[str, Floats], most: int
) -> Genotype:
    """The weakest skip connections of one type give way in ``strengths``, until what they derive has ``most``
    (P-DARTS, arXiv 1904.12760, section 3.3), or no edge with one has another op left (of a strength above 0).
    """
    if "skip_connect" not in space.ops(name):
        return genotype
    column = space.ops(name).index("skip_connect")
    others = derivable(space, name)
    others[column] = False
    while True:
        skips = np.flatnonzero(space.selection(genotype)[name][:, column])
        giving = skips[(strengths[name][skips][:, others] > 0).any(axis=1) & (strengths[name][skips, column] > 0)]
        if len(skips) <= most or not len(giving):
            return genotype
        strengths[name][giving[strengths[name][giving, column].argmin()], column] = 0.0
        genotype = space.derive(strengths)


def union(lefts: Iterable[Left]) -> Left:
    """What at least one has."""
    found: Left = {}
    for left in lefts:
        for name, mask in left.items():
            found[name] = found[name] | mask if name in found else mask.copy()
    return found


def refined(preferences: Sequence[Preference], costs: Floats) -> tuple[int, int, int] | None:
    """Which preference should move, and between which two: of those that are no end of the trade-off (none looks more
    at accuracy, or at one of the costs), the one that adds least to the hypervolume of what they derive, to between the
    two that are farthest apart. ``costs`` (preferences, axes), minimised. None where each is of use.
    """
    ends = set(np.array([preference.direction for preference in preferences]).argmax(axis=0).tolist())
    inner = [place for place in range(len(preferences)) if place not in ends]
    if not inner:
        return None
    low, high = costs.min(axis=0), costs.max(axis=0)
    scaled = (costs - low) / np.where(high > low, high - low, 1.0)
    whole = [1.1] * costs.shape[1]
    total = hypervolume(scaled, whole)
    gains = np.array([total - hypervolume(np.delete(scaled, place, axis=0), whole) for place in range(len(scaled))])
    least = min(inner, key=lambda place: float(gains[place]))
    others = [place for place in range(len(scaled)) if place != least]
    gap = widest_gap(scaled[others])
    if gains[least] > IDLE * gains.mean() or gap is None:
        return None
    return least, others[gap[0]], others[gap[1]]


def between(one: Preference, other: Preference, keep: Mapping[str, int], space: Relaxable) -> tuple[Floats, Left]:
    """Direction and ops of a preference between two: of the ops of both, those that are likeliest in the mean of their
    policies, as many on each edge as ``keep`` says.
    """
    direction = one.direction + other.direction
    mine, theirs = one.policy.strengths(), other.policy.strengths()
    strengths = {name: (mine[name] + theirs[name]) / 2 for name in mine}
    left = strongest(
        strengths, union([one.left, other.left]), keep, {name: derivable(space, name) for name in strengths}
    )
    return direction / np.linalg.norm(direction), left
