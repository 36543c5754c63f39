"""A device profile: what each part of a network costs on a device, and how well their sum has predicted whole networks.

``skyline device profile`` measures one; written by hand it is the same JSON (docs/howto/devices.md). No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError

from nas_core.architecture import Architecture
from nas_core.errors import InvalidGenotypeError, MissingPartError, ProfileError, UnknownNameError
from nas_core.parts import CLASSIFIER, NORM_CLASSIFIER, STEMS, Part, part_work, parts_of

_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Quantity = Literal["ms", "mj"]
MOST_PARTS = 1000
FEWEST_HELD_OUT = 2
"""A rank correlation is between two networks at least."""
Channels = Annotated[int, Ge(1), Le(1_000_000)]
Pixels = Annotated[int, Ge(1), Le(100_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one part costs, for a whole batch."""

    __pydantic_config__ = _CONFIG
    op: Annotated[str, MinLen(1), MaxLen(100)]
    """An op, ``stem_cifar``, ``stem_imagenet``, ``preprocess``, ``add``, ``concat``, ``classifier``, ..."""
    inputs: Channels
    """Channels that come in; of a concat, of each of its maps."""
    outputs: Channels
    """Channels that go out; of a classifier, the classes."""
    size: tuple[Pixels, Pixels]
    """Height and width of what comes in."""
    stride: Annotated[int, Ge(1), Le(100)] = 1
    middle: Channels | None = None
    pool_norm: bool = False
    ms: Annotated[float, Ge(0)] | None = None
    """Milliseconds; null where only energy is known."""
    mj: Annotated[float, Ge(0)] | None = None
    """Millijoules; null where only time is known."""

    @property
    def part(self) -> Part:
        middle = None if self.middle == self.inputs else self.middle
        return Part(self.op, self.inputs, self.outputs, self.size, self.stride, middle, self.pool_norm)


WHOLE = frozenset({*STEMS.values(), CLASSIFIER, NORM_CLASSIFIER})
"""Parts that stand once in a network and have the table's cost or none."""
Kind = tuple[str, tuple[int, int], int, bool]
"""Op, size of what comes in, stride, whether a batch norm stands behind a pool: parts that differ in channels alone."""


def _kind(part: Part) -> Kind:
    return part.op, part.size, part.stride, part.pool_norm


