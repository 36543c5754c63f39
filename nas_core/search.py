"""Read this first: a problem, what spaces and algorithms are to each other, and how a search is driven.

An algorithm is a generator of events. It knows no queue, file or database; a test drives it with a plain function,
and to stop it one leaves the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import Architecture, Genotype, Skeleton
from nas_core.costs import CostTable, Resource
from nas_core.errors import IncompatibleSpaceError
from nas_core.events import Checkpoint, Evaluated, Evaluation, Event, Glance, Price, Progress, Propose, unseen
from nas_core.groups import ALONE, Group
from nas_core.values import Kind, Value

if TYPE_CHECKING:
    import torch

    from nas_core.data import Splits
    from nas_core.masks import Masks
    from nas_core.supernet import Supernet

Search = Generator[Event, list[Evaluation], None]
Evaluator = Callable[[Propose | Price], Iterable[Evaluation]]


@runtime_checkable
class SearchSpace(Protocol):
    """What every algorithm needs of a space."""

    def skeleton(
        self,
        input: tuple[int, int, int],
        classes: int,
        cells: int | None = None,
        channels: int | None = None,
        stem: str | None = None,
    ) -> Skeleton: ...
    def check(self, genotype: Genotype) -> None: ...
    def sample(self, rng: np.random.Generator) -> Genotype: ...
    def extreme(self, skeleton: Skeleton, resource: Resource, highest: bool) -> Genotype: ...


@runtime_checkable
class Evolvable(SearchSpace, Protocol):
    """Evolution needs it."""

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype: ...
    def crossover(self, one: Genotype, other: Genotype, rng: np.random.Generator) -> Genotype: ...


@runtime_checkable
class Relaxable(SearchSpace, Protocol):
    """Differentiable search and shared supernets need it."""

    @property
    def edges(self) -> tuple[tuple[int, int], ...]: ...
    def ops(self, cell_type: str) -> tuple[str, ...]: ...
    def supernet(self, skeleton: Skeleton, *, share_features: bool = False) -> Supernet: ...
    def selection(self, genotype: Genotype) -> dict[str, NDArray[np.bool_]]: ...
    def derive(self, strengths: Mapping[str, NDArray[np.floating[Any]]]) -> Genotype: ...
    def cost_table(self, skeleton: Skeleton, resource: Resource) -> CostTable: ...


def derivable(space: Relaxable, cell_type: str) -> NDArray[np.bool_]:
    """(ops,): which ops of a type a derived cell may have on an edge; ``none`` only where the space has such cells."""
    holds_none = bool(getattr(space, "holds_none", False))
    return np.array([op != "none" or holds_none for op in space.ops(cell_type)])


@runtime_checkable
class Enumerable(SearchSpace, Protocol):
    """A space that can be counted through."""

    def size(self) -> int: ...
    def every(self) -> Iterator[Genotype]: ...


class Objective(Protocol):
    """What is minimised or maximised. ``source`` says where a value comes from."""

    @property
    def unit(self) -> str: ...
    @property
    def direction(self) -> Literal["minimize", "maximize"]: ...
    @property
    def source(self) -> Literal["data", "exact", "measured", "tabular"]: ...


class DataObjective(Objective, Protocol):
    """Follows from the error on images."""

    def value(self, error: float, kind: Kind, detail: Mapping[str, Any]) -> Value: ...


class ExactObjective(Objective, Protocol):
    """Follows from the architecture alone."""

    resource: ClassVar[Resource]
    """The additive cost it rises with. An attribute ``scale`` says of which whole multiple of that it is, if of any;
    ``roughly``, if true, that the network of most of it need not be the dearest; ``additive``, if false, that the value
    is no sum over the ops of a network."""

    def value(self, architecture: Architecture) -> Value: ...


class MeasuredObjective(Objective, Protocol):
    """Taken on a device, several networks interleaved."""

    def measure(self, architectures: Sequence[Architecture], device: torch.device) -> list[Value]: ...


class TabularObjective(Objective, Protocol):
    """Looked up by architecture (``nas_core.tables.Tabulated``). An attribute ``quality``, unless None, says that it is
    the error or the accuracy."""

    def value(self, architecture: Architecture) -> Value: ...


@dataclass(frozen=True, slots=True)
class Bound:
    """Bounds of one objective in its unit."""

    min: float | None = None
    max: float | None = None

    def violation(self, value: float) -> float:
        """By how much, relative to the bound; 0 inside."""
        over = max(0.0, value - self.max) / (abs(self.max) or 1.0) if self.max is not None else 0.0
        under = max(0.0, self.min - value) / (abs(self.min) or 1.0) if self.min is not None else 0.0
        return over + under


@dataclass(frozen=True, slots=True)
class Budget:
    """The first one reached ends the search (for seconds see ``Problem.time_is_up``)."""

    evaluations: int = 100
    epochs: int = 50


S = TypeVar("S", bound=SearchSpace)


@dataclass(frozen=True)
class Axes:
    """The objectives of a job by key, its bounds, and the way from values to costs. No data, no device."""

    objectives: Mapping[str, Objective]
    bounds: Mapping[str, Bound] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.objectives)

    def cost(self, key: str, value: float) -> float:
        """The value as something to minimise: the one place where the sign of a maximised objective flips."""
        return -value if self.objectives[key].direction == "maximize" else value

    def costs_of(self, values: Mapping[str, float]) -> list[float]:
        return [self.cost(key, values[key]) for key in self.objectives]

    @property
    def priced(self) -> tuple[str, ...]:
        """Keys of what a network costs: of all but its error and accuracy, wherever these come from."""
        return tuple(
            key
            for key, objective in self.objectives.items()
            if objective.source != "data" and getattr(objective, "quality", None) is None
        )

    @property
    def learnt(self) -> bool:
        """Whether any objective follows from an error on images, so that something has to be trained."""
        return any(objective.source == "data" for objective in self.objectives.values())

    def violation(self, values: Mapping[str, float]) -> float:
        """Sum of relative violations of the bounds; 0 when all hold. A value that is not known yet violates none."""
        return sum(bound.violation(values[key]) for key, bound in self.bounds.items() if key in values)

    def lasting_violation(self, values: Mapping[str, float]) -> float:
        """Of the bounds that verification will not make good where a search's values break them.

        It trains anew, so only what follows from the error becomes another: exact values stay, and what was measured
        is measured in the same way once more.
        """
        return self.violation({key: values[key] for key in values if self.objectives[key].source != "data"})

    def search_violation(self, values: Mapping[str, float]) -> float:
        """What a search ranks by: 0 where all bounds hold, below 1 where the error alone breaks some, above 1 else.

        An error of a search is an estimate, and often so far beyond its bound that in a sum nothing else would count:
        the search would never come near to the bounds that last.
        """
        lasting = self.lasting_violation(values)
        if lasting > 0:
            return 1 + lasting
        estimated = self.violation(values)
        return estimated / (1 + estimated)


@dataclass(frozen=True)
class Problem(Generic[S]):
    """What is searched: a space, objectives, data, a device, chance."""

    space: S
    axes: Axes
    skeleton: Skeleton
    """The searched one."""
    targets: tuple[Skeleton, ...]
    """Of the networks wanted: costs and bounds are theirs."""
    budget: Budget
    seed: int
    rng: np.random.Generator
    device: torch.device
    splits: Splits
    seeds: tuple[Genotype, ...] = ()
    """Known genotypes of the space, all different, that every algorithm evaluates besides what it finds."""
    masks: Mapping[str, Masks] = field(default_factory=dict)
    """Weight masks of the seeds that name some, by digest."""
    inherited: Mapping[str, Any] | None = None
    """The state of the last checkpoint of the search that this one goes on from, its tensors on the CPU, whether this
    one begins or is resumed; None: from scratch."""
    between_steps: Callable[[], None] = lambda: None
    """Called between training steps: the service's chance to let a measurement pass, or to stop."""
    glance: Glance = unseen
    """Called after each training step: the service's chance to show a loss long before the first result."""
    warn: Callable[[str], None] = lambda text: None
    """Told what a user should know although all goes on."""
    pieces: int = 1
    """In which every training step takes its batch: more than one where memory did not suffice for it whole."""
    time_is_up: Callable[[], bool] = lambda: False
    """Asked by algorithms before another epoch or generation: when true, they come to their end in good order."""
    group: Group = ALONE
    """Processes that search together, where a method can; the service's are alone."""
    quietly: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while measuring: the service keeps training away from the device meanwhile."""

    def costs(self, evaluations: Sequence[Evaluation]) -> NDArray[np.float64]:
        """(n, objectives), all minimised, at the first target; what failed costs infinity."""
        rows = [
            [np.inf] * len(self.axes.keys)
            if evaluation.failure_at(0) is not None
            else self.axes.costs_of({key: value.value for key, value in evaluation.values[0].items()})
            for evaluation in evaluations
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.axes.keys))

    def violations(self, evaluations: Sequence[Evaluation]) -> NDArray[np.float64]:
        """(n,): 0 where every bound holds at one target at least, else by how much they are broken at the best one
        (``Axes.search_violation``).

        What failed violates infinitely.
        """
        found = [
            np.inf
            if evaluation.failure is not None
            else min(
                self.axes.search_violation({key: value.value for key, value in values.items()})
                for target, values in enumerate(evaluation.values)
                if evaluation.failure_at(target) is None
            )
            for evaluation in evaluations
        ]
        return np.array(found, dtype=np.float64)


class SearchAlgorithm(Protocol):
    """A settings dataclass whose ``search`` is a generator of events.

    One that evaluates the problem's seeds and nothing else has a ``needs_seeds: ClassVar[bool] = True`` as well. One
    that can go on from another job's search has a ``hands_on: ClassVar[bool] = True``: its last checkpoint's state is
    kept, and comes back as ``Problem.inherited``, of which it takes what it can use. The space, the data, the seed and
    the settings are those of that search, but for settings named in ``redone: ClassVar[frozenset[str]]``; objectives,
    bounds, targets and budget may be others. One whose proposals bring the weights that their networks have in its
    search (``Propose.weights``) has a ``brings_weights: ClassVar[bool] = True``: a verification may begin with them.
    """

    needs: ClassVar[type]
    """The Protocol its space must satisfy; the catalog pairs algorithms and spaces by it."""

    def search(self, problem: Problem[Any], resume: Mapping[str, Any] | None = None) -> Search: ...


def start(algorithm: SearchAlgorithm, problem: Problem[Any], resume: Mapping[str, Any] | None = None) -> Search:
    """The search, after a look whether space and algorithm fit. Raises IncompatibleSpaceError."""
    if not isinstance(problem.space, algorithm.needs):
        raise IncompatibleSpaceError(
            f"{type(algorithm).__name__} needs a space that is {algorithm.needs.__name__}; "
            f"{type(problem.space).__name__} is not"
        )
    return algorithm.search(problem, resume)


def drive(search: Search, evaluate: Evaluator) -> Iterator[Event]:
    """Runs a search: answers what it proposes or asks the price of, and passes on all that happens."""
    with closing(search):
        event = next(search, None)
        while event is not None:
            yield event
            answer = []
            if isinstance(event, Price):
                answer = list(evaluate(event))
            elif isinstance(event, Propose):
                for place, evaluation in enumerate(evaluate(event)):
                    answer.append(evaluation)
                    masks = event.masks[place] if event.masks else None
                    weights = event.weights[place] if event.weights else None
                    yield Evaluated(evaluation, event.revise, masks, weights)
            try:
                event = search.send(answer)
            except StopIteration:
                return


__all__ = [
    "Axes",
    "Bound",
    "Budget",
    "Checkpoint",
    "DataObjective",
    "Enumerable",
    "Evaluated",
    "Evaluation",
    "Evaluator",
    "Event",
    "Evolvable",
    "ExactObjective",
    "MeasuredObjective",
    "Objective",
    "Price",
    "Problem",
    "Progress",
    "Propose",
    "Relaxable",
    "Search",
    "SearchAlgorithm",
    "SearchSpace",
    "TabularObjective",
    "drive",
    "start",
]
