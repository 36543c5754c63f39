"""The share of images that a network gets right: 1 - error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Kind, Value


@objectives.register("accuracy")
@settings
class Accuracy:
    """Share of images classified rightly, 0 to 1: 1 - error."""

    unit: ClassVar[str] = ""
    direction: ClassVar[Literal["minimize", "maximize"]] = "maximize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "data"

    def value(self, error: float, kind: Kind, detail: Mapping[str, Any]) -> Value:
        """``error``: a fraction. Raises ValueError for what is none."""
        if not (math.isfinite(error) and 0 <= error <= 1):
            raise ValueError(f"an error is a fraction from 0 to 1; got {error}")
        return Value(1 - error, self.unit, kind, detail)
