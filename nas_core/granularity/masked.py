"""A network under gates and masks: what a search by MGAS (arXiv 2310.15074) trains.

Underneath is the stand-alone network of an architecture, built by the one builder; gates and masks are a layer around
its modules. What is committed as gone is not computed: its weights get no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_core.architecture import Architecture, CellType, Genotype, Skeleton
from nas_core.compiled import pair
from nas_core.costs import Site, sites
from nas_core.granularity.gates import CellGates
from nas_core.granularity.heads import StageHead
from nas_core.granularity.slots import Levels, Table, family, filter_names, name_of, slot_of
from nas_core.granularity.step import masked
from nas_core.network import Cell, Network

CONVOLUTIONS = {"sep": ("1", "2", "5", "6"), "dil": ("1", "2")}
"""By family, where the kernels stand in the op's module."""
Placed = tuple[int, int, int]
"""Position of a cell, row and column of the slot."""


class Subnet(nn.Module):
    """Cells 0 to the last of ``skeleton``, with gates. ``forward`` gives logits."""

    def __init__(
        self,
        types: Mapping[str, CellType],
        skeleton: Skeleton,
        tables: Mapping[str, Table],
        levels: Levels,
        seed: int,
        device: torch.device,
        stage: int | None = None,
    ) -> None:
        """``types``: the cells as they are searched, with widths of their own; the first weights depend on ``seed``
        alone. ``stage``: which head it has, from 0; None: the network's own classifier.
        """
        super().__init__()
        self.types = {name: types[name] for name in skeleton.cells}
        self.skeleton, self.tables, self.levels, self.stage = skeleton, tables, levels, stage
        self.sites = sites(self.types, skeleton)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(Architecture(Genotype("darts", self.types), skeleton))
            if stage is not None:
                last = self.sites[-1]
                network.classifier = StageHead(stage, last.outputs, last.size_out, skeleton.classes)  # type: ignore[assignment]
        self.network: Network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.gates = [
            CellGates(
                self.types[site.type],
                tables[site.type],
                self._widths(site),
                levels,
                device,
            )
            for site in self.sites
        ]
        self.kept: dict[str, Tensor] = {}
        """Committed masks of kernels by the name of the network's parameter, bool."""
        if levels.weights:
            parameters = dict(self.network.named_parameters())
            self.kept = {
                name: torch.ones_like(parameters[name], dtype=torch.bool)
                for position in range(len(self.sites))
                for place in range(len(self.cell(position).edges))
                for name in self.kernels(position, place)
            }

    def _widths(self, site: Site) -> dict[str, int]:
        cell = self.types[site.type]
        middle = {slot_of(edge): edge.width or site.channels for edge in cell.edges}
        names = filter_names(cell, cell.reduction)
        return {
            name: middle[slot] if name.endswith(".middle") and not isinstance(slot, int) else site.channels
            for name, slot in names.items()
        }

    def cell(self, position: int) -> CellType:
        return self.types[self.skeleton.cells[position]]

    def kernels(self, position: int, place: int) -> list[str]:
        """Names of the parameters of an op of which single weights are searched."""
        inside = CONVOLUTIONS.get(family(self.cell(position).edges[place].op), ())
        return [f"cells.{position}.ops.{place}.{name}.weight" for name in inside]

    # --- forward ------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, provisional: bool = True) -> Tensor:  # (N, C, H, W) -> (N, classes)
        """With ``provisional`` thresholds are asked; without, the committed masks alone count."""
        states = self.network.stem(x)
        for position in range(len(self.sites)):
            states.append(self._run(position, states[-2:], provisional))
            del states[:-2]
        logits: Tensor = self.network.classifier(states[-1])
        return logits

    def _run(self, position: int, before: Sequence[Tensor], provisional: bool) -> Tensor:
        module, gates, cell = self.network.cells[position], self.gates[position], self.cell(position)
        assert isinstance(module, Cell)
        factors = gates.factors(provisional)
        states = [
            _scaled(prepare(x), factors.get(f"pre.{place}"))
            for place, (prepare, x) in enumerate(zip(module.pre, before, strict=True))
        ]
        mixing = (gates.alpha.sigmoid() * (gates.operations() if provisional else gates.mask)).flatten().unbind()
        for wires in module.wires:
            node: Tensor | None = None
            for place, source, _ in wires:
                row, column = gates.table.place(slot_of(cell.edges[place]))
                if gates.alive[row, column]:
                    gate = mixing[row * len(gates.table.ops) + column]
                    output = factors.get(f"{name_of(slot_of(cell.edges[place]))}.output")
                    out = self._op(position, place, module.ops[place], states[source], factors, provisional)
                    out = out * gate if output is None else _scaled(out, output * gate)
                    node = out if node is None else node + out
            assert node is not None  # every node keeps an op
            states.append(node)
        return torch.cat([states[node] for node in cell.concat], dim=1)

    def _op(
        self,
        position: int,
        place: int,
        module: nn.Module,
        x: Tensor,
        factors: Mapping[str, Tensor],
        provisional: bool,
    ) -> Tensor:
        """What an op gives before its own gate and those of its last filters."""
        slot, gates = slot_of(self.cell(position).edges[place]), self.gates[position]
        names = iter(self.kernels(position, place))
        if family(slot[2]) not in CONVOLUTIONS:
            out: Tensor = module(x)
            return out

        def weight_of(layer: nn.Conv2d) -> Tensor:
            if not self.levels.weights:
                return layer.weight
            kept, threshold = self.kept[next(names)], gates.weight[gates.table.place(slot)]
            return masked(layer.weight, threshold, kept) if provisional else layer.weight * kept

        *some, last = module.children()
        layers = iter(some)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                point = next(layers)
                assert isinstance(point, nn.Conv2d)
                x = pair(x, layer, weight_of(layer), weight_of(point))
            else:
                x = layer(x)
            if isinstance(layer, nn.BatchNorm2d):
                x = _scaled(x, factors.get(f"{name_of(slot)}.middle"))
        out = last(x)
        return out

    # --- commits ------------------------------------------------------------------------------------------------

    def commit(self, first: int = 0) -> int:
        """Makes the provisional masks of the cells from ``first`` on final; how many ops went."""
        below = self.below(first)
        self.commit_fine(first)
        self.remove(below)
        return len(below)

    @torch.no_grad()
    def commit_fine(self, first: int = 0) -> None:
        """Those of filters and weights alone."""
        parameters = dict(self.network.named_parameters())
        for position in range(first, len(self.sites)):
            gates = self.gates[position]
            if self.levels.filters:
                gates.filters = gates.filter_masks()
            for place, edge in enumerate(self.cell(position).edges):
                for name in self.kernels(position, place) if self.levels.weights else ():
                    self.kept[name] &= gates.weight_mask(parameters[name], slot_of(edge))

    @torch.no_grad()
    def below(self, first: int = 0) -> list[Placed]:
        """Ops that are alive and that the provisional masks leave out, the weakest first."""
        found = []
        for position, gates in enumerate(self.gates[first:], start=first):
            out = gates.alive & (gates.operations().cpu().numpy() == 0)
            found += self._by_margin(position, out)
        return [placed for _, placed in sorted(found)]

    @torch.no_grad()
    def weakest(self) -> list[Placed]:
        """All ops that could go one after another with one left for each node, the weakest first."""
        ranked = sorted(
            pair for position, gates in enumerate(self.gates) for pair in self._by_margin(position, gates.alive)
        )
        left = [gates.alive.copy() for gates in self.gates]
        found = []
        for _, (position, row, column) in ranked:
            edges = self.gates[position].table.edges
            same = [other for other, (target, _) in enumerate(edges) if target == edges[row][0]]
            if left[position][same].sum() > 1:
                left[position][row, column] = False
                found.append((position, row, column))
        return found

    def _by_margin(self, position: int, slots: NDArray[np.bool_]) -> list[tuple[float, Placed]]:
        """Slots of a cell with how far their scores lie above their thresholds."""
        gates = self.gates[position]
        margin = (gates.alpha.sigmoid() - gates.operation).detach().cpu().numpy()
        return [(float(margin[row, column]), (position, int(row), int(column))) for row, column in np.argwhere(slots)]

    def remove(self, ops: Sequence[Placed]) -> None:
        """Commits that these are gone."""
        alive = [gates.alive.copy() for gates in self.gates]
        for position, row, column in ops:
            alive[position][row, column] = False
        self.restore(alive)

    def restore(self, alive: Sequence[NDArray[np.bool_]]) -> None:
        """Takes these tables, one for each cell, for what is alive."""
        for gates, slots in zip(self.gates, alive, strict=True):
            gates.commit_ops(slots)

    @torch.no_grad()
    def commit_shares(self, ops: float, filters: float, weights: float, first: int = 0) -> int:
        """Keeps these shares of what is alive by its score, whatever the thresholds; how many ops went.

        A foil for experiments: what learned thresholds are compared with.
        """
        gates = self.gates[first:]
        scores = torch.cat([cell.alpha.sigmoid()[cell.mask > 0] for cell in gates])
        least = _quantile(scores, ops)
        with _thresholds_kept(gates):
            for cell in gates:
                cell.operation.fill_(least)
                for name, mask in cell.filters.items():
                    cell.filters[name] = mask & _best(cell.beta[name].sigmoid(), mask, filters)
            removed = self.commit(first)
        parameters = dict(self.network.named_parameters())
        for name, mask in self.kept.items():
            if int(name.split(".")[1]) >= first:
                self.kept[name] = mask & _best(parameters[name].abs(), mask, weights)
        return removed

    @torch.no_grad()
    def keep_filters(self, share: float) -> None:
        """Commits this share of the filters of each set that are left, by score, in all cells but the last."""
        for cell in self.gates[:-1]:
            for name, mask in cell.filters.items():
                cell.filters[name] = mask & _best(cell.beta[name].sigmoid(), mask, share)

    def alive_edges(self, position: int) -> CellType:
        """The cell of what is committed as alive, widths as they are."""
        cell, gates = self.cell(position), self.gates[position]
        return replace(cell, edges=tuple(edge for edge in cell.edges if gates.alive[gates.table.place(slot_of(edge))]))

    @property
    def ops(self) -> int:
        """Ops that are alive."""
        return sum(int(gates.alive.sum()) for gates in self.gates)

    # --- safe points --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Tensors that belong to these types and this skeleton."""
        return {
            "network": self.network.state_dict(),
            "gates": [gates.state() for gates in self.gates],
            "alive": [torch.from_numpy(gates.alive) for gates in self.gates],
            "kept": dict(self.kept),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        with torch.no_grad():
            for name, mask in self.kept.items():
                mask.copy_(state["kept"][name])
        for gates, learnt, alive in zip(self.gates, state["gates"], state["alive"], strict=True):
            gates.resume(learnt)
            gates.commit_ops(alive.cpu().numpy().astype(bool))


def _scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    """A map (N, C, H, W) by a factor of each channel, (C,)."""
    return x if factor is None else x * factor[:, None, None]


def _quantile(scores: Tensor, share: float) -> float:
    """Above it lies this share of the scores, but for ties."""
    gone = len(scores) - max(1, round(share * len(scores)))
    return float(scores.sort().values[gone - 1]) if gone else -1.0


def _best(scores: Tensor, mask: Tensor, share: float) -> Tensor:
    """(same shape): this share of what the mask leaves, by score."""
    if not mask.any():
        return mask
    return scores > _quantile(scores[mask], share)


@contextmanager
def _thresholds_kept(gates: Sequence[CellGates]) -> Iterator[None]:
    before = [cell.operation.detach().clone() for cell in gates]
    yield
    for cell, threshold in zip(gates, before, strict=True):
        cell.operation.copy_(threshold)
