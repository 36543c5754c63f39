"""Values know where they come from: number, unit, kind and the protocol behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["exact", "supernet", "trained", "predicted", "measured", "tabular"]
KINDS: tuple[str, ...] = get_args(Kind)
GOALS = "goals"
"""Where a job asks for several networks one by one (sets of bounds, resource weights, targets), the detail of values of
kind supernet that lists which of them this one may be, from 1.
"""


@dataclass(frozen=True, slots=True)
class Value:
    """One objective's value of one architecture, in the objective's own unit and direction."""

    value: float
    unit: str
    kind: Kind
    detail: Mapping[str, Any] = field(default_factory=dict)
    """The protocol: device, batch, dtype, runtime, n, q25, iqr, epochs, seeds, at, counter, ..."""

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "unit": self.unit, "kind": self.kind, **self.detail}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Value:
        rest = {key: item for key, item in data.items() if key not in ("value", "unit", "kind")}
        return cls(float(data["value"]), str(data["unit"]), data["kind"], rest)
