"""Objectives: values with their provenance; measuring on a clock that the test moves."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_core import measuring
from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.devices import describe, device_of, synchronize
from nas_core.errors import DeviceError, InvalidSettingsError, UnknownNameError
from nas_core.measuring import time_interleaved, without_drift
from nas_core.objectives import objectives
from nas_core.settings import form, parse
from nas_core.spaces import spaces

CPU = torch.device("cpu")
NAMES = ["accuracy", "energy_mj", "error", "flops", "latency_ms", "macs", "params", "peak_memory_mb"]
UNITS = {"latency_ms": "ms", "energy_mj": "mJ", "peak_memory_mb": "MB"}


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    space = spaces["darts"](cells=3, channels=4)
    return Architecture(space.sample(np.random.default_rng(0)), space.skeleton((1, 8, 8), 10))


def test_all_are_registered_and_say_what_they_are() -> None:
    assert [name for name in objectives if name in NAMES] == NAMES
    for name in NAMES:
        cls = objectives[name]
        assert cls.direction == ("maximize" if name == "accuracy" else "minimize")
        assert cls.unit == UNITS.get(name, "")
        assert cls.source in ("data", "exact", "measured")
        assert cls.__doc__


def test_a_name_that_nobody_registered_is_an_error_or_none_as_it_is_asked_for() -> None:
    with pytest.raises(UnknownNameError, match="unknown objective 'beauty'; known: accuracy, .*error, flops"):
        objectives["beauty"]
    assert objectives.get("beauty") is None and objectives.get("error") is objectives["error"]


def test_describing_an_objective_imports_no_torch() -> None:
    code = "import sys, nas_core.objectives, nas_core.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_error_and_accuracy() -> None:
    detail = {"epochs": 2}
    error = objectives["error"]().value(0.25, "trained", detail)
    accuracy = objectives["accuracy"]().value(0.25, "supernet", detail)
    assert (error.value, error.kind, error.detail) == (0.25, "trained", detail)
    assert (accuracy.value, accuracy.kind) == (0.75, "supernet")


@pytest.mark.parametrize("name", ["error", "accuracy"])
@pytest.mark.parametrize("error", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_fraction_is_refused(name: str, error: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        objectives[name]().value(error, "trained", {})


def test_exact_costs_are_counted(architecture: Architecture) -> None:
    cost = count(architecture)
    params, macs, flops = (objectives[name]().value(architecture) for name in ("params", "macs", "flops"))
    assert (params.value, macs.value, flops.value) == (cost.params, cost.macs, 2 * cost.macs)
    assert {params.kind, macs.kind, flops.kind} == {"exact"}
    assert macs.detail == flops.detail == {"counter": "conv+linear"}
    for name in ("params", "macs", "flops"):
        cls = objectives[name]
        assert cls().value(architecture).value == cls.scale * getattr(cost, cls.resource)


def test_settings_of_latency() -> None:
    cls = objectives["latency_ms"]
    assert parse(cls, {}, "latency_ms") == cls(batch=1, threads=1)
    properties = form(cls)["properties"]
    assert set(properties) == {"device", "kind", "runtime", "batch", "threads", "seconds", "profile"}
    assert all(entry["description"] for entry in properties.values())
    for wrong in (
        {"batch": 0},
        {"threads": 0},
        {"seconds": 0.0},
        {"device": ""},
        {"kind": "guessed"},
        {"warmup": 3},
    ):
        with pytest.raises(InvalidSettingsError, match=next(iter(wrong))):
            parse(cls, wrong, "latency_ms")


# --- measuring --------------------------------------------------------------------------------------------------------


class Clock:
    """Stands still but for the networks that move it."""

    def __init__(self) -> None:
        self.now, self.slowness = 0.0, 1.0

    def __call__(self) -> float:
        return self.now


class Fake(nn.Module):
    """Takes ``seconds`` on the clock, and writes down its name and what it saw."""

    def __init__(self, clock: Clock, seconds: float, log: list[str], name: str = "") -> None:
        super().__init__()
        self.clock, self.seconds, self.log, self.name = clock, seconds, log, name
        self.norm = nn.BatchNorm2d(1)
        self.saw: set[tuple[object, ...]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.saw.add((self.training, torch.is_inference_mode_enabled(), torch.get_num_threads(), gc.isenabled()))
        self.clock.now += self.seconds * self.clock.slowness
        self.log.append(self.name)
        normal: Tensor = self.norm(x)
        return normal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measuring, "clock", clock)
    return clock


@pytest.fixture
def pinned() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def batches(count: int) -> list[Tensor]:
    return [torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) for _ in range(count)]


@pytest.mark.slow
def test_steady_networks_are_measured_exactly_in_the_fewest_rounds(clock: Clock) -> None:
    networks = [Fake(clock, seconds, []) for seconds in (1.1e-4, 5.1e-4, 3e-3)]
    timings = time_interleaved(networks, batches(3), CPU, threads=1)
    assert [timing.median for timing in timings] == pytest.approx([1.1e-4, 5.1e-4, 3e-3])
    assert [timing.rounds for timing in timings] == [measuring.FEWEST_ROUNDS] * 3
    assert [timing.inferences for timing in timings] == [9 * 19, 9 * 4, 9 * 1]
    assert all(timing.standard_error < 1e-9 for timing in timings)


@pytest.mark.slow
def test_rounds_visit_every_network_once_in_changing_but_repeatable_order(clock: Clock) -> None:
    def order() -> list[str]:
        log: list[str] = []
        time_interleaved([Fake(clock, 3e-3, log, name) for name in "abcd"], batches(4), CPU, threads=1)
        return log[-4 * measuring.FEWEST_ROUNDS :]

    log = order()
    rounds = ["".join(log[start : start + 4]) for start in range(0, len(log), 4)]
    assert {"".join(sorted(visited)) for visited in rounds} == {"abcd"}
    assert len(set(rounds)) > 3
    assert order() == log


@pytest.mark.slow
def test_networks_see_a_pinned_inference_and_everything_is_put_back(clock: Clock, pinned: int) -> None:
    network = Fake(clock, 1e-3, [])
    time_interleaved([network], batches(1), CPU, threads=1)
    assert network.saw == {(False, True, 1, False)}
    assert torch.get_num_threads() == pinned and gc.isenabled() and not torch.is_inference_mode_enabled()


@pytest.mark.slow
def test_everything_is_put_back_when_a_network_fails(clock: Clock, pinned: int) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        time_interleaved([Broken()], batches(1), CPU, threads=1)
    assert torch.get_num_threads() == pinned and gc.isenabled()


@pytest.mark.slow
def test_a_disturbed_machine_gets_more_rounds_until_the_time_is_used(clock: Clock) -> None:
    rng = np.random.default_rng(0)

    class Noisy(Fake):
        def forward(self, x: Tensor) -> Tensor:
            clock.slowness = float(rng.uniform(0.5, 1.5))
            return super().forward(x)

    networks = [Noisy(clock, 3e-3, []) for _ in range(4)]
    timings = time_interleaved(networks, batches(4), CPU, threads=1)
    assert timings[0].rounds > 100
    assert clock.now == pytest.approx(4 * measuring.SECONDS_PER_NETWORK, rel=0.1)
    assert all(timing.q25 < timing.median < timing.q75 for timing in timings)
    assert all(2e-5 < timing.standard_error < 2e-4 for timing in timings)


@pytest.mark.slow
def test_slow_networks_still_get_a_few_rounds(clock: Clock) -> None:
    (timing,) = time_interleaved([Fake(clock, 2.0, [])], batches(1), CPU, threads=1)
    assert timing.rounds == measuring.LEAST_ROUNDS and timing.median == pytest.approx(2.0)


@pytest.mark.slow
def test_a_clock_that_stands_still_is_no_latency_of_zero(clock: Clock) -> None:
    network = Fake(clock, 0.0, [])

    class Warm(Fake):
        """Moves the clock while it warms up, or the warm-up would not end."""

        def forward(self, x: Tensor) -> Tensor:
            self.seconds = 1e-2 if len(self.log) < 5 else 0.0
            return super().forward(x)

    network = Warm(clock, 0.0, [])
    with pytest.raises(DeviceError, match="cannot measure"):
        time_interleaved([network], batches(1), CPU, threads=1)


def test_no_networks_no_timings() -> None:
    assert time_interleaved([], [], CPU, threads=1) == []


def test_drift_of_rounds_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([1.0, 1.05, 1.1, 1.2, 1.4, 1.5])
    drift = np.exp(rng.normal(0, 0.5, (25, 1)))
    drift /= np.median(drift)
    corrected = without_drift(truth * drift)
    assert np.allclose(corrected, truth)
    noise = np.exp(rng.normal(0, 0.01, (25, 6)))
    assert np.allclose(np.median(without_drift(truth * drift * noise), axis=0), truth, rtol=0.02)


def test_a_few_networks_alone_cannot_tell_drift() -> None:
    samples = np.random.default_rng(0).uniform(1, 2, (9, measuring.FEWEST_FOR_DRIFT - 1))
    assert without_drift(samples) is samples


def test_batch_norms_get_the_statistics_of_the_batch() -> None:
    class Shrinking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(30))

        def forward(self, x: Tensor) -> Tensor:
            for norm in self.norms:
                x = norm(x * 1e-2)
            return x

    network, x = Shrinking().eval(), torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert network(x).abs().max() == 0  # smaller than any float
    measuring._normalise(network, x)
    assert 0.5 < network(x).abs().max() < 10
    assert not any(module.training for module in network.modules())
    assert all(norm.momentum == 0.1 for norm in network.norms)


@pytest.mark.slow
def test_latency_of_real_networks_says_how_it_was_taken(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "SECONDS_PER_NETWORK", 0.2)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    started = datetime.now().astimezone()
    (value,) = objectives["latency_ms"](batch=2).measure([architecture], CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert value.kind == "measured" and value.unit == "ms" and 0.01 < value.value < 10_000
    detail = dict(value.detail)
    assert detail.pop("n") >= detail.pop("rounds") >= measuring.LEAST_ROUNDS
    assert 0 < detail.pop("q25") <= value.value
    assert detail.pop("iqr") >= 0 and detail.pop("standard_error") >= 0
    assert abs(datetime.fromisoformat(detail.pop("at")) - started) < timedelta(minutes=1)
    assert detail == {
        "device": describe(CPU),
        "batch": 2,
        "dtype": "float32",
        "runtime": f"torch {torch.__version__}",
        "threads": 1,
    }


@pytest.mark.slow
def test_latency_tells_a_small_network_from_a_large_one(architecture: Architecture) -> None:
    sizes = iter((2, 64))
    seen: list[tuple[torch.Size, bool]] = []

    class Wide(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.shape[1:], x.is_contiguous(memory_format=torch.channels_last)))
            result: Tensor = self.second(self.first(x))
            return result

    small, large = objectives["latency_ms"](batch=8).measure([architecture] * 2, CPU, lambda _: Wide(next(sizes)))
    assert large.value > 2 * small.value
    assert set(seen) == {(torch.Size([1, 8, 8]), True)}


# --- devices ----------------------------------------------------------------------------------------------------------


def test_the_cpu_is_always_there() -> None:
    assert device_of("cpu") == CPU
    name = describe(CPU)
    assert name.startswith("cpu:") and len(name) > len("cpu:")
    synchronize(CPU)


@pytest.mark.parametrize(
    ("name", "message"), [("phone", "unknown device 'phone'"), ("mps", "known: cpu, cuda"), ("cuda:-1", "unknown")]
)
def test_other_devices_are_refused(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        device_of(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("cuda") == device_of("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(DeviceError, match="'cuda:1' is not here: .* sees 1 CUDA"):
        device_of("cuda:1")
