"""How good sampled networks are: what they reached on a supernet, alone or beside scores of the untrained network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import Architecture, Genotype, genotype_from_json
from nas_core.costs import count
from nas_core.proxies import Untrained, noise_images
from nas_core.ranking import Blend, agreed
from nas_core.recipe import TRAINING_PASSES, shrunk_input
from nas_core.search import Problem
from nas_core.training import seed_of

Signal = Literal["supernet", "progressivity", "synflow", "macs"]
LEAST = -1e9
"""Of a network through which nothing flows."""
Floats = NDArray[np.float64]


class Merit:
    """Accuracies of samples on a supernet, and what else ranks them. More is better, everywhere."""

    def __init__(self, problem: Problem[Any], ranked_by: Mapping[Signal, float], shrink: int, draws: int = 1) -> None:
        """``ranked_by``: weights, ``supernet`` among them; ``shrink`` of the noise images that untrained networks see,
        ``draws`` of their weights, over which a score is the mean.

        Raises InvalidSettingsError for images that cannot be shrunk so far.
        """
        self.device, self.seed = problem.device, problem.seed
        self.seeds = [seed_of(problem.seed, "untrained", *([draw] if draw else [])) for draw in range(draws)]
        self.others: list[Signal] = [name for name in ranked_by if name != "supernet"]
        self.weights = np.array([ranked_by["supernet"], *(ranked_by[name] for name in self.others)])
        skeleton = problem.skeleton
        self.skeleton = replace(skeleton, input=shrunk_input(skeleton.input, shrink, "untrained_shrink"))
        self.named = [self.others, shrink, draws]
        """What the untrained scores are, of images how small, over how many draws."""
        self.spent = 0.0
        """Multiply-adds."""
        self.seen: dict[str, list[float]] = {}
        """By genotype: how often its accuracy was taken, and the sum of them, percent."""
        self._others: dict[str, list[float]] = {}
        self._anew: dict[str, list[float]] = {}
        """Of networks whose untrained scores were taken anew in the end; no other search goes on from these."""
        self._blend: Blend | None = None

    def record(self, key: str, accuracy: float) -> None:
        """One more accuracy of a genotype."""
        record = self.seen.setdefault(key, [0.0, 0.0])
        record[0] += 1.0
        record[1] += accuracy

    def signals(self, genotype: Genotype) -> list[float]:
        """All but the supernet's, on the searched skeleton."""
        key = genotype.key()
        if key in self._anew:
            return self._anew[key]
        if key not in self._others:
            architecture = Architecture(genotype, self.skeleton)
            self._others[key] = self._taken(architecture, self.seeds)
        return self._others[key]

    def take_anew(self, genotype: Genotype, draws: int) -> None:
        """Its untrained scores, over draws of weights that none of the others had. What was chosen among many for high
        scores was chosen for lucky draws as well.
        """
        if self.others:
            architecture = Architecture(genotype, self.skeleton)
            seeds = [seed_of(self.seed, "anew", draw) for draw in range(draws)]
            self._anew[genotype.key()] = self._taken(architecture, seeds)

    def _taken(self, architecture: Architecture, seeds: Sequence[int]) -> list[float]:
        """Means over draws of an untrained network's weights, a seed each."""
        if not {"synflow", "progressivity"} & set(self.others):
            return [float(count(architecture).macs) for _ in self.others]
        network = Untrained(architecture, self.device)
        draws = [self._of_a_draw(architecture, network, seed) for seed in seeds]
        return [float(mean) for mean in np.mean(draws, axis=0)]

    def _of_a_draw(self, architecture: Architecture, network: Untrained, seed: int) -> list[float]:
        macs = float(count(architecture).macs)
        found: dict[Signal, float] = {"macs": macs}
        if "synflow" in self.others:
            self.spent += TRAINING_PASSES * macs
            found["synflow"] = network.synflow(seed)
        if "progressivity" in self.others:
            images = noise_images(architecture)
            self.spent += images * macs
            found["progressivity"] = network.progressivity(seed, images)
        return [max(found[name], LEAST) if math.isfinite(found[name]) else LEAST for name in self.others]

    def learn(self) -> None:
        """From all samples so far, what accuracy a network deserves by its signals."""
        self._blend = Blend(self.table(self.seen), self.weights)

    def deserved(self, genotype: Genotype, accuracy: float) -> float:
        """An accuracy, percent: of several signals together, else the given one; ``learn`` comes first."""
        assert self._blend is not None
        return float(self._blend(np.array([[accuracy, *self.signals(genotype)]]))[0])

    def worth(self, keys: Sequence[str]) -> Floats:
        """(genotypes,): what samples deserve by their mean accuracies, percent; ``learn`` comes first."""
        assert self._blend is not None
        return self._blend(self.table(keys))

    def table(self, keys: Iterable[str]) -> Floats:
        """(genotypes, signals): mean accuracies of samples, and the others."""
        return np.array(
            [[total / times, *self.signals(genotype_of(key))] for key in keys for times, total in [self.seen[key]]]
        )

    def agreed(self, table: Floats) -> Floats:
        """(n, signals) -> (n,): by the weighted logarithms of ranks."""
        return agreed(table, self.weights)

    def in_order(self, genotypes: Sequence[Genotype], errors: Sequence[float]) -> list[float]:
        """What stands for their errors: where several signals rank them, the given errors in the order in which the
        signals agree. Ranks are those among all samples: what is rare among the best is common among them.
        """
        if not self.others:
            return list(errors)
        rows = [[100.0 * (1.0 - e), *self.signals(genotype)] for e, genotype in zip(errors, genotypes, strict=True)]
        keys = {genotype.key() for genotype in genotypes}
        others = self.table(key for key in self.seen if key not in keys)
        agreement = self.agreed(np.array([*rows, *others]))[: len(rows)]
        found = np.empty(len(rows))
        found[np.argsort(-agreement)] = np.sort(errors)
        return [float(error) for error in found]

    def state(self) -> dict[str, Any]:
        return {
            "seen": {key: list(record) for key, record in self.seen.items()},
            "others": {key: list(signals) for key, signals in self._others.items()},
            "spent": self.spent,
            "named": list(self.named),
        }

    def inherit(self, state: Mapping[str, Any]) -> None:
        """Takes over what another search has seen; its untrained scores where they are of the same kinds."""
        self.seen = {key: list(record) for key, record in state["seen"].items()}
        if list(state["named"]) == self.named:
            self._others = {key: list(signals) for key, signals in state["others"].items()}

    def resume(self, state: Mapping[str, Any]) -> None:
        self.seen = {key: list(record) for key, record in state["seen"].items()}
        self._others = {key: list(signals) for key, signals in state["others"].items()}
        self.spent = float(state["spent"])


def genotype_of(key: str) -> Genotype:
    """A genotype's key is its canonical JSON."""
    return genotype_from_json(key)
