"""The stand-alone network of an architecture: any fan-in, both stems, auxiliary head, drop path.

Follows the evaluation network of DARTS (arXiv 1806.09055, A.2): affine batch norms, no norm behind pools unless the
cell says so, the auxiliary head after the cell at floor(2L/3), drop path on every op's output but the identity's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture, CellType
from nas_core.costs import Site, sites
from nas_core.devices import moved
from nas_core.ops import Norm, make_op, prepare
from nas_core.stem import Stem, classifier

NORM = Norm()


def drop_path(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Zeroes whole samples with ``probability`` and scales the others, so that the mean stays. (N, ...) -> same."""
    keep = 1.0 - probability
    mask = torch.rand((x.shape[0], *[1] * (x.dim() - 1)), generator=generator) < keep
    return x * (moved(mask, x.device, x.dtype) / keep)


class Cell(nn.Module):
    """A discrete cell: nodes are sums of their ops' outputs."""

    def __init__(self, site: Site, cell: CellType, norm: Norm = NORM) -> None:
        super().__init__()
        self.inputs = cell.inputs
        self.pre = nn.ModuleList(
            prepare(op, channels, site.channels, stride, norm)
            for op, (channels, stride) in zip(cell.pre, site.inputs, strict=True)
        )
        self.ops = nn.ModuleList(
            make_op(
                edge.op,
                site.width(cell, edge.source),
                site.stride(cell, edge.source),
                norm,
                pool_norm=cell.pool_norm,
                middle=edge.width,
                outputs=site.channels,
            )
            for edge in cell.edges
        )
        self.wires = [
            [(place, edge.source, edge.weight) for place, edge in enumerate(cell.edges) if edge.target == node]
            for node in range(cell.inputs, cell.inputs + cell.nodes)
        ]
        self.concat = cell.concat if cell.combine == "concat" else None

    def forward(
        self, before: Sequence[Tensor], drop: float, generator: torch.Generator | None
    ) -> Tensor:  # inputs -> (N, C', H', W')
        states = [pre(x) for pre, x in zip(self.pre, before, strict=True)]
        for wires in self.wires:
            outputs = []
            for place, source, weight in wires:
                op = self.ops[place]
                out = op(states[source])
                if drop > 0 and not isinstance(op, nn.Identity):
                    out = drop_path(out, drop, generator)
                outputs.append(out if weight is None else out * weight)
            states.append(sum(outputs[1:], start=outputs[0]))
        return states[-1] if self.concat is None else torch.cat([states[node] for node in self.concat], dim=1)


def head(
    pool: nn.Module, channels: int, features: int, window: tuple[int, int], classes: int, normed: bool = True
) -> list[nn.Module]:
    """Layers of a classifier on maps in the middle of a stack: ReLU, the pooling, which leaves maps of ``window``, a
    convolution 1x1 to 128, one over the whole map to ``features`` (with a batch norm where ``normed``), linear.
    """
    return [
        nn.ReLU(),
        pool,
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, features, window, bias=False),
        *([nn.BatchNorm2d(features)] if normed else []),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(features, classes),
    ]


class AuxiliaryHead(nn.Sequential):
    """DARTS' auxiliary classifier on the maps after the cell at floor(2L/3); the ImageNet one has one norm less."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, imagenet: bool) -> None:
        published = (7, 7) if imagenet else (8, 8)
        pool: nn.Module = (
            nn.AvgPool2d(5, stride=2 if imagenet else 3, padding=0, count_include_pad=False)
            if size == published
            else nn.AdaptiveAvgPool2d(2)
        )
        super().__init__(*head(pool, channels, 768, (2, 2), classes, normed=not imagenet))


SMALLEST_AUXILIARY_MAP = 4


class Network(nn.Module):
    """An architecture as a module. ``forward`` gives logits; ``with_auxiliary`` the auxiliary ones too."""

    def __init__(self, architecture: Architecture, auxiliary: bool = False) -> None:
        super().__init__()
        architecture.check()
        types, skeleton = architecture.genotype.types, architecture.skeleton
        where = sites(types, skeleton)
        self.stem = Stem(skeleton)
        self.cells = nn.ModuleList(Cell(site, types[site.type]) for site in where)
        self.classifier = classifier(skeleton, where[-1].outputs)
        self.auxiliary_at = 2 * len(where) // 3
        site = where[self.auxiliary_at]
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary and min(site.size_out) >= SMALLEST_AUXILIARY_MAP:
            self.auxiliary = AuxiliaryHead(site.outputs, site.size_out, skeleton.classes, skeleton.stem == "imagenet")
        self.drop_path = 0.0
        """Probability in training mode; the training recipe ramps it."""
        self.drop_path_generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        return self._run(x)[0]

    def with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, C, H, W) -> logits and, in training mode with an auxiliary head, its logits."""
        logits, tapped = self._run(x)
        if self.auxiliary is None or not self.training:
            return logits, None
        return logits, self.auxiliary(tapped)

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states = self.stem(x)
        drop = self.drop_path if self.training else 0.0
        tapped = x
        for position, cell in enumerate(self.cells):
            assert isinstance(cell, Cell)
            states.append(cell(states[-cell.inputs :], drop, self.drop_path_generator))
            del states[:-2]
            if position == self.auxiliary_at:
                tapped = states[-1]
        return self.classifier(states[-1]), tapped
