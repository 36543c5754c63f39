"""Below a budget without another epoch: what goes at once where a search by MGAS has no time left to learn it. Ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nas_core.costs import Site
from nas_core.granularity.masked import Placed, Subnet
from nas_core.granularity.measure import Measure, all_filters
from nas_core.granularity.slots import slot_of

SHARES = tuple(share / 20 for share in range(19, 0, -1))
"""Of the filters of a cell, tried in turn where a network has to become narrower."""
Cost = Callable[[], float]
"""Of the present network, in the measure's unit."""


def enough(net: Subnet, ops: list[Placed], cost: Cost, budget: float) -> list[Placed]:
    """As many of these, in their order, as bring the network below its budget; all where that is too few."""
    alive = [gates.alive for gates in net.gates]

    def without(count: int) -> float:
        net.remove(ops[:count])
        found = cost()
        net.restore(alive)
        return found

    if without(len(ops)) >= budget:
        return ops
    too_few, least = -1, len(ops)
    while least - too_few > 1:
        middle = (too_few + least) // 2
        too_few, least = (too_few, middle) if without(middle) < budget else (middle, least)
    return ops[:least]


def meet(net: Subnet, measure: Measure, sizes: Sequence[Site], cost: Cost, budget: float) -> tuple[int, list[str]]:
    """Commits what brings a whole network below its budget, if what is left can: the weakest ops go; where that is too
    little, nodes keep a cheaper op than their best, then filters go, the weakest of every cell.

    ``sizes``: of its cells. How many ops went, and what was done, in words.
    """
    alive = [gates.alive for gates in net.gates]
    ops = enough(net, net.weakest(), cost, budget)
    net.remove(ops)
    did = [f"{len(ops)} weakest ops went"] if ops else []
    swapped = _cheaper(net, measure, sizes, cost, budget, alive)
    did += [f"{swapped} nodes kept a cheaper op than their best"] if swapped else []
    if cost() >= budget and net.levels.filters:
        before = [dict(gates.filters) for gates in net.gates]
        for share in SHARES:
            for gates, filters in zip(net.gates, before, strict=True):
                gates.filters = dict(filters)
            net.keep_filters(share)
            if cost() < budget:
                break
        did += [f"{100 * (1 - share):.0f} % of the filters of every cell went"]
    return len(ops), did


def _cheaper(
    net: Subnet,
    measure: Measure,
    sizes: Sequence[Site],
    cost: Cost,
    budget: float,
    alive: Sequence[NDArray[np.bool_]],
) -> int:
    """Where nodes are down to one op each and the budget is not met: as many of them as that takes keep the cheapest of
    what was ``alive``, those first that lose the least score by it. How many.
    """
    if cost() < budget or net.weakest():
        return 0
    before = [gates.alive for gates in net.gates]
    swaps = []
    for position, (site, gates) in enumerate(zip(sizes, net.gates, strict=True)):
        scores, cell = gates.alpha.detach().sigmoid().cpu().numpy(), replace(net.cell(position), pool_norm=True)
        for target in range(cell.inputs, cell.inputs + cell.nodes):
            there = [(gates.table.place(slot_of(edge)), edge) for edge in cell.into(target)]
            (now,) = (place for place, _ in there if before[position][place])
            *_, place = min(
                (measure.op(site, cell, edge, all_filters(site, edge)), -float(scores[place]), place)
                for place, edge in there
                if alive[position][place]
            )
            if place != now:
                swaps.append((float(scores[now] - scores[place]), position, now, place))
    tables = [each.copy() for each in before]
    for count, (_, position, now, place) in enumerate(sorted(swaps), start=1):
        tables[position][now], tables[position][place] = False, True
        net.restore([each.copy() for each in tables])
        if cost() < budget:
            return count
    return len(swaps)
