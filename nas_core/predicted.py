"""Costs that are predicted from a device's profile or by a model, instead of measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nas_core.architecture import Architecture
from nas_core.costs import Resource
from nas_core.errors import SettingError
from nas_core.parts import Part, Work, part_work, work_of
from nas_core.profiles import DeviceProfile, Quantity
from nas_core.values import Value

HERE = "this-worker"
"""The device that means the worker itself."""
PICO_TO_MILLI = 1e-9


def require_meaning(given: Mapping[str, Any], meaningful: Collection[str], what: str) -> None:
    """Raises SettingError for a setting that was given and says nothing about ``what``."""
    for setting, got in given.items():
        if got is not None and setting not in meaningful:
            listed = ", ".join(sorted(meaningful))
            raise SettingError(setting, got, f"nothing: it has no meaning for {what}, which takes {listed}")


@dataclass(frozen=True)
class Predicted(ABC):
    """What all of them are: known from the architecture alone, a sum over its parts."""

    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    source: ClassVar[Literal["data", "exact", "measured"]] = "exact"
    resource: ClassVar[Resource] = "macs"
    roughly: ClassVar[bool] = True
    """The value does not rise strictly with the resource."""

    @property
    def constant(self) -> float:
        """Of every network, whatever its parts."""
        return 0.0

    @abstractmethod
    def of_parts(self, parts: Sequence[Part]) -> float:
        """What these add to a network's value. Raises MissingPartError."""


@dataclass(frozen=True)
class FromProfile(Predicted):
    """The sum over a network's parts in the table of a device, calibrated on whole networks."""

    profile: DeviceProfile
    quantity: Quantity

    @property
    def constant(self) -> float:
        return self.profile.calibration(self.quantity).offset

    def of_parts(self, parts: Sequence[Part]) -> float:
        return self.profile.calibration(self.quantity).scale * self.profile.summed(parts, self.quantity)

    @property
    def unit(self) -> str:
        return "ms" if self.quantity == "ms" else "mJ"

    def value(self, architecture: Architecture) -> Value:
        """Raises MissingPartError for a network with a part that the profile does not have."""
        predicted = self.profile.predict(architecture, self.quantity)
        detail = self.profile.detail(self.quantity, architecture)
        return Value(predicted, self.unit, "predicted", {"method": "parts", **detail})


@dataclass(frozen=True)
class PowerTimesLatency(Predicted):
    """Power of the busy device times the predicted time of an inference."""

    unit: ClassVar[str] = "mJ"
    profile: DeviceProfile
    power_w: float

    @property
    def constant(self) -> float:
        return self.power_w * self.profile.calibration("ms").offset

    def of_parts(self, parts: Sequence[Part]) -> float:
        return self.power_w * self.profile.calibration("ms").scale * self.profile.summed(parts, "ms")  # W x ms = mJ

    def value(self, architecture: Architecture) -> Value:
        """Raises MissingPartError for a network with a part that the profile does not have."""
        ms = self.profile.predict(architecture, "ms")
        detail = self.profile.detail("ms", architecture)
        told = {"method": "power x predicted latency", "power_w": self.power_w, "latency_ms": ms, **detail}
        return Value(self.power_w * ms, self.unit, "predicted", told)


@dataclass(frozen=True)
class ByOperations(Predicted):
    """Energy by counting: so much for a multiply-add, so much for a byte that goes to or from memory."""

    unit: ClassVar[str] = "mJ"
    batch: int
    pj_per_mac: float
    pj_per_byte: float
    source_of: str
    """Where the coefficients come from."""

    def of_parts(self, parts: Sequence[Part]) -> float:
        return self._millijoules(sum(map(part_work, parts), start=Work()))

    def _millijoules(self, work: Work) -> float:
        moved = bytes_moved(work, self.batch)
        return PICO_TO_MILLI * (self.pj_per_mac * work.macs * self.batch + self.pj_per_byte * moved)

    def value(self, architecture: Architecture) -> Value:
        work = work_of(architecture)
        detail: Mapping[str, Any] = {
            "method": "operations",
            "batch": self.batch,
            "dtype": "float32",
            "macs": work.macs * self.batch,
            "bytes": bytes_moved(work, self.batch),
            "pj_per_mac": self.pj_per_mac,
            "pj_per_byte": self.pj_per_byte,
            "coefficients": self.source_of,
        }
        return Value(self._millijoules(work), self.unit, "predicted", detail)


def bytes_moved(work: Work, batch: int) -> int:
    """In float32: weights once for a batch, each layer's input and output once for each image."""
    return 4 * (work.weights + batch * work.activations)
