"""EnTranNAS and EnTranNAS-DST (Yang, You, Li, Wang, Qian, Lin, CVPR 2021, arXiv 2101.11342).

Few Engine cells mix all ops and teach alpha; all others, Transit cells, are already the network that alpha derives,
anew after every step. With ``dst`` trainable thresholds decide what a node takes, instead of a rule of two inputs. The
full text was not to be had: formulas are those of a survey (Heuillet et al., arXiv 2304.05405, equations 20 to 22);
what was inferred beyond stands in docs/methods/entrannas.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray
from torch import Tensor

from nas_core.algorithms import algorithms
from nas_core.architecture import Genotype
from nas_core.costs import PRE
from nas_core.differentiable import Engine, Relaxation, Steps
from nas_core.differentiable.engine import new_supernet
from nas_core.differentiable.sparse import sparse_gates, sparsity, thresholds
from nas_core.engines import Positions, positions
from nas_core.errors import InvalidSettingsError
from nas_core.search import Problem, Relaxable, Search
from nas_core.settings import settings
from nas_core.supernet import Supernet
from nas_core.supernet.weights import Choice


@runtime_checkable
class Free(Protocol):
    """A space whose nodes may take any number of ops."""

    @property
    def weighted(self) -> bool: ...
    def keep(self, coefficients: Mapping[str, NDArray[np.floating[Any]]]) -> Genotype: ...


@algorithms.register("entrannas")
@settings
class EnTranNas(Steps):
    """EnTranNAS: a few cells search, all others are already the derived network."""

    lr: Annotated[float, Gt(0)] = 0.1
    """Initial learning rate of the weights, cosine to ``lr_min``."""
    alpha_lr: Annotated[float, Gt(0)] = 6e-4
    """Learning rate of the architecture parameters (Adam, betas 0.5 and 0.999)."""
    batch: Annotated[int, Ge(2)] = 256
    """Images of a training batch and of a validation batch."""
    share_features: bool = True
    """One feature per (source, op) for all targets of a cell."""
    engines: Positions = "first"
    """Engine cells: the first or the last cell of each type, or positions from 0."""
    temperature: Annotated[float, Ge(1e-3), Le(1e3)] = 1.0
    """By which logits are divided in the softmax of the first epoch."""
    temperature_end: Annotated[float, Ge(1e-3), Le(1e3)] | None = None
    """In that of the last epoch, geometric in between; default: the same."""
    none: bool | None = None
    """Whether ``none`` is among the ops; default: where an edge may end so (nasbench201; darts with fan_in any or free,
    without ``dst``)."""
    dst: bool = False
    """Whether trainable thresholds decide what a node takes: any number of inputs, several ops of one. Needs the space
    darts with fan_in: free."""
    sparsity: Annotated[float, Ge(0)] = 0.1
    """Weight of the term that raises thresholds, nats; with ``dst``."""
    threshold_start: float = -4.0
    """Initial logit of the thresholds (-4: 0.018); with ``dst``."""
    coefficients: bool = True
    """Whether several ops of one edge keep their coefficients in Transit cells and in the derived network; else they
    are summed as they are. With ``dst``."""
    needs: ClassVar[type] = Relaxable

    def search(self, problem: Problem[Relaxable], resume: Mapping[str, Any] | None = None) -> Search:
        return self.engine(problem).search(resume)

    def engine(self, problem: Problem[Relaxable]) -> Engine:
        """Raises InvalidSettingsError for engines that leave a type without one, and where ``dst`` does not fit."""
        if self.dst and not (isinstance(problem.space, Free) and problem.space.weighted):
            raise InvalidSettingsError("dst: needs a space whose nodes take any number of ops: darts with fan_in: free")
        if self.dst and self.none:
            raise InvalidSettingsError("none: with dst thresholds leave ops out; take it away, or dst")
        supernet = new_supernet(problem, self.share_features)
        if any(name.endswith(PRE) for name in supernet.shapes):
            raise InvalidSettingsError("connection: Engine and Transit cells do not choose what prepares their inputs")
        engines = positions(self.engines, problem.skeleton.cells, supernet.shapes)
        relaxation = (SparseTransit if self.dst else Transit)(self, problem, supernet, engines)
        return Engine(self, problem, supernet, relaxation)


class Transit(Relaxation):
    """Softmax gates at the Engine cells; everywhere else the ops that are derived, as they are."""

    def __init__(
        self, settings: EnTranNas, problem: Problem[Relaxable], supernet: Supernet, engines: Collection[int]
    ) -> None:
        super().__init__(problem, supernet)
        self.settings, self.engines, self.temperature = settings, engines, settings.temperature
        space = problem.space
        keeps_none = settings.none
        if keeps_none is None:
            keeps_none = bool(getattr(space, "holds_none", False)) and not settings.dst
        self.left_out = {
            name: torch.tensor([op == "none" and not keeps_none for op in space.ops(name)], device=problem.device)
            for name in self.alpha
        }
        """By cell type, (ops,): what is no candidate."""
        self.sync()

    def gates(self) -> dict[str, Tensor]:
        """Equation 20: softmax of alpha over temperature, what is no candidate left out."""
        return {
            name: (alpha / self.temperature).masked_fill(self.left_out[name], -torch.inf).softmax(dim=1)
            for name, alpha in self.alpha.items()
        }

    def sync(self) -> None:
        """Hands what alpha derives now to the Transit cells."""
        self.derived = self.problem.space.derive(self.strengths())
        self.selection = self.problem.space.selection(self.derived)
        self.transit: dict[str, Tensor] | None = None
        """Coefficients of the Transit cells, (edges, ops) by cell type; None: sums."""

    def choice(self) -> Choice:
        gates = self.gates()
        types = self.problem.skeleton.cells
        at_transit = self.supernet.by_position(self.transit)
        mixing = [gates[name] if place in self.engines else at_transit[place] for place, name in enumerate(types)]
        active = [
            None if place in self.engines or name not in self.selection else self.selection[name]
            for place, name in enumerate(types)
        ]
        return mixing, active

    def derive(self) -> tuple[Genotype, ...]:
        return (self.derived,)

    def metrics(self) -> dict[str, float]:
        """``connections``: ops of all cell types that are derived."""
        connections = float(sum(chosen.sum() for chosen in self.selection.values()))
        return {**super().metrics(), "temperature": self.temperature, "connections": connections}

    def begin(self, goal: int, epoch: int) -> None:
        start, end = self.settings.temperature, self.settings.temperature_end
        if end is not None:
            self.temperature = start * (end / start) ** (epoch / max(1, self.problem.budget.epochs - 1))
        self.sync()

    def after_step(self) -> None:
        self.sync()

    def resume(self, state: Mapping[str, Any]) -> None:
        super().resume(state)
        self.sync()


class SparseTransit(Transit):
    """Thresholds at every node; both kinds of cells compute what they leave, by the same coefficients."""

    def __init__(
        self, settings: EnTranNas, problem: Problem[Relaxable], supernet: Supernet, engines: Collection[int]
    ) -> None:
        targets = [target for target, _ in problem.space.edges]
        self.nodes = [[row for row, at in enumerate(targets) if at == node] for node in sorted(set(targets))]
        self.beta = {
            name: torch.full((len(self.nodes),), settings.threshold_start, device=problem.device).requires_grad_()
            for name in supernet.shapes
        }
        """(nodes,) by cell type: logits of the thresholds."""
        super().__init__(settings, problem, supernet, engines)

    def groups(self) -> list[dict[str, Any]]:
        return [*super().groups(), {"params": list(self.beta.values()), "weight_decay": 0.0}]

    def penalty(self) -> Tensor | None:
        return self.settings.sparsity * sparsity(list(self.beta.values())) if self.settings.sparsity > 0 else None

    def gates(self) -> dict[str, Tensor]:
        return {name: sparse_gates(gates, self.beta[name], self.nodes) for name, gates in super().gates().items()}

    def sync(self) -> None:
        with torch.no_grad():
            gates = self.gates()
        self.selection = {name: (gate != 0).cpu().numpy() for name, gate in gates.items()}
        kept = {name: gate.cpu().numpy() for name, gate in gates.items()}
        if not self.settings.coefficients:
            kept = {name: chosen.astype(np.float64) for name, chosen in self.selection.items()}
        space = self.problem.space
        assert isinstance(space, Free)
        self.derived = space.keep(kept)
        self.transit = gates if self.settings.coefficients else None

    def choice(self) -> Choice:
        mixing, _ = super().choice()
        return mixing, self.selection

    def metrics(self) -> dict[str, float]:
        """``threshold``: the mean of all nodes'."""
        every = torch.cat([thresholds(beta.detach()) for beta in self.beta.values()])
        return {**super().metrics(), "threshold": float(every.mean())}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "beta": {name: beta.detach().clone() for name, beta in self.beta.items()}}

    def resume(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, beta in self.beta.items():
                beta.copy_(state["beta"][name])
        super().resume(state)
