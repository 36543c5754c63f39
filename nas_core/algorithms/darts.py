"""DARTS (Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055, sections 2.2 to 2.4 and A.1.1), of first and second order.

Every step: Adam on alpha by a validation batch, then SGD on the weights by a training batch; the published derivation.
The published method returns the last derived cell alone, and knows no resources: weights of one are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor

from nas_core.algorithms import algorithms
from nas_core.differentiable import Engine, Relaxation, Steps
from nas_core.differentiable.engine import new_supernet
from nas_core.differentiable.resources import ExpectedCost, resource_of
from nas_core.errors import InvalidSettingsError
from nas_core.search import Problem, Relaxable, Search
from nas_core.settings import settings
from nas_core.supernet import Supernet


@algorithms.register("darts")
@settings
class Darts(Steps):
    """DARTS: gradient descent on a softmax mixture of all ops."""

    order: Literal["first", "second"] = "first"
    """Whether alpha steps look through one step of the weights (second: five passes a step instead
    of two)."""
    resource_weights: tuple[Annotated[float, Ge(0)], ...] = ()
    """Weights of an expected cost in the loss of alpha, nats per cost of the even mixture, one after another on the
    same supernet: each gives networks of its own. Empty: the error alone, as published."""
    resource: str | None = None
    """Key of the objective that is the cost; default: the first that follows from the architecture alone."""
    needs: ClassVar[type] = Relaxable

    def __post_init__(self) -> None:
        if self.resource is not None and not self.resource_weights:
            raise InvalidSettingsError(f"resource: '{self.resource}' says nothing without resource_weights")

    def search(self, problem: Problem[Relaxable], resume: Mapping[str, Any] | None = None) -> Search:
        return self.engine(problem).search(resume)

    def engine(self, problem: Problem[Relaxable]) -> Engine:
        """Raises InvalidSettingsError for a resource that cannot be differentiated, or too few epochs."""
        supernet = new_supernet(problem, self.share_features)
        relaxation = (
            Weighed(problem, supernet, self.resource_weights, self.resource)
            if self.resource_weights
            else Relaxation(problem, supernet)
        )
        return Engine(self, problem, supernet, relaxation, self.order)


class Weighed(Relaxation):
    """With an expected cost beside the loss, and a weight of it for each goal."""

    def __init__(
        self, problem: Problem[Relaxable], supernet: Supernet, weights: tuple[float, ...], resource: str | None
    ) -> None:
        super().__init__(problem, supernet)
        self.weights, self.goals, self.weight = weights, len(weights), weights[0]
        self.cost = ExpectedCost(problem, resource_of(problem, resource))

    def begin(self, goal: int, epoch: int) -> None:
        self.weight = self.weights[goal]

    def penalty(self) -> Tensor | None:
        return self.weight * self.cost(self.gates()) if self.weight > 0 else None

    def metrics(self) -> dict[str, float]:
        """``expected_cost``: 1 of the even mixture."""
        return {
            **super().metrics(),
            "resource_weight": self.weight,
            "expected_cost": float(self.cost(self.gates()).detach()),
        }
