"""Identifiers and values as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyline.cli.find import SHORT

if TYPE_CHECKING:
    from uuid import UUID

    from skyline.schemas.answers import TestResult, Value

SHARE_UNITS = ("", "fraction")
"""Units of values from 0 to 1, shown as per cent; counts have no unit either, but are exact."""
NO_SHARES = ("exact", "measured", "predicted")
"""Kinds of values that follow from no error on images, whatever their unit."""


def short(identifier: UUID) -> str:
    return str(identifier)[:SHORT]


def number(value: Value) -> str:
    """A value for people, with its spread or what weight masks leave of it where there is such: ``3.4 %``, ``41,322``,
    ``3.21 ±0.07``, ``21,808 (21,120 nonzero)``.
    """
    if value.unit in SHARE_UNITS and value.kind not in NO_SHARES:
        return f"{100 * value.value:.2f} %"
    text = f"{int(value.value):,}" if value.value.is_integer() else f"{value.value:.4g}"
    more = value.model_extra or {}
    if isinstance(nonzero := more.get("nonzero"), int) and nonzero != value.value:
        return f"{text} ({nonzero:,} nonzero)"
    return f"{text} ±{iqr / 2:.2g}" if isinstance(iqr := more.get("iqr"), int | float) else text


def percent(test: TestResult | None) -> str:
    if test is None:
        return ""
    spread = "" if test.sd is None else f" ±{100 * test.sd:.2f}"
    return f"{100 * test.error:.2f}{spread} %"


def of_bound(share: float) -> str:
    """A distance as a share of its bound: ``5 %``, ``0.51 %``, ``1,240 %``."""
    return f"{100 * share:,.0f} %" if share >= 1 else f"{100 * share:.2g} %"
