"""The share of images that a network gets wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Kind, Value


@objectives.register("error")
@settings
class Error:
    """Share of images classified wrongly, 0 to 1."""

    unit: ClassVar[str] = ""
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "data"

    def value(self, error: float, kind: Kind, detail: Mapping[str, Any]) -> Value:
        """``error``: a fraction. Raises ValueError for what is none."""
        if not (math.isfinite(error) and 0 <= error <= 1):
            raise ValueError(f"an error is a fraction from 0 to 1; got {error}")
        return Value(error, self.unit, kind, detail)
