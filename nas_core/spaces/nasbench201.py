"""The cell space of NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv 2001.00326, section 2): 15,625 cells, 5 ops.

One searched cell, ``normal``: node 0 is its input, nodes 1 to 3 are sums of one op from each earlier node, and node 3
is its output; nothing prepares the input. A stack is three stages of equally many cells with a residual block of
stride 2 (``reduce``, the same in every network) between them, behind a stem as wide as the first cell and before a
batch norm with ReLU, global pooling and a linear layer. The benchmark has 17 cells (five a stage) and 16 channels.

``none`` stands in genotypes here, as in the benchmark. Of its 15,625 cells, 341 do not connect their input with their
output; they can be named and counted, but lie outside the space: they are refused, and never sampled or derived.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from annotated_types import Ge, Le, MinLen
from numpy.typing import NDArray

from nas_core.architecture import CellType, Edge, Genotype, Skeleton, stem_for
from nas_core.costs import CostTable, Resource, cost_table
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.parts import Choices
from nas_core.settings import settings
from nas_core.spaces import spaces

if TYPE_CHECKING:
    from nas_core.supernet import Supernet

NAME = "nasbench201"
TYPES = ("normal", "reduce")
NODES = 3
EDGES = tuple((target, source) for target in range(1, NODES + 1) for source in range(target))
"""As (target, source), in the order of arch strings."""
WAYS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""From the input to the output, as places in EDGES."""
NAMES = {"nor_conv_1x1": "conv_1x1", "nor_conv_3x3": "conv_3x3"}
"""The benchmark's names that are not ours."""
Op = Literal["none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3"]
BENCHMARK_OPS: tuple[Op, ...] = get_args(Op)
STAGES = 3
TRIES = 100

REDUCTION = CellType(
    (Edge(1, 0, "conv_3x3"), Edge(2, 0, "pool_conv_1x1"), Edge(2, 1, "conv_3x3")),
    inputs=1,
    nodes=2,
    reduction=True,
    combine="last",
    concat=(),
    pre=("identity",),
)
"""The residual block between two stages: it doubles the channels and halves the map."""


def cell(ops: Sequence[str] = ()) -> CellType:
    """The searched cell with an op for each of EDGES."""
    edges = tuple(Edge(target, source, op) for (target, source), op in zip(EDGES, ops, strict=True)) if ops else ()
    return CellType(edges, inputs=1, nodes=NODES, combine="last", concat=(), pre=("identity",))


def genotype_of(ops: Sequence[str]) -> Genotype:
    """The genotype with an op for each of EDGES."""
    return Genotype(NAME, {"normal": cell(ops), "reduce": REDUCTION})


def ops_of(genotype: Genotype) -> tuple[str, ...]:
    """The op on each of EDGES. Raises InvalidGenotypeError for what is not laid out as a cell of the benchmark."""
    if genotype.space != NAME or set(genotype.types) != set(TYPES):
        raise InvalidGenotypeError(
            f"space '{NAME}' wants the cell types normal and reduce; got space '{genotype.space}' with "
            f"{', '.join(sorted(genotype.types)) or 'none'}"
        )
    normal = genotype.types["normal"]
    edges = tuple((edge.target, edge.source) for edge in normal.edges)
    if edges != EDGES or genotype.masks is not None or normal != cell([edge.op for edge in normal.edges]):
        raise InvalidGenotypeError(
            "cell 'normal' is not laid out as in NAS-Bench-201: one input that nothing prepares, three nodes, the last "
            "of them the output, and one op from each node to each later one ('none' where there is none)"
        )
    if genotype.types["reduce"] != REDUCTION:
        raise InvalidGenotypeError("cell 'reduce' is not the residual block of NAS-Bench-201; it is the same in all")
    return tuple(edge.op for edge in normal.edges)


def is_connected(ops: Sequence[str]) -> bool:
    """Whether the output is reached from the input by ops other than ``none``; ``ops`` on each of EDGES."""
    return any(all(ops[row] != "none" for row in way) for way in WAYS)


_NODE = re.compile(r"\|(?:[a-z0-9_]{1,40}~[0-9]\|)+")


