"""Which cells of a stack search, where only some do (EnTranNAS, arXiv 2101.11342)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Literal

from annotated_types import Ge, MinLen

from nas_core.errors import InvalidSettingsError

Positions = Literal["first", "last"] | Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)]
"""The first or the last cell of each type, or positions from 0."""


def positions(wanted: Positions, cells: Sequence[str], searched: Collection[str]) -> frozenset[int]:
    """Where they stand. ``cells``: cell types by position; ``searched``: types that have something to choose.

    Raises InvalidSettingsError for a position without such a cell, and for a type without a position.
    """
    where = {name: [at for at, kind in enumerate(cells) if kind == name] for name in searched}
    where = {name: places for name, places in where.items() if places}
    if not isinstance(wanted, tuple):
        return frozenset(places[0 if wanted == "first" else -1] for places in where.values())
    every = {place for places in where.values() for place in places}
    for place in wanted:
        if place not in every:
            listed = ", ".join(map(str, sorted(every)))
            raise InvalidSettingsError(f"engines: no searched cell stands at {place}; they stand at {listed}")
    for name, places in where.items():
        if not set(places) & set(wanted):
            listed = ", ".join(map(str, places))
            raise InvalidSettingsError(
                f"engines: none is of type '{name}', whose alpha would learn nothing; its cells stand at {listed}"
            )
    return frozenset(wanted)
