"""Parameters of the network, batch norms included, the auxiliary head not."""

from __future__ import annotations

from typing import ClassVar, Literal

from nas_core.architecture import Architecture
from nas_core.costs import Resource, count
from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Value


@objectives.register("params")
@settings
class Params:
    """Parameters of the network, without auxiliary head."""

    unit: ClassVar[str] = ""
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "exact"
    resource: ClassVar[Resource] = "params"
    """The cost table it is read from, for floors, ceilings and gradients."""
    scale: ClassVar[int] = 1
    """What one unit of the resource counts here."""

    def value(self, architecture: Architecture) -> Value:
        """Exact. Raises UnknownNameError for an op without a known cost."""
        return Value(
            float(self.scale * count(architecture).params), self.unit, "exact", {"counter": "without auxiliary head"}
        )
