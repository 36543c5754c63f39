"""Measures a device profile: every part of a space by itself, then whole networks to calibrate and to judge it.

The parts of all networks on a skeleton are timed in interleaved rounds (nas_core.measuring). Two further sets of whole
networks are drawn uniformly: on the first, scale and offset of the sum are fitted; the second, which nothing is fitted
on, is timed twice and tells how well the profile ranks (Kendall's tau), how far it is off (mean absolute percentage
error), and how well a second measurement ranks, which is the most that a prediction can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, cat, nn

from nas_core import parts as kinds
from nas_core import profiles
from nas_core.architecture import Architecture, Skeleton
from nas_core.architecture import Stem as StemName
from nas_core.devices import describe
from nas_core.errors import ProfileError
from nas_core.measuring import fresh, time_interleaved
from nas_core.network import NORM
from nas_core.ops import make_op, preprocess
from nas_core.parts import STEMS, Laid, Part, Widthwise, parts_on
from nas_core.profiles import Calibration, DeviceProfile, Row, Validation
from nas_core.search import SearchSpace
from nas_core.stem import Classifier, NormClassifier, Stem

TRAIN, HELD_OUT = 24, 40
"""Whole networks to fit on, and to judge by."""
TRIES = 100
"""Draws for each network that is wanted: a small space may not have as many."""
NETWORK_SECONDS = 0.6
"""Most time for each, on the average."""
PART_SHARE = 0.5
"""Of that, for a part."""
Values = NDArray[np.float64]
Say = Callable[[str], None]


@runtime_checkable
class Profilable(SearchSpace, Laid, Protocol):
    """A space whose networks are made of parts that can be listed beforehand."""


# --- parts as modules -------------------------------------------------------------------------------------------------


class Sum(nn.Module):
    """Adds a map to another one."""

    other: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("other", torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> the same shape
        out: Tensor = x + self.other
        return out


class Scaled(nn.Module):
    """A map times a number."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> the same shape
        return x * 0.5


class Concat(nn.Module):
    """Concatenates maps of one shape on the channel axis."""

    def __init__(self, shape: Sequence[int], count: int) -> None:
        super().__init__()
        for index in range(count - 1):
            self.register_buffer(f"other{index}", torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, count C, H, W)
        others = [other.expand(len(x), -1, -1, -1) for other in self.buffers()]
        return cat([x, *others], dim=1)


class StemAlone(Stem):
    """The stem gives two maps; here the second one."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # (N, C, H, W) -> (N, C', H', W')
        return super().forward(x)[1]


def module_of(part: Part, batch: int) -> nn.Module:
    """A part as a module of its own, as it is in a whole network. Raises what ``Part.check`` does."""
    part.check()
    shape = (batch, part.inputs, *part.size)
    for stem, name in STEMS.items():
        if part.op == name:
            images = (part.inputs, *part.size)
            kind: StemName = "imagenet" if stem == "imagenet" else "cifar"
            return StemAlone(Skeleton((), part.outputs, kind, images, 2, "residual"))
    match part.op:
        case kinds.ADD:
            return Sum(shape)
        case kinds.SCALE:
            return Scaled()
        case kinds.CONCAT:
            return Concat(shape, part.outputs // part.inputs)
        case kinds.PREPROCESS:
            return preprocess(part.inputs, part.outputs, part.stride, NORM)
        case kinds.CLASSIFIER:
            return Classifier(part.inputs, part.outputs)
        case kinds.NORM_CLASSIFIER:
            return NormClassifier(part.inputs, part.outputs)
    widths = {"middle": part.middle, "outputs": part.outputs}
    return make_op(part.op, part.inputs, part.stride, NORM, pool_norm=part.pool_norm, **widths)


# --- timing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where and how parts and networks are timed."""

    device: torch.device
    batch: int = 1
    threads: int = 1
    part_seconds: float = PART_SHARE * NETWORK_SECONDS
    """Most time for each, on the average."""
    network_seconds: float = NETWORK_SECONDS

    def parts(self, parts: Sequence[Part]) -> Values:
        """Milliseconds of each part."""
        with _own_chance():
            modules = [module_of(part, self.batch) for part in parts]
            images = [torch.randn(self.batch, part.inputs, *part.size) for part in parts]
        return self._times(modules, images, self.part_seconds, as_part=True)

    def networks(self, architectures: Sequence[Architecture]) -> Values:
        """Milliseconds of each network, as the objective latency_ms measures them."""
        networks, images = fresh(architectures, self.device, self.batch)
        return self._times(networks, images, self.network_seconds)

    def _times(
        self, modules: Sequence[nn.Module], images: Sequence[Tensor], seconds: float, as_part: bool = False
    ) -> Values:
        form = torch.channels_last
        placed = [module.to(self.device, memory_format=form) for module in modules]  # type: ignore[call-overload]
        inputs = [image.to(self.device, memory_format=form) for image in images]
        timings = time_interleaved(placed, inputs, self.device, self.threads, seconds, as_part=as_part)
        return np.array([timing.median for timing in timings]) * 1e3


