"""A plug-in whose search goes on from that of another job, and a job of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LADDER = '''
from typing import ClassVar

import numpy as np
import torch

from nas_core.algorithms import algorithms
from nas_core.events import Checkpoint, Progress, Propose
from nas_core.search import SearchSpace
from nas_core.settings import settings
from nas_core.values import Value


@algorithms.register("ladder")
@settings
class Ladder:
    """Each step is a random network, and a better one than the step before; another job's steps go on."""

    length: int = 2
    """Of a step."""
    needs: ClassVar[type] = SearchSpace
    hands_on: ClassVar[bool] = HANDS_ON
    redone: ClassVar[frozenset[str]] = frozenset({"length"})

    def search(self, problem, resume=None):
        before = problem.inherited or {"steps": 0, "sum": torch.zeros(2)}
        state = resume or {"began": before["steps"], "steps": before["steps"], "sum": before["sum"]}
        while (done := state["steps"] - state["began"]) < problem.budget.evaluations:
            steps = state["steps"] + 1
            genotype = problem.space.sample(np.random.default_rng([problem.seed, steps]))
            yield Propose((genotype,), ({"error": Value(1 / (1 + steps), "", "supernet")},))
            yield Progress("search", done + 1, problem.budget.evaluations)
            state = {**state, "steps": steps, "sum": state["sum"] + self.length}
            yield Checkpoint(state)
'''
SPEC: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.3},
    "objectives": ["error", "params"],
    "algorithm": {"name": "ladder", "length": 2},
    "budget": {"evaluations": 3},
    "verify": {"top": 1, "epochs": 1},
    "seed": 5,
}


def write(folder: Path, hands_on: bool = True) -> Path:
    """The plug-in's file."""
    path = folder / "ladder.py"
    path.write_text(LADDER.replace("HANDS_ON", str(hands_on)))
    return path