def from_arch(text: str) -> Genotype:
    """The usual arch string: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``, disconnected cells included.

    Raises InvalidGenotypeError.
    """
    nodes = text.strip().split("+")
    found = [re.findall(r"([a-z0-9_]+)~([0-9])", node) if _NODE.fullmatch(node) else [] for node in nodes]
    sources = [[int(source) for _, source in node] for node in found]
    if sources != [list(range(node)) for node in range(1, NODES + 1)]:
        raise InvalidGenotypeError(
            f"'{text[:200]}' is no cell of NAS-Bench-201; it is written |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        )
    ops = [NAMES.get(op, op) for node in found for op, _ in node]
    for op in ops:
        if op not in BENCHMARK_OPS:
            known = ", ".join(_published(op) for op in BENCHMARK_OPS)
            raise InvalidGenotypeError(f"op '{op}' is not of NAS-Bench-201; use {known}")
    return genotype_of(ops)


def to_arch(genotype: Genotype) -> str:
    """The arch string, with the benchmark's names. Raises InvalidGenotypeError for a genotype of another space."""
    named = [f"{_published(op)}~{source}|" for op, (_, source) in zip(ops_of(genotype), EDGES, strict=True)]
    return "+".join(
        "|" + "".join(part for part, (target, _) in zip(named, EDGES, strict=True) if target == node)
        for node in range(1, NODES + 1)
    )


def _published(op: str) -> str:
    return next((theirs for theirs, ours in NAMES.items() if ours == op), op)


@spaces.register(NAME)
@settings
class NasBench201:
    """Cells of NAS-Bench-201: four nodes, six edges, five ops, in its residual network."""

    cells: Annotated[int, Ge(5), Le(98)] = 17
    """Positions of the searched network: three stages of N cells and two reduction blocks, 3 N + 2."""
    channels: Annotated[int, Ge(2), Le(1024)] = 16
    """Channels of the first stage; doubled at each reduction block."""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """auto = imagenet from 64 pixels; the benchmark has cifar."""
    normal_ops: Annotated[tuple[Op, ...], MinLen(1)] = BENCHMARK_OPS
    """Ops of an edge."""
    holds_none: ClassVar[bool] = True
    """Whether an edge may end as ``none``."""

    def __post_init__(self) -> None:
        names = self.normal_ops
        if len(set(names)) < len(names) or not set(names) - {"none"}:
            raise InvalidSettingsError(
                f"normal_ops: needs distinct ops, at least one besides 'none'; got {list(names)}"
            )
        _stack(self.cells)

    # --- what it is -------------------------------------------------------------------------------------------

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Edges of the cell as (target, source), in the order of alpha's rows."""
        return EDGES

    def ops(self, cell_type: str) -> tuple[str, ...]:
        """Ops of an edge, in the order of alpha's columns; of the reduction block none is searched."""
        return self.normal_ops if cell_type == "normal" else ()

    def skeleton(
        self,
        input: tuple[int, int, int],
        classes: int,
        cells: int | None = None,
        channels: int | None = None,
        stem: str | None = None,
    ) -> Skeleton:
        """The searched skeleton for images of ``input`` (C, H, W), or a target that differs from it.

        Raises InvalidSettingsError for a number of cells that makes no three equal stages.
        """
        stack = _stack(cells or self.cells)
        return Skeleton(
            stack, channels or self.channels, stem_for(stem or self.stem, input), input, classes, frame="residual"
        )

    def check(self, genotype: Genotype) -> None:
        """Raises InvalidGenotypeError for a genotype outside the space, disconnected cells among them."""
        ops = ops_of(genotype)
        for op in ops:
            if op not in self.normal_ops:
                raise InvalidGenotypeError(f"op '{op}' is not of this space; use {', '.join(self.normal_ops)}")
        if not is_connected(ops):
            raise InvalidGenotypeError(
                f"the cell {to_arch(genotype)} does not connect its input with its output, so that its network would "
                "see nothing of an image; give one way from node 0 to node 3 ops other than 'none'"
            )

    def size(self) -> int:
        """How many cells the space holds, disconnected ones not counted."""
        return sum(1 for _ in self._every_ops())

    def every(self) -> Iterator[Genotype]:
        """All cells of the space, in the order of their ops on EDGES."""
        return map(genotype_of, self._every_ops())

    def _every_ops(self) -> Iterator[tuple[str, ...]]:
        return filter(is_connected, product(self.normal_ops, repeat=len(EDGES)))

    # --- chance -----------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Uniform over the connected cells."""
        while True:
            ops = [self.normal_ops[column] for column in rng.integers(len(self.normal_ops), size=len(EDGES))]
            if is_connected(ops):
                return genotype_of(ops)

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """Another op on one edge; the parent itself where the space has nothing to change."""

        def changed() -> list[str]:
            ops = list(ops_of(parent))
            row = int(rng.integers(len(EDGES)))
            others = [op for op in self.normal_ops if op != ops[row]]
            if others:
                ops[row] = others[rng.integers(len(others))]
            return ops

        return _connected(changed, parent)

    def crossover(self, one: Genotype, other: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover by edge; the first parent where no connected child is met."""
        pairs = tuple(zip(ops_of(one), ops_of(other), strict=True))
        return _connected(lambda: [mine if rng.random() < 0.5 else theirs for mine, theirs in pairs], one)

    # --- costs ------------------------------------------------------------------------------------------------

    def layout(self) -> tuple[Mapping[str, CellType], Choices]:
        """The cells, and what may stand on which of their edges; of the reduction block nothing is searched."""
        return {"normal": cell(), "reduce": REDUCTION}, {"normal": (EDGES, self.normal_ops)}

    def cost_table(self, skeleton: Skeleton, resource: Resource) -> CostTable:
        """Entries (edges, ops) of the searched cell at ``skeleton``; the reduction blocks are in the constant."""
        return cost_table(*self.layout(), skeleton, resource)

    def extreme(self, skeleton: Skeleton, resource: Resource, highest: bool) -> Genotype:
        """The genotype of the smallest or largest possible cost at ``skeleton`` (exact: costs are additive)."""
        entries = self.cost_table(skeleton, resource).entries["normal"]
        return self._least((-entries if highest else entries).astype(np.float64))

    def _least(self, losses: NDArray[np.floating[Any]]) -> Genotype:
        """The connected cell with the smallest sum of ``losses`` (edges, ops). Ties go to the smaller index.

        Such a cell has a way whose ops are not ``none``: for each of the four, its edges take their best such op and
        the others their best of all.
        """
        usable = np.array(losses, dtype=np.float64)
        if "none" in self.normal_ops:
            usable[:, self.normal_ops.index("none")] = np.inf
        best, best_usable = losses.argmin(axis=1), usable.argmin(axis=1)
        found: tuple[float, NDArray[np.intp]] | None = None
        for way in WAYS:
            columns = best.copy()
            columns[list(way)] = best_usable[list(way)]
            total = float(losses[np.arange(len(EDGES)), columns].sum())
            if found is None or total < found[0]:
                found = total, columns
        assert found is not None
        return genotype_of([self.normal_ops[column] for column in found[1]])

    # --- relaxations ------------------------------------------------------------------------------------------

    def supernet(self, skeleton: Skeleton, *, share_features: bool = False) -> Supernet:
        """The network of all ops on all edges at ``skeleton``; pools have no batch norm, as in the benchmark."""
        from nas_core.supernet import Supernet

        layout = {"normal": (cell(), EDGES, self.normal_ops)}
        return Supernet(layout, skeleton, share_features=share_features, fixed={"reduce": REDUCTION}, pool_norm=False)

    def selection(self, genotype: Genotype) -> dict[str, NDArray[np.bool_]]:
        """Which (edges, ops) of the relaxed cell the genotype uses."""
        ops = ops_of(genotype)
        return {"normal": np.array([[op == name for name in self.normal_ops] for op in ops], dtype=bool)}

    def derive(self, strengths: Mapping[str, NDArray[np.floating[Any]]]) -> Genotype:
        """The connected cell of the largest product of strengths: the strongest op of each edge, ``none`` included
        (section 4 of the paper), and where that disconnects the cell, the least change that mends it.

        ``strengths``: (edges, ops) by type, softmax weights.
        """
        return self._least(-np.log(np.maximum(strengths["normal"].astype(np.float64), 1e-300)))


def _stack(cells: int) -> tuple[str, ...]:
    stage, rest = divmod(cells - (STAGES - 1), STAGES)
    if rest or stage < 1:
        raise InvalidSettingsError(
            f"cells: a stack of NAS-Bench-201 has three equal stages and two reduction blocks, 3 N + 2 cells: 5, 8, "
            f"11, 14, 17 (the benchmark's), 20, ...; got {cells}"
        )
    return (("normal",) * stage + ("reduce",)) * (STAGES - 1) + ("normal",) * stage


def _connected(draw: Callable[[], Sequence[str]], otherwise: Genotype) -> Genotype:
    for _ in range(TRIES):
        ops = draw()
        if is_connected(ops):
            return genotype_of(ops)
    return otherwise
