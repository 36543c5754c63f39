"""What comes nearest to a job's bounds, as lines."""

from __future__ import annotations

from collections.abc import Mapping

from skyline.cli.values import number, of_bound, short
from skyline.schemas.answers import FrontKind, Infeasible, Move, Near, Value

ESTIMATES = ("supernet", "trained")
"""Kinds of a search's values that verification makes anew."""
WHOSE: Mapping[FrontKind, str] = {"final": "no verified network holds", "search": "nothing that the search found holds"}


def infeasible_lines(found: Infeasible) -> list[str]:
    """The nearest candidates with their values; how bounds would have to move, and which one would do alone."""
    first = found.nearest[0]
    lines = [f"{WHOSE[found.stage]} the bounds; the nearest:"]
    lines += [f"  {short(near.id)}  {_values(near)}" for near in found.nearest]
    lines.append(f"for {short(first.id)} would have to move:")
    lines += [
        f"  {_move(key, move, first.values.get(key))}{_doubt(key, found)}" for key, move in found.violations.items()
    ]
    others = {key: move for key, move in found.alone.items() if found.violations != {key: move}}
    if others:
        lines.append("alone would do:")
        lines += [
            f"  {_move(key, move, first.values.get(key))}{_doubt(key, found)}, for {short(move.candidate)}"
            for key, move in others.items()
        ]
    return lines


def _doubt(key: str, found: Infeasible) -> str:
    """Errors of a search are higher than those after verification."""
    value = found.nearest[0].values.get(key)
    return ", an estimate" if found.stage == "search" and value is not None and value.kind in ESTIMATES else ""


def _values(near: Near) -> str:
    return ", ".join(f"{key} {number(value)}" for key, value in near.values.items())


def _move(key: str, move: Move, like: Value | None) -> str:
    """``params: max 990 to 995, by 5 (0.51 % of it)``; numbers are written as values of the objective are."""

    def written(amount: float) -> str:
        return f"{amount:.6g}" if like is None else number(Value(value=amount, unit=like.unit, kind=like.kind))

    bound = move.max if move.side == "max" else move.min
    assert bound is not None
    share = "" if move.share is None else f" ({of_bound(move.share)} of it)"
    return f"{key}: {move.side} {written(bound)} to {written(move.nearest)}, by {written(move.by)}{share}"