@contextmanager
def _own_chance() -> Iterator[None]:
    """Weights are drawn without moving PyTorch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# --- what is made of the times ----------------------------------------------------------------------------------------


def kendall_tau(one: Sequence[float] | Values, other: Sequence[float] | Values) -> float:
    """Kendall's tau-b: -1 to 1, ties counted out; 0 where one side has nothing but ties. Raises ValueError."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"two lists of equal length, 2 or more, are wanted; got shapes {a.shape} and {b.shape}")
    upper = np.triu_indices(len(a), 1)
    left, right = np.sign(a[:, None] - a)[upper], np.sign(b[:, None] - b)[upper]
    pairs = np.sqrt(float(np.count_nonzero(left)) * float(np.count_nonzero(right)))
    return float((left * right).sum() / pairs) if pairs else 0.0


def fit(sums: Values, measured: Values) -> Calibration:
    """Scale and offset of the least relative squares; neither is negative."""
    weights = 1 / measured
    columns = np.stack([np.ones_like(sums), sums], axis=1) * weights[:, None]
    (offset, scale), *_ = np.linalg.lstsq(columns, np.ones_like(sums), rcond=None)
    if offset < 0 or scale <= 0:
        offset, scale = 0.0, float((sums * weights).sum() / ((sums * weights) ** 2).sum())
    return Calibration(scale=float(scale), offset=float(offset), n=len(sums))


def draw(space: SearchSpace, skeleton: Skeleton, count: int, rng: np.random.Generator) -> list[Architecture]:
    """Different networks, each drawn as the space samples, of widths of their own where it has such; fewer where the
    space has fewer.
    """
    found: dict[str, Architecture] = {}
    for _ in range(TRIES * count):
        genotype = space.sample(rng)
        if isinstance(space, Widthwise) and space.filters:
            genotype = space.narrowed(genotype, rng)
        architecture = Architecture(genotype, skeleton)
        found.setdefault(architecture.hash, architecture)
        if len(found) == count:
            break
    return list(found.values())


def listed(space: Laid, skeletons: Sequence[Skeleton]) -> list[Part]:
    """What is timed: every part of the space's networks, in order."""
    found: set[Part] = set()
    for skeleton in skeletons:
        found |= parts_on(space, skeleton, "all") | parts_on(space, skeleton, "rule")
    return sorted(found, key=str)


@dataclass(frozen=True)
class Judged:
    """A profile, and the times it was judged by, ms: of the held-out networks, measured twice and predicted."""

    profile: DeviceProfile
    first: Values
    second: Values
    predicted: Values


def measure_profile(
    name: str,
    space_name: str,
    space: Profilable,
    skeletons: Sequence[Skeleton],
    bench: Bench,
    *,
    train: int = TRAIN,
    held_out: int = HELD_OUT,
    seed: int = 0,
    power_w: float | None = None,
    say: Say = lambda text: None,
) -> Judged:
    """Times all parts on all skeletons and, on the first of them, whole networks.

    Raises ProfileError where the space is too small to hold networks out, DeviceError where the device has no clock.
    """
    drawn = draw(space, skeletons[0], train + held_out, np.random.default_rng(seed))
    fewest = 2 + profiles.FEWEST_HELD_OUT
    if len(drawn) < fewest:
        raise ProfileError(f"space '{space_name}' gave {len(drawn)} different networks; a profile needs {fewest}")
    judges = drawn[: max(profiles.FEWEST_HELD_OUT, len(drawn) * held_out // (train + held_out))]
    fitted = drawn[len(judges) :]
    parts = listed(space, skeletons)
    say(f"{len(parts)} parts")
    times_of_parts = bench.parts(parts)
    bare = DeviceProfile(
        name=name,
        device=describe(bench.device),
        protocol=profiles.Protocol(
            batch=bench.batch,
            threads=None if bench.device.type == "cuda" else bench.threads,
            runtime=f"torch {torch.__version__}",
        ),
        parts=tuple(row_of(part, float(ms)) for part, ms in zip(parts, times_of_parts, strict=True)),
        power_w=power_w,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    say(f"{len(fitted)} networks to fit on and {len(judges)} to judge by")
    times = bench.networks([*fitted, *judges])
    say(f"the {len(judges)} once more")
    second = bench.networks(judges)
    calibrated = replace(bare, latency=fit(_predicted(bare, fitted), times[: len(fitted)]))
    first, predicted = times[len(fitted) :], _predicted(calibrated, judges)
    skeleton = skeletons[0]
    validation = Validation(
        space=space_name,
        cells=len(skeleton.cells),
        channels=skeleton.channels,
        input=skeleton.input,
        classes=skeleton.classes,
        n=len(judges),
        tau=kendall_tau(predicted, first),
        mape=float(100 * np.mean(np.abs(predicted - first) / first)),
        tau_repeat=kendall_tau(first, second),
    )
    return Judged(replace(calibrated, latency_validation=(validation,)), first, second, predicted)


def row_of(part: Part, ms: float) -> Row:
    return Row(
        op=part.op,
        inputs=part.inputs,
        outputs=part.outputs,
        size=part.size,
        stride=part.stride,
        middle=part.middle,
        pool_norm=part.pool_norm,
        ms=ms,
    )


def _predicted(profile: DeviceProfile, architectures: Sequence[Architecture]) -> Values:
    return np.array([profile.predict(each, "ms") for each in architectures])
