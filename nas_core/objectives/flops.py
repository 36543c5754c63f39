"""Floating-point operations of one image: two for each multiply-add."""

from __future__ import annotations

from typing import ClassVar, Literal

from nas_core.architecture import Architecture
from nas_core.costs import Resource, count
from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Value


@objectives.register("flops")
@settings
class Flops:
    """Floating-point operations of one inference: 2 x macs."""

    unit: ClassVar[str] = ""
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "exact"
    resource: ClassVar[Resource] = "macs"
    """The cost table it is read from, for floors, ceilings and gradients."""
    scale: ClassVar[int] = 2
    """What one unit of the resource counts here."""

    def value(self, architecture: Architecture) -> Value:
        """Exact. Raises UnknownNameError for an op without a known cost."""
        return Value(float(self.scale * count(architecture).macs), self.unit, "exact", {"counter": "conv+linear"})