def _amount(part: Part) -> float:
    """What costs of a kind grow with: its multiply-adds, or what it reads and writes where it has none."""
    work = part_work(part)
    return float(work.macs or work.activations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Under which conditions a profile holds."""

    __pydantic_config__ = _CONFIG
    batch: Annotated[int, Ge(1), Le(65_536)] = 1
    """Images of one inference."""
    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    """Of a CPU."""
    dtype: Annotated[str, MinLen(1), MaxLen(100)] = "float32"
    runtime: Annotated[str, MinLen(1), MaxLen(200)]
    """What runs the network, with its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """From the sum over parts to a whole network: ``offset + scale * sum``, fitted on whole networks."""

    __pydantic_config__ = _CONFIG
    scale: Annotated[float, Gt(0)] = 1.0
    offset: Annotated[float, Ge(0)] = 0.0
    """In the unit of the quantity."""
    n: Annotated[int, Ge(0)] = 0
    """Whole networks it was fitted on, none of which is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How well whole networks were predicted that nothing was fitted on."""

    __pydantic_config__ = _CONFIG
    space: Annotated[str, MinLen(1), MaxLen(100)]
    cells: Annotated[int, Ge(1)]
    channels: Annotated[int, Ge(1)]
    input: tuple[Pixels, Pixels, Pixels]
    """Channels, height, width of an image."""
    classes: Annotated[int, Ge(2)]
    n: Annotated[int, Ge(FEWEST_HELD_OUT)]
    """Held-out networks, drawn uniformly."""
    tau: Annotated[float, Ge(-1), Le(1)]
    """Kendall's rank correlation (tau-b) of predicted and measured values."""
    mape: Annotated[float, Ge(0)]
    """Mean absolute percentage error of the predictions, in per cent."""
    tau_repeat: Annotated[float, Ge(-1), Le(1)] | None = None
    """The same correlation between two measurements of these networks: what a perfect prediction would reach."""


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """A table of parts, the protocol behind it and how far it can be trusted."""

    __pydantic_config__ = _CONFIG
    name: Annotated[str, MinLen(1), MaxLen(100)]
    """By which jobs name the device."""
    device: Annotated[str, MinLen(1), MaxLen(500)]
    """What it is, such as ``cpu:Cortex-A72``."""
    protocol: Protocol
    parts: Annotated[tuple[Row, ...], MinLen(1), MaxLen(MOST_PARTS)]
    power_w: Annotated[float, Gt(0), Le(100_000)] | None = None
    """Power of the busy device, W: energy is this times the predicted time where parts have none of their own."""
    latency: Calibration | None = None
    energy: Calibration | None = None
    latency_validation: tuple[Validation, ...] = ()
    energy_validation: tuple[Validation, ...] = ()
    measured_at: Annotated[str, MaxLen(100)] | None = None
    notes: Annotated[str, MaxLen(1000)] = ""

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str, check: bool = True) -> DeviceProfile:
        """Parses and, if ``check``, looks for ``faults``. Raises ProfileError with the place of the first."""
        try:
            text = document if isinstance(document, str) else json.dumps(document, allow_nan=True)
            profile = _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = "/" + "/".join(str(part) for part in first["loc"])
            raise ProfileError(f"{place}: {first['msg']} (got {str(first['input'])[:80]})") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise ProfileError(f"this is no JSON document: {str(error)[:200]}") from error
        for place, text in profile.faults() if check else ():
            raise ProfileError(f"{place}: {text}")
        return profile

    def to_json(self) -> dict[str, Any]:
        dumped: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return dumped

    def faults(self) -> Iterable[tuple[str, str]]:
        """What no form can tell, as (place, what is wrong): unknown parts, parts that stand twice, parts of no cost."""
        seen: dict[Part, int] = {}
        for index, row in enumerate(self.parts):
            place = f"/parts/{index}"
            try:
                row.part.check()
            except (InvalidGenotypeError, UnknownNameError) as error:
                yield f"{place}/op", str(error)
                continue
            if row.part in seen:
                yield place, f"{row.part} stands at /parts/{seen[row.part]} already; each part has one row"
            seen.setdefault(row.part, index)
            if row.ms is None and row.mj is None:
                yield place, f"{row.part} has neither ms nor mj; give one of them, or leave the row out"

    @cached_property
    def sha256(self) -> str:
        """Of the canonical JSON; values carry it."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _tables(self) -> Mapping[Quantity, Mapping[Part, float]]:
        ms = {row.part: row.ms for row in self.parts if row.ms is not None}
        mj = {row.part: row.mj for row in self.parts if row.mj is not None}
        return {"ms": ms, "mj": mj}

    def has(self, quantity: Quantity) -> bool:
        """Whether any part has it."""
        return bool(self._tables[quantity])

    @cached_property
    def _kinds(self) -> Mapping[Quantity, Mapping[Kind, tuple[Sequence[float], Sequence[float]]]]:
        """By kind of part: what its parts do, ascending, and what they cost, the mean of those that do as much."""
        found: dict[Quantity, dict[Kind, tuple[Sequence[float], Sequence[float]]]] = {}
        for quantity, table in self._tables.items():
            by_kind: dict[Kind, dict[float, list[float]]] = {}
            for part, cost in table.items():
                by_kind.setdefault(_kind(part), {}).setdefault(_amount(part), []).append(cost)
            found[quantity] = {
                kind: (sorted(costs), [sum(costs[amount]) / len(costs[amount]) for amount in sorted(costs)])
                for kind, costs in by_kind.items()
            }
        return found

    def cost(self, part: Part, quantity: Quantity) -> float | None:
        """Milliseconds or millijoules of a part, uncalibrated. Of one that is not in the table, by a straight line
        between those of its kind (op, size, stride) that do next less and next more; None where there are none.
        """
        found = self._tables[quantity].get(part)
        if found is not None or part.op in WHOLE:
            return found
        amounts, costs = self._kinds[quantity].get(_kind(part), ((), ()))
        amount = _amount(part)
        if not amounts or not amounts[0] <= amount <= amounts[-1]:
            return None
        return float(np.interp(amount, amounts, costs))

    def lacking(self, parts: Iterable[Part], quantity: Quantity) -> list[Part]:
        """Which of the parts have no row of their own, in order."""
        table = self._tables[quantity]
        return sorted({part for part in parts if part not in table}, key=str)

    def unknown(self, parts: Iterable[Part], quantity: Quantity) -> list[Part]:
        """Which of the parts it tells nothing about, neither by a row nor by those around, in order."""
        return sorted({part for part in parts if self.cost(part, quantity) is None}, key=str)

    def interpolated(self, architecture: Architecture, quantity: Quantity) -> int:
        """How many parts of a network are not in the table themselves."""
        counts = parts_of(architecture)
        return sum(counts[part] for part in self.lacking(counts, quantity))

    def predict(self, architecture: Architecture, quantity: Quantity) -> float:
        """Milliseconds or millijoules of one inference. Raises MissingPartError for parts that the table tells nothing
        about.
        """
        counts = parts_of(architecture)
        calibration = self.calibration(quantity)
        return calibration.offset + calibration.scale * self.summed(counts.elements(), quantity)

    def summed(self, parts: Iterable[Part], quantity: Quantity) -> float:
        """Of all together, uncalibrated. Raises MissingPartError for parts that the table tells nothing about."""
        counts = Counter(parts)
        missing = self.unknown(counts, quantity)
        if missing:
            raise MissingPartError(self.name, [str(part) for part in missing], quantity)
        return sum(count * (self.cost(part, quantity) or 0.0) for part, count in counts.items())

    def calibration(self, quantity: Quantity) -> Calibration:
        """From the sum of parts to a network."""
        given = self.latency if quantity == "ms" else self.energy
        return given or Calibration()

    def validation(self, quantity: Quantity, space: str) -> Validation | None:
        """The one on networks of this space, if there is any; of several the one with most networks."""
        found: Sequence[Validation] = self.latency_validation if quantity == "ms" else self.energy_validation
        return max((each for each in found if each.space == space), key=lambda each: each.n, default=None)

    def detail(self, quantity: Quantity, architecture: Architecture) -> dict[str, Any]:
        """What stands beside a predicted value: whose profile, under which protocol, how far it can be trusted."""
        seen = self.validation(quantity, architecture.genotype.space)
        trusted: dict[str, Any] = {"tau": None, "tau_repeat": None, "mape": None, "held_out": 0}
        if seen is not None:
            trusted = {"tau": seen.tau, "tau_repeat": seen.tau_repeat, "mape": seen.mape, "held_out": seen.n}
        return {
            "device": self.name,
            "describes": self.device,
            "profile": self.sha256,
            "batch": self.protocol.batch,
            "dtype": self.protocol.dtype,
            "runtime": self.protocol.runtime,
            "threads": self.protocol.threads,
            "interpolated": self.interpolated(architecture, quantity),
            **trusted,
        }


_ADAPTER: TypeAdapter[DeviceProfile] = TypeAdapter(DeviceProfile)
