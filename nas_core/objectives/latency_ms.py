"""How long one inference takes: measured on the worker in eager PyTorch, or predicted from a device's profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from nas_core.architecture import Architecture
from nas_core.errors import SettingError
from nas_core.objectives import objectives
from nas_core.predicted import HERE, FromProfile, require_meaning
from nas_core.profiles import DeviceProfile, Quantity
from nas_core.settings import settings
from nas_core.values import Value

if TYPE_CHECKING:
    import torch
    from torch import nn


@objectives.register("latency_ms")
@settings
class LatencyMs:
    """Milliseconds of one inference: measured on the worker's device, or predicted from the profile of another."""

    unit: ClassVar[str] = "ms"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "measured"
    predicts: ClassVar[Quantity] = "ms"
    """What it reads in a device's profile."""

    device: Annotated[str, MinLen(1), MaxLen(100)] = HERE
    """this-worker, or the name of a device with a profile (``skyline devices``)."""
    kind: Literal["measured", "predicted"] | None = None
    """Default: measured on this worker, predicted for another device."""
    runtime: Literal["torch"] = "torch"
    """What runs the network while it is measured: PyTorch, float32, channels last."""
    batch: Annotated[int, Ge(1), Le(65_536)] = 1
    """Images of one inference; a profile has its own."""
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    """CPU threads it may use; a profile has its own."""
    seconds: Annotated[float, Gt(0), Le(60)] = 0.6
    """Most time spent on measuring a network, on the average of those measured together."""
    profile: Annotated[str, MaxLen(64)] | None = None
    """Noted by the service: SHA-256 of the device's profile."""

    def settled(self, given: Mapping[str, Any], profile: DeviceProfile | None, counter: str | None) -> LatencyMs:
        """With nothing left open. ``given``: what the user set; ``profile``: of ``device``, if it is not this worker.

        Raises SettingError for what does not go together.
        """
        kind = self.kind or ("measured" if self.device == HERE else "predicted")
        if kind == "measured" and self.device != HERE:
            raise SettingError("device", self.device, f"{HERE} for kind measured, or kind predicted")
        if kind == "predicted" and profile is None:
            raise SettingError(
                "device", self.device, "the name of a device with a profile; 'skyline devices' lists them"
            )
        made = replace(self, kind=kind, profile=None if profile is None else profile.sha256)
        require_meaning(given, made.meaningful(), f"latency_ms {kind}")
        return made

    def meaningful(self) -> tuple[str, ...]:
        """The settings that say something about the value of a settled one."""
        if self.kind == "predicted":
            return ("device", "kind", "profile")
        return ("device", "kind", "runtime", "batch", "threads", "seconds")

    def reads(self) -> Quantity | None:
        """Which column of the device's profile a settled one needs, if any."""
        return "ms" if self.kind == "predicted" else None

    def on(self, profile: DeviceProfile | None) -> Any:
        """The objective that gives values. Raises SettingError where it needs a profile."""
        if self.kind is None:
            return self.settled({}, profile, None).on(profile)
        if self.kind == "measured":
            return self
        if profile is None:
            raise SettingError("device", self.device, "the name of a device with a profile")
        return FromProfile(profile, "ms")

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
        from nas_core.measuring import fresh, time_interleaved

        networks, batches = fresh(architectures, device, self.batch, build)
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
