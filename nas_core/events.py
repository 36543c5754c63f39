"""What a search says while it runs. ``Propose`` and ``Price`` are answered with one evaluation per genotype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas_core.architecture import Genotype, genotype_from_json, genotype_to_json
from nas_core.recipe import ShortTraining
from nas_core.values import Value

if TYPE_CHECKING:
    from torch import Tensor

    from nas_core.masks import Masks


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A genotype's values on every target skeleton, by objective key; or why there are none."""

    genotype: Genotype
    values: tuple[Mapping[str, Value], ...]
    """One mapping for each target skeleton of the problem; empty when it failed, without the objectives that nobody
    asked for (``Propose.unscored``).
    """
    failure: str | None = None
    failures: tuple[str | None, ...] = ()
    """Where it failed at some targets alone: why, for each target; else empty."""

    def failure_at(self, target: int) -> str | None:
        """Why there are no values at a target."""
        return self.failures[target] if self.failures else self.failure


@dataclass(frozen=True, slots=True)
class Propose:
    """Genotypes whose missing objectives are to be evaluated.

    ``known`` holds what the algorithm found out itself (errors scored on its supernet); ``train`` says how an unknown
    error is to be had. With ``revise`` the values replace those of an earlier proposal of the same genotype. With
    ``unscored`` exact costs and those of tables alone are asked for: nothing is trained or measured before the
    verification.

    ``masks`` and ``weights`` come with the genotypes, in their order, if there are any. What a genotype brings at its
    first proposal is kept with its candidate; of a resumed search they are the same ones again.
    """

    genotypes: tuple[Genotype, ...]
    known: tuple[Mapping[str, Value], ...] = ()
    train: ShortTraining | None = None
    revise: bool = False
    unscored: bool = False
    masks: tuple[Masks | None, ...] = ()
    """Weight masks of those genotypes that name some (``Genotype.masks``, ``nas_core.masks.masked``)."""
    weights: tuple[Mapping[str, Tensor] | None, ...] = field(default=(), compare=False, repr=False)
    """State of the stand-alone network on the first target, as the search has it: a verification may begin with it."""


@dataclass(frozen=True, slots=True)
class Price:
    """Genotypes whose values on the first target are asked for but for those that follow from the error: exact, of
    tables, measured.

    Answered as a proposal is, with one evaluation each, of one target; they do not become candidates.
    """

    genotypes: tuple[Genotype, ...]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluation, as it comes in."""

    evaluation: Evaluation
    revised: bool = False
    masks: Masks | None = None
    weights: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)
    """What came with the proposal."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: ``step`` of ``total`` in ``phase``, with what was seen there."""

    phase: str
    step: int
    total: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A safe point: a search resumed from ``state`` goes on as if nothing had happened.

    ``state`` holds tensors and JSON values only.
    """

    state: Mapping[str, Any]


Event = Propose | Price | Evaluated | Progress | Checkpoint

Glance = Callable[[int, int, Callable[[], float]], None]
"""Called after each training step with its number (from 1), how many there will be, and a way to the mean loss of the
epoch so far. Asking for the loss waits for the device; who does not ask slows nothing down.
"""


def unseen(step: int, steps: int, loss: Callable[[], float]) -> None:
    """The glance of nobody."""


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """For checkpoints."""
    return {
        "genotype": genotype_to_json(evaluation.genotype),
        "values": [{key: value.to_json() for key, value in values.items()} for values in evaluation.values],
        "failure": evaluation.failure,
        "failures": list(evaluation.failures),
    }


def evaluation_from_json(data: Mapping[str, Any]) -> Evaluation:
    values = tuple({key: Value.from_json(value) for key, value in values.items()} for values in data["values"])
    return Evaluation(genotype_from_json(data["genotype"]), values, data["failure"], tuple(data.get("failures", ())))
