"""How long one inference takes on the worker that measures it, in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from nas_core.architecture import Architecture
from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Value

if TYPE_CHECKING:
    import torch
    from torch import nn


@objectives.register("latency_ms")
@settings
class LatencyMs:
    """Milliseconds of one inference, measured on the worker's device; the median over interleaved rounds."""

    unit: ClassVar[str] = "ms"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "measured"

    device: Literal["this-worker"] = "this-worker"
    """Where it is measured."""
    kind: Literal["measured"] = "measured"
    """Measured, not predicted."""
    runtime: Literal["torch"] = "torch"
    """What runs the network: PyTorch, float32, channels last."""
    batch: Annotated[int, Ge(1), Le(65_536)] = 1
    """Images of one inference."""
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    """CPU threads it may use."""
    seconds: Annotated[float, Gt(0), Le(60)] = 0.6
    """Most time spent on a network, on the average of those measured together."""

    def measure(
        self,
        architectures: Sequence[Architecture],
        device: torch.device,
        build: Callable[[Architecture], nn.Module] | None = None,
    ) -> list[Value]:
        """Measures stand-alone networks side by side; only values of one call are free of the machine's drift.

        ``build`` makes the network of an architecture; default: nas_core.network.Network. Its weights are random, drawn
        without moving PyTorch's global generator. Takes 0.1 to 0.7 seconds per network, more where one inference
        takes longer than 0.2 s. Raises DeviceError where the device cannot measure it.
        """
        import torch

        from nas_core.devices import describe
        from nas_core.measuring import time_interleaved
        from nas_core.network import Network

        make = build or Network
        networks, batches = [], []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for architecture in architectures:
                networks.append(make(architecture).to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
                images = torch.randn((self.batch, *architecture.skeleton.input))
                batches.append(images.to(device, memory_format=torch.channels_last))
        timings = time_interleaved(networks, batches, device, self.threads, self.seconds)
        common = {
            "device": describe(device),
            "batch": self.batch,
            "dtype": "float32",
            "runtime": f"torch {torch.__version__}",
            "threads": self.threads,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return [
            Value(
                timing.median * 1e3,
                self.unit,
                "measured",
                {
                    **common,
                    "n": timing.inferences,
                    "rounds": timing.rounds,
                    "q25": timing.q25 * 1e3,
                    "iqr": (timing.q75 - timing.q25) * 1e3,
                    "standard_error": timing.standard_error * 1e3,
                },
            )
            for timing in timings
        ]
