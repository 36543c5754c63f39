"""What the tests of policies and of progressive searches share: metrics without a gradient, and parts of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nas_core.algorithms.tnd_nas import TndNas
from nas_core.architecture import Genotype
from nas_core.costs import count
from nas_core.evaluation import Evaluator
from nas_core.merit import Signal
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.policy import Policy
from nas_core.progressive import Run
from nas_core.search import Axes, Problem, drive, start
from nas_core.spaces.darts import TYPES, DartsCells
from nas_core.spaces.nasbench201 import NasBench201, ops_of
from nas_core.values import Value
from tests.contracts.problems import problem

NORMAL = ("none", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5")
NORMAL += ("conv_1x1", "conv_3x3", "conv_3x1_1x3")
REDUCE = ("none", "skip_connect", "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "avg_pool_3x3")
PUBLISHED = DartsCells(cells=20, channels=36, normal_ops=NORMAL, reduce_ops=REDUCE, fan_in="any")
PLAIN: dict[Signal, float] = {"supernet": 1.0}
AXES = Axes({"error": Error(), "params": Params()})


def everything(space: Any) -> dict[str, np.ndarray]:
    return {name: np.ones((len(space.edges), len(space.ops(name))), dtype=bool) for name in TYPES if space.ops(name)}


def policy(space: Any = PUBLISHED, lr: float = 6e-3, seed: int = 0) -> Policy:
    left = everything(space)
    return Policy({name: mask.shape for name, mask in left.items()}, left, lr, 1e-3, seed)


def answered(asking: Any, on: Problem[Any]) -> None:
    """Drives a part of a search to its end."""
    for _ in drive(asking, Evaluator(on)):
        pass


def steps_of(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.Generator().manual_seed(0)
    yield from run.weights.train.batches(16, order, None, run.problem.device)


def alphas_of(run: Run) -> list[torch.Tensor]:
    return [alpha.clone() for p in run.policies.preferences for alpha in p.policy.alpha.values()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def convolutions(genotype: Genotype) -> float:
    """Of a cell of NAS-Bench-201, and one."""
    return 1.0 + sum(op.startswith("conv") for op in ops_of(genotype))


class Edges:
    """A black box: how many ops of a cell are no skips or pools; no graph, no table."""

    unit, direction, source = "", "minimize", "measured"

    def __init__(self, fails: Callable[[int], float | None] = lambda call: None) -> None:
        self.fails, self.calls = fails, 0

    def measure(self, architectures: Any, device: torch.device) -> list[Value]:
        found = []
        for architecture in architectures:
            self.calls += 1
            broken = self.fails(self.calls)
            found.append(Value(convolutions(architecture.genotype) if broken is None else broken, "", "measured"))
        return found


@dataclass
class BlackBox:
    """Any function of a genotype."""

    of: Callable[[Genotype], float]
    unit, direction, source = "", "minimize", "measured"

    def measure(self, architectures: Any, device: torch.device) -> list[Value]:
        return [Value(self.of(each.genotype), "", "measured") for each in architectures]


@dataclass
class Board:
    """Parameters, told by a board that may be out."""

    unit, direction, source = "", "minimize", "measured"
    out: bool = False

    def measure(self, architectures: Any, device: torch.device) -> list[Value]:
        return [Value(float("nan") if self.out else float(count(a).params), "", "measured") for a in architectures]


class Margin:
    unit, direction, source = "dB", "maximize", "measured"

    def measure(self, architectures: Any, device: torch.device) -> list[Value]:
        return [Value(-3.0, "dB", "measured") for _ in architectures]


def front_of(key: str, objective: Any, **settings: Any) -> tuple[np.ndarray, list[Any]]:
    """(points, 2): errors and costs of what a search proposes in a small NAS-Bench-201, and all its events."""
    on = problem(space=NasBench201(cells=5, channels=4), epochs=6, evaluations=40)
    on = replace(on, axes=Axes({"error": Error(), key: objective}, on.axes.bounds))
    settings.setdefault("ranked_by", PLAIN)
    settings = {"ranked_by": PLAIN, "score": "expected_error", **settings}
    algorithm = TndNas(batch=16, samples=4, weights="paths", alpha_lr=0.05, warmup=0.0, **settings)
    events = list(drive(start(algorithm, on), Evaluator(on)))
    found = [event.evaluation for event in events if type(event).__name__ == "Evaluated"]
    return np.array([[e.values[0]["error"].value, e.values[0][key].value] for e in found if e.failure is None]), events
