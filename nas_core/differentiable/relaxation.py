"""A relaxed choice of ops. This one is DARTS' (arXiv 1806.09055, equation 2); other methods override what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_core.architecture import Genotype
from nas_core.search import Problem, Relaxable
from nas_core.stages import Stages
from nas_core.supernet import Supernet
from nas_core.supernet.weights import Choice
from nas_core.training import seed_of


class Relaxation:
    """Every edge a softmax mixture of its ops, one table of alpha for each cell type.

    The engine asks it for the gates of a step, tells it after each step and each epoch, and scores what it derives.
    """

    goals: int = 1
    """Between which the epochs are shared: each wants a network of its own of the same, ever warmer supernet."""

    def __init__(self, problem: Problem[Relaxable], supernet: Supernet) -> None:
        self.problem, self.supernet = problem, supernet
        start = torch.Generator().manual_seed(seed_of(problem.seed, "alpha"))
        self.alpha: dict[str, Tensor] = {
            name: (1e-3 * torch.randn(shape, generator=start)).to(problem.device).requires_grad_()
            for name, shape in supernet.shapes.items()
        }
        """(edges, ops) by cell type: logits."""

    # --- what learns ------------------------------------------------------------------------------------------

    def groups(self) -> list[dict[str, Any]]:
        """Parameters of the architecture's optimiser, in groups with what differs from the settings."""
        return [{"params": list(self.alpha.values())}]

    def penalty(self) -> Tensor | None:
        """What is added to the validation loss of an alpha step, a function of the architecture's parameters alone."""
        return None

    # --- what the supernet is given ---------------------------------------------------------------------------

    def gates(self) -> dict[str, Tensor]:
        """Mixing weights (edges, ops) by cell type, differentiable."""
        return {name: alpha.softmax(dim=1) for name, alpha in self.alpha.items()}

    def choice(self) -> Choice:
        """Gates and active ops of the network that is searched."""
        return self.gates(), None

    # --- what becomes of it -----------------------------------------------------------------------------------

    def strengths(self) -> dict[str, NDArray[np.floating[Any]]]:
        """The gates, on the host."""
        with torch.no_grad():
            return {name: gates.cpu().numpy() for name, gates in self.gates().items()}

    def derive(self) -> tuple[Genotype, ...]:
        """What stands for the epoch: one network or several."""
        return (self.problem.space.derive(self.strengths()),)

    def metrics(self) -> dict[str, float]:
        """Of an epoch. ``entropy``: mean entropy of the edges' gates, nats, high while undecided."""
        edges = [-(gates * np.log(np.maximum(gates, 1e-12))).sum(axis=1) for gates in self.strengths().values()]
        return {"entropy": float(np.concatenate(edges).mean())}

    # --- hooks ------------------------------------------------------------------------------------------------

    def lengths(self, epochs: int) -> tuple[int, ...]:
        """Epochs of each goal, of ``epochs`` in all."""
        shares = Stages(self.goals, epochs, 0.0)
        return tuple(map(shares.length, range(self.goals)))

    def begin(self, goal: int, epoch: int) -> None:
        """Before an epoch (both from 0), after a resumption, too."""

    def after_step(self) -> None:
        """After each step of the architecture's optimiser."""

    def after_epoch(self) -> None:
        """Before anything is derived; alpha may be changed in place."""

    def last(self) -> tuple[Genotype, ...]:
        """What is derived besides when the search has come to its end, of goals that it did not come to."""
        return ()

    # --- safe points ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {"alpha": {name: alpha.detach().clone() for name, alpha in self.alpha.items()}}

    def resume(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, alpha in self.alpha.items():
                alpha.copy_(state["alpha"][name])
