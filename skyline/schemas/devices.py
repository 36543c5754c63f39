"""Devices whose costs are predicted: what is uploaded of one, and what is known of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from skyline.schemas.answers import Answer
from skyline.schemas.datasets import OwnName
from skyline.schemas.jobs import STRICT

THIS = "this-worker"


def _another(name: str) -> str:
    if name == THIS:
        raise ValueError(f"a name other than '{THIS}', which is the worker itself")
    return name


MOST_ROWS = 1000


def _few(rows: list[Any]) -> list[Any]:
    if len(rows) > MOST_ROWS:
        raise ValueError(f"at most {MOST_ROWS} rows, not {len(rows)}: leave out what no network of yours has")
    return rows


def _moment(text: str) -> str:
    """Kept as it came: a profile's SHA-256 is of its text."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("an ISO 8601 time for 'measured_at', such as 2026-01-31T14:05:00Z") from None
    return text


MOST_COST = 1e9
MOST_SCALE = 1e6
DeviceName = Annotated[OwnName, AfterValidator(_another)]
Channels = Annotated[int, Field(ge=1, le=1_000_000)]
Pixels = Annotated[int, Field(ge=1, le=100_000)]
Cost = Annotated[float, Field(ge=0, le=MOST_COST)]
"""Any network's sum of them, scaled, is far from the largest float."""


class ProfileRow(BaseModel):
    """What one part of networks costs, for a whole batch."""

    model_config = STRICT

    op: Annotated[str, Field(min_length=1, max_length=100)]
    """An op of an edge, `stem_cifar`, `stem_imagenet`, `preprocess`, `add`, `scale`, `concat`, `classifier` or
    `norm_classifier`."""
    inputs: Channels
    """Channels that come in; of a concat, of each of its maps."""
    outputs: Channels
    """Channels that go out; of a classifier, the classes."""
    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)]
    """Height and width of what comes in."""
    stride: Annotated[int, Field(ge=1, le=100)] = 1
    middle: Channels | None = None
    """Channels between the halves of a sep_conv, where they are not `inputs`."""
    pool_norm: bool = False
    """Whether a pool has a batch norm behind it."""
    ms: Cost | None = None
    """Milliseconds."""
    mj: Cost | None = None
    """Millijoules."""


class ProfileProtocol(BaseModel):
    """Under which conditions a profile holds."""

    model_config = STRICT

    batch: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Images of one inference."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Of a CPU."""
    dtype: Annotated[str, Field(min_length=1, max_length=100)] = "float32"
    runtime: Annotated[str, Field(min_length=1, max_length=200)]
    """What runs the network, with its version."""


class ProfileCalibration(BaseModel):
    """From the sum over parts to a whole network: `offset + scale * sum`, fitted on whole networks."""

    model_config = STRICT

    scale: Annotated[float, Field(gt=0, le=MOST_SCALE)] = 1.0
    offset: Cost = 0.0
    n: Annotated[int, Field(ge=0)] = 0
    """Whole networks it was fitted on, none of which is held out."""


class ProfileValidation(BaseModel):
    """How well whole networks were predicted that nothing was fitted on."""

    model_config = STRICT

    space: Annotated[str, Field(min_length=1, max_length=100)]
    cells: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1)]
    input: Annotated[list[Pixels], Field(min_length=3, max_length=3)]
    """Channels, height, width of an image."""
    classes: Annotated[int, Field(ge=2)]
    n: Annotated[int, Field(ge=2)]
    """Held-out networks, drawn uniformly."""
    tau: Annotated[float, Field(ge=-1, le=1)]
    """Kendall's rank correlation (tau-b) of predicted and measured values."""
    mape: Cost
    """Mean absolute percentage error of the predictions, in per cent."""
    tau_repeat: Annotated[float, Field(ge=-1, le=1)] | None = None
    """The same correlation between two measurements of these networks."""


class DeviceProfile(BaseModel):
    """A table of what parts of networks cost on a device, and how far their sum can be trusted."""

    model_config = STRICT

    name: DeviceName
    """By which jobs name the device."""
    device: Annotated[str, Field(min_length=1, max_length=500)]
    """What it is, such as `cpu:Cortex-A72`."""
    protocol: ProfileProtocol
    parts: Annotated[list[ProfileRow], Field(min_length=1), AfterValidator(_few)]
    """At most 1,000 rows, each of another part."""
    power_w: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Power of the busy device, W: energy is this times the predicted time where parts have no millijoules."""
    latency: ProfileCalibration | None = None
    energy: ProfileCalibration | None = None
    latency_validation: Annotated[list[ProfileValidation], Field(max_length=100)] = []
    energy_validation: Annotated[list[ProfileValidation], Field(max_length=100)] = []
    measured_at: Annotated[str, Field(max_length=100), AfterValidator(_moment)] | None = None
    """In ISO 8601."""
    notes: Annotated[str, Field(max_length=1000)] = ""


class Device(Answer):
    """A device that jobs can name: `{name: latency_ms, device: desk-pi}`."""

    name: str
    sha256: str
    """Of its profile; predicted values carry it."""
    created_at: datetime
    """When this profile came."""
    device: str
    """What it is."""
    protocol: ProfileProtocol
    parts: int
    """Rows of the table."""
    predicts: list[str]
    """Objectives: `latency_ms`, `energy_mj`."""
    power_w: float | None
    latency_validation: list[ProfileValidation]
    """How well held-out networks were predicted; empty: nobody knows."""
    energy_validation: list[ProfileValidation]
    measured_at: str | None
    notes: str


class DeviceWithProfile(Device):
    profile: dict[str, Any]
    """As it was uploaded, with all defaults: it can be uploaded again."""


class DevicePage(Answer):
    items: list[Device]
    next: str | None
    """Cursor of the next page."""
