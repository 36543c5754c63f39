"""A plug-in whose search brings weight masks and weights along, as MGAS does, and a job of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIEVE = '''
from typing import ClassVar

import numpy as np
import torch

from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture
from nas_core.events import Checkpoint, Progress, Propose
from nas_core.masks import masked
from nas_core.network import Network
from nas_core.search import SearchSpace
from nas_core.settings import settings
from nas_core.values import Value


@algorithms.register("sieve")
@settings
class Sieve:
    """Each step is a random network without a share of the weights of its cells."""

    share: float = 0.4
    """Of weights that are masked."""
    needs: ClassVar[type] = SearchSpace
    brings_weights: ClassVar[bool] = True

    def search(self, problem, resume=None):
        steps = resume["steps"] if resume else 0
        while steps < problem.budget.evaluations:
            steps += 1
            genotype = problem.space.sample(np.random.default_rng([problem.seed, steps]))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(steps)
                state = Network(Architecture(genotype, problem.targets[0])).state_dict()
            generator = torch.Generator().manual_seed(steps)
            kept = {
                name: torch.rand(tensor.shape, generator=generator) >= self.share
                for name, tensor in state.items()
                if name.startswith("cells.") and tensor.dim() == 4
            }
            genotype, masks = masked(genotype, kept)
            scored = {"error": Value(1 / (1 + steps), "", "supernet")}
            yield Propose((genotype,), (scored,), masks=(masks,), weights=(state,))
            yield Progress("search", steps, problem.budget.evaluations)
            yield Checkpoint({"steps": steps})
'''
SPEC: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
    "dataset": {"name": "digits", "fraction": 0.1},
    "objectives": ["error", "params"],
    "algorithm": {"name": "sieve", "share": 0.4},
    "budget": {"evaluations": 3},
    "verify": {"top": 1, "epochs": 1},
    "seed": 5,
}


def write(folder: Path) -> Path:
    """The plug-in's file."""
    path = folder / "sieve.py"
    path.write_text(SIEVE)
    return path
