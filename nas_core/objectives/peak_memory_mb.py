"""The most memory that one inference takes at once."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from nas_core.architecture import Architecture
from nas_core.costs import Resource
from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Value

MB = 2**20


@objectives.register("peak_memory_mb")
@settings
class PeakMemoryMb:
    """MB (2**20 bytes) of weights and of the tensors that live at once in one inference, in eager PyTorch, float32."""

    unit: ClassVar[str] = "MB"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "exact"
    resource: ClassVar[Resource] = "macs"
    """What it rises with, roughly."""
    roughly: ClassVar[bool] = True
    additive: ClassVar[bool] = False
    """What lives at once is no sum over ops."""

    batch: Annotated[int, Ge(1), Le(65_536)] = 1
    """Images of one inference."""

    def value(self, architecture: Architecture) -> Value:
        """Exact: follows from the shapes alone. Raises what building the network raises."""
        from nas_core.memory import inference_memory

        found = inference_memory(architecture, self.batch)
        detail = {
            "counter": "weights + live tensors",
            "batch": self.batch,
            "dtype": "float32",
            "state_mb": found.state / MB,
            "activations_mb": found.activations / MB,
        }
        return Value(found.peak / MB, self.unit, "exact", detail)
