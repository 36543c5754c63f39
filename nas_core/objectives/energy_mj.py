"""Energy of one inference: by the device's own counter where there is one, else by a model that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from nas_core.architecture import Architecture
from nas_core.errors import EnergyError, SettingError
from nas_core.objectives import objectives
from nas_core.predicted import (
    HERE,
    ByOperations,
    FromProfile,
    PowerTimesLatency,
    require_meaning,
)
from nas_core.profiles import DeviceProfile, Quantity
from nas_core.settings import settings
from nas_core.values import Value

if TYPE_CHECKING:
    import torch

MAC_PJ = 4.6
"""A float32 multiplication (3.7 pJ) and addition (0.9 pJ) at 45 nm and 0.9 V: M. Horowitz, "Computing's energy problem
(and what we can do about it)", ISSCC 2014, figure 1.1.9."""
BYTE_PJ = 162.5
"""A byte to or from DRAM, by the lower end of 1.3 to 2.6 nJ for 64 bits in the same figure."""
CITED = "Horowitz, ISSCC 2014, 45 nm: 3.7 + 0.9 pJ for a float32 multiply-add, 1.3 nJ for 64 bits of DRAM"
GIVEN = "as the job gives them"


@objectives.register("energy_mj")
@settings
class EnergyMj:
    """Millijoules of one inference: counted by the device where it can, else by a model that the value names."""

    unit: ClassVar[str] = "mJ"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "measured"
    predicts: ClassVar[Quantity] = "mj"
    """What it reads in a device's profile."""

    device: Annotated[str, MinLen(1), MaxLen(100)] = HERE
    """this-worker, or the name of a device with a profile (``skyline devices``)."""
    kind: Literal["measured", "predicted"] | None = None
    """measured: by NVML or RAPL. By default so where every live worker of the job's class has such a counter, else
    predicted."""
    method: Literal["parts", "power", "operations"] | None = None
    """Of a prediction. parts: the millijoules of a profile's table. power: ``power_w`` x time, predicted by the profile
    or measured on this worker. operations: multiply-adds and bytes, each at a price. Default: what is there, in this
    order."""
    power_w: Annotated[float, Gt(0), Le(100_000)] | None = None
    """Power of the busy device, W, of method ``power``; default: the profile's."""
    pj_per_mac: Annotated[float, Gt(0), Le(1e6)] | None = None
    """Picojoules of a multiply-add, of method ``operations``; default: 4.6 (Horowitz, ISSCC 2014, 45 nm, float32)."""
    pj_per_byte: Annotated[float, Gt(0), Le(1e6)] | None = None
    """Picojoules of a byte that moves to or from memory, of method ``operations``; default: 162.5 (same source)."""
    batch: Annotated[int, Ge(1), Le(65_536)] = 1
    """Images of one inference; of a profile its own."""
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    """CPU threads it may use while it is measured or timed."""
    seconds: Annotated[float, Gt(0), Le(60)] = 2.0
    """Of each of three windows in which a network is measured."""
    profile: Annotated[str, MaxLen(64)] | None = None
    """Noted by the service: SHA-256 of the device's profile."""

    @classmethod
    def here(cls, device: torch.device) -> dict[str, Any]:
        """Whether this machine counts energy, for the catalog: ``counter`` or why there is none."""
        from nas_core.energy import counter_of

        try:
            return {"counter": counter_of(device).method, "reason": None, "class": device.type}
        except EnergyError as error:
            return {"counter": None, "reason": str(error), "class": device.type}

    def settled(self, given: Mapping[str, Any], profile: DeviceProfile | None, counter: str | None) -> EnergyMj:
        """With nothing left open. ``given``: what the user set; ``profile``: of ``device``, if it is not this worker;
        ``counter``: what all workers measure with, if they do.

        Raises SettingError for what does not go together.
        """
        kind = self.kind or ("measured" if counter and self.device == HERE and not self._models() else "predicted")
        if kind == "measured" and self.device != HERE:
            raise SettingError("device", self.device, f"{HERE} for kind measured, or kind predicted")
        made = replace(self, kind=kind, profile=None if profile is None else profile.sha256)
        if kind == "predicted":
            made = made._modelled(profile)
        require_meaning(given, made.meaningful(), made.called())
        return made

    def _models(self) -> bool:
        """Whether a setting of a model is given."""
        return not all(each is None for each in (self.method, self.power_w, self.pj_per_mac, self.pj_per_byte))

    def _modelled(self, profile: DeviceProfile | None) -> EnergyMj:
        method = self.method
        power = self.power_w or (profile.power_w if profile is not None else None)
        if method is None and profile is None:
            method = "operations" if power is None else "power"
        elif method is None and profile is not None:
            method = "parts" if profile.has("mj") and self.power_w is None else "power"
        if method == "parts" and (profile is None or not profile.has("mj")):
            raise SettingError("method", method, "the name of a 'device' whose profile has millijoules ('mj')")
        if method == "power" and power is None:
            raise SettingError("power_w", None, "the power of the busy device in W; nothing else tells its energy")
        if method == "operations":
            if self.device != HERE:
                raise SettingError("method", method, f"parts or power: counting operations knows no device but {HERE}")
            macs, moved = self.pj_per_mac or MAC_PJ, self.pj_per_byte or BYTE_PJ
            return replace(self, method=method, pj_per_mac=macs, pj_per_byte=moved)
        return replace(self, method=method, power_w=power if method == "power" else self.power_w)

    def meaningful(self) -> tuple[str, ...]:
        """The settings that say something about the value of a settled one."""
        common: tuple[str, ...] = ("device", "kind")
        if self.kind == "measured":
            return (*common, "batch", "threads", "seconds")
        common = (*common, "method")
        if self.method == "operations":
            return (*common, "pj_per_mac", "pj_per_byte", "batch")
        if self.method == "parts":
            return (*common, "profile")
        return (*common, "power_w", *(("batch", "threads") if self.device == HERE else ("profile",)))

    def called(self) -> str:
        how = "" if self.kind == "measured" else f" by method '{self.method}'"
        where = "" if self.device == HERE else f" for device '{self.device}'"
        return f"energy_mj {self.kind}{how}{where}"

    def reads(self) -> Quantity | None:
        """Which column of the device's profile a settled one needs, if any."""
        if self.kind == "measured" or self.device == HERE:
            return None
        return "mj" if self.method == "parts" else "ms"

    def on(self, profile: DeviceProfile | None) -> Any:
        """The objective that gives values. Where the service settled nothing, a model does."""
        if self.kind is None:
            return self.settled({}, profile, None).on(profile)
        if self.kind == "measured":
            return self
        if self.method == "operations":
            macs, moved = self.pj_per_mac or MAC_PJ, self.pj_per_byte or BYTE_PJ
            cited = CITED if (macs, moved) == (MAC_PJ, BYTE_PJ) else GIVEN
            return ByOperations(self.batch, macs, moved, cited)
        if profile is None:
            return self  # timed here
        if self.method == "parts":
            return FromProfile(profile, "mj")
        assert self.power_w is not None
        return PowerTimesLatency(profile, self.power_w)

    def measure(self, architectures: Sequence[Architecture], device: torch.device) -> list[Value]:
        """By the device's counter, or ``power_w`` x measured time.

        Raises EnergyError with the reason where this device does not count, DeviceError where it has no clock.
        """
        if self.kind == "predicted":
            return self._by_power(architectures, device)
        import torch

        from nas_core import energy
        from nas_core.devices import describe
        from nas_core.measuring import fresh, inferences

        counter = energy.counter_of(device)
        with inferences(*fresh(architectures, device, self.batch), device, self.threads) as runs:
            readings = energy.measure(runs, counter, self.seconds)
        common = {
            "method": counter.method,
            "device": describe(device),
            "batch": self.batch,
            "dtype": "float32",
            "runtime": f"torch {torch.__version__}",
            "threads": self.threads,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return [
            Value(
                reading.millijoules,
                self.unit,
                "measured",
                {
                    **common,
                    "n": reading.inferences,
                    "windows": reading.windows,
                    "q25": reading.q25,
                    "iqr": reading.q75 - reading.q25,
                    "gross_mj": reading.gross,
                    "idle_w": reading.idle_w,
                },
            )
            for reading in readings
        ]

    def _by_power(self, architectures: Sequence[Architecture], device: torch.device) -> list[Value]:
        from nas_core.objectives.latency_ms import LatencyMs

        if self.power_w is None:
            raise EnergyError("no power is known; give 'power_w', the power of the busy device in W")
        timed = LatencyMs(kind="measured", batch=self.batch, threads=self.threads).measure(architectures, device)
        told = {"method": "power x measured latency", "power_w": self.power_w}
        return [
            Value(
                self.power_w * ms.value,  # W x ms = mJ
                self.unit,
                "predicted",
                {
                    **ms.detail,
                    **{name: self.power_w * ms.detail[name] for name in SCALED},
                    **told,
                    "latency_ms": ms.value,
                },
            )
            for ms in timed
        ]


SCALED = ("q25", "iqr", "standard_error")
"""Of a latency's detail: what is in its unit."""
