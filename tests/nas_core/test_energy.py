"""Energy: real counter files whose numbers a test moves, and models that say what they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nas_core import energy, measuring
from nas_core.architecture import Architecture
from nas_core.errors import EnergyError, SettingError
from nas_core.objectives import objectives
from nas_core.objectives.energy_mj import BYTE_PJ, MAC_PJ, EnergyMj
from nas_core.parts import work_of
from nas_core.profiles import DeviceProfile
from nas_core.settings import parse
from nas_core.spaces import spaces
from tests.nas_core.test_profiles import document, network, rows

CPU = torch.device("cpu")


class Machine:
    """A host with RAPL: while it runs it takes ``busy`` watts, while it rests ``idle``; an inference takes 10 ms."""

    SPAN = 1_500_000
    """Microjoules at which each of its counters begins anew."""

    def __init__(self, root: Path, busy: float, idle: float) -> None:
        self.root, self.busy, self.idle = root, busy, idle
        self.now = 0.0
        self.files: dict[Path, float] = {}
        for name, called in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
        ):
            inside = name.count(":") == 2
            folder = root / ("intel-rapl:0" if inside else "") / name
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{called}\n")
            (folder / "max_energy_range_uj").write_text(f"{self.SPAN}\n")
            self.files[folder / "energy_uj"] = 0.0 if called == "core" else 1 / 3
        self.pass_by(0.0, 0.0)

    def pass_by(self, seconds: float, watts: float) -> None:
        self.now += seconds
        for file, share in self.files.items():
            before = int(file.read_text()) if file.exists() else 0
            file.write_text(f"{(before + round(1e6 * seconds * watts * share)) % self.SPAN}\n")

    def run(self) -> None:
        self.pass_by(0.01, self.busy)

    def rest(self, seconds: float) -> None:
        for _ in range(10):
            self.pass_by(seconds / 10, self.idle)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    def make(busy: float = 3.0, idle: float = 1.0) -> Machine:
        return Machine(tmp_path / "powercap", busy, idle)

    return make


def test_rapl_adds_packages_and_memory_and_survives_a_counter_that_begins_anew(machine: Callable[..., Machine]) -> None:
    host = machine()
    counter = energy.Rapl(host.root)
    assert counter.method == "rapl" and counter.joules() == 0
    for _ in range(20):
        host.pass_by(0.1, 3.0)  # 20 x 0.1 J in each of three domains of 1.5 J
        counter.joules()
    assert counter.joules() == pytest.approx(6.0, abs=1e-4)


def test_energy_of_an_inference_is_above_what_the_idle_machine_takes(machine: Callable[..., Machine]) -> None:
    host = machine(busy=3.0, idle=1.0)

    def twice() -> None:
        host.run()
        host.run()

    found = energy.measure([host.run, twice], energy.Rapl(host.root), 0.5, clock=lambda: host.now, rest=host.rest)
    assert [each.millijoules for each in found] == [pytest.approx(20, rel=1e-3), pytest.approx(40, rel=1e-3)]
    assert [each.gross for each in found] == [pytest.approx(30, rel=1e-3), pytest.approx(60, rel=1e-3)]
    for each in found:
        assert each.idle_w == pytest.approx(1.0, rel=1e-3)
        assert each.windows == energy.WINDOWS and each.q25 <= each.millijoules <= each.q75
    assert found[0].inferences >= 3 * 50 > found[1].inferences >= 3 * 25


def test_what_does_not_rise_above_idle_is_unknown_and_not_zero(machine: Callable[..., Machine]) -> None:
    host = machine(busy=1.0, idle=1.5)
    with pytest.raises(
        EnergyError, match=r"rose by 10 mJ an inference, which is not above the idle device's 1.5 W; give"
    ):
        energy.measure([host.run], energy.Rapl(host.root), 0.5, clock=lambda: host.now, rest=host.rest)


def test_a_machine_without_counters_says_so(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    with pytest.raises(EnergyError, match="shows no RAPL counter under"):
        energy.Rapl(tmp_path / "none")
    host = machine()
    file = next(iter(host.files))
    file.write_text("lots\n")
    with pytest.raises(EnergyError, match="energy_uj cannot be read: invalid literal"):
        energy.Rapl(host.root)
    file.unlink()
    with pytest.raises(EnergyError, match="energy_uj cannot be read"):
        energy.Rapl(host.root)


def test_counters_that_only_root_may_read_say_what_would_do(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, read = machine(), Path.read_text

    def refuse(self: Path, *args: Any, **kwargs: Any) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)  # a test may run as root, whom nothing is refused
    with pytest.raises(EnergyError, match="may not be read by this user; let the worker's user read it"):
        energy.Rapl(host.root)


# --- NVML -------------------------------------------------------------------------------------------------------------


class NVMLError(Exception):
    pass


def driver(counts: bool = True, known: str = "GPU-1234") -> SimpleNamespace:
    """NVML with one GPU that takes 2,500 mJ between two questions."""
    state = {"millijoules": 1000}

    def by_uuid(uuid: str) -> str:
        if uuid != known:
            raise NVMLError("Not Found")
        return uuid

    def total(handle: str) -> int:
        if not counts:
            raise NVMLError("Not Supported")
        state["millijoules"] += 2500
        return state["millijoules"]

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )


def test_nvml_counts_from_when_it_was_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    counter = energy.counter_of(torch.device("cuda"))
    assert counter.method == "nvml"
    assert [counter.joules(), counter.joules()] == [2.5, 5.0]


@pytest.mark.parametrize(
    ("library", "uuid", "words"),
    [
        (None, "1234", "nvidia-ml-py is not installed"),
        (driver(known="GPU-other"), "1234", "driver does not answer: Not Found"),
        (driver(counts=False), "1234", "this GPU does not count its energy: Not Supported"),
        (driver(), "", "does not say which GPU this is"),
    ],
)
def test_a_gpu_that_cannot_say_says_why(library: Any, uuid: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library)  # None: it cannot be imported
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuid))
    with pytest.raises(EnergyError, match=words):
        energy.counter_of(torch.device("cuda"))


# --- the objective ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    space = spaces["darts"](cells=3, channels=4)
    return Architecture(space.sample(np.random.default_rng(0)), space.skeleton((1, 8, 8), 10))


def settled(profile: DeviceProfile | None = None, counter: str | None = None, **given: Any) -> EnergyMj:
    made: EnergyMj = parse(objectives["energy_mj"], given, "objective 'energy_mj'")
    return made.settled(given, profile, counter)


def test_without_a_counter_operations_are_counted_at_cited_prices(architecture: Architecture) -> None:
    made = settled()
    assert (made.kind, made.method) == ("predicted", "operations")
    value = made.on(None).value(architecture)
    work = work_of(architecture)
    assert (value.unit, value.kind) == ("mJ", "predicted")
    moved = 4 * (work.weights + work.activations)
    assert value.value == pytest.approx((MAC_PJ * work.macs + BYTE_PJ * moved) * 1e-9) and value.value > 0
    assert (value.detail["method"], value.detail["macs"], value.detail["bytes"]) == ("operations", work.macs, moved)
    assert "Horowitz, ISSCC 2014, 45 nm" in value.detail["coefficients"]
    eight = settled(batch=8).on(None).value(architecture)
    assert eight.detail["bytes"] == 4 * (work.weights + 8 * work.activations) < 8 * moved, "weights come once for all"
    own = settled(pj_per_mac=1.0, pj_per_byte=0.5).on(None).value(architecture)
    assert own.value == pytest.approx((work.macs + 0.5 * moved) * 1e-9)
    assert own.detail["coefficients"] == "as the job gives them"


def test_an_objective_that_nobody_settled_counts_operations(architecture: Architecture) -> None:
    assert objectives["energy_mj"]().on(None).value(architecture) == settled().on(None).value(architecture)


def test_a_profile_gives_its_millijoules_or_its_power_times_time() -> None:
    net = network()
    profile = DeviceProfile.from_json(document(parts=[{**row, "mj": 3 * row["ms"]} for row in rows()]))
    made = settled(profile, device="pi")
    assert (made.kind, made.method, made.profile, made.reads()) == ("predicted", "parts", profile.sha256, "mj")
    value = made.on(profile).value(net)
    assert value.value == pytest.approx(3 * (profile.predict(net, "ms") - 0.5) / 2), (
        "times have a calibration of their own"
    )
    assert (value.kind, value.unit, value.detail["device"], value.detail["tau"]) == ("predicted", "mJ", "pi", None)
    assert settled(profile, device="pi", power_w=4.0).method == "power", "what the job gives goes before"

    powered = DeviceProfile.from_json(document(power_w=4.0))
    made = settled(powered, device="pi")
    assert (made.method, made.power_w, made.reads()) == ("power", 4.0, "ms")
    value = made.on(powered).value(net)
    assert value.value == pytest.approx(4 * powered.predict(net, "ms"))
    assert (value.detail["method"], value.detail["power_w"]) == ("power x predicted latency", 4.0)
    assert (value.detail["tau"], value.detail["held_out"]) == (0.9, 40)


@pytest.mark.slow
def test_power_times_time_measured_here(architecture: Architecture) -> None:
    made = settled(power_w=15.0)
    assert (made.kind, made.method) == ("predicted", "power")
    (value,) = made.on(None).measure([architecture], CPU)
    assert (value.unit, value.kind, value.detail["method"]) == ("mJ", "predicted", "power x measured latency")
    assert value.value == pytest.approx(15 * value.detail["latency_ms"]) and value.value > 0
    assert 0 < value.detail["q25"] <= value.value


def test_with_a_counter_everywhere_energy_is_measured_unless_a_model_is_asked_for() -> None:
    assert settled(counter="rapl").kind == "measured"
    assert settled(counter="rapl", kind="predicted").method == "operations"
    assert settled(counter="rapl", power_w=5.0).method == "power"
    assert settled(counter="rapl", method="operations").kind == "predicted"


@pytest.mark.slow
def test_measured_values_carry_the_counter(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counter:
        """Of a machine that takes nothing while it idles, and 10 mJ for each inference."""

        method, done = "rapl", 0

        def joules(self) -> float:
            return 0.01 * self.done

    counter, inferences = Counter(), measuring.inferences

    @contextmanager
    def counted(*given: Any) -> Iterator[list[Callable[[], None]]]:
        def one(run: Callable[[], None]) -> None:
            run()
            counter.done += 1

        with inferences(*given) as runs:
            yield [partial(one, run) for run in runs]

    monkeypatch.setattr(energy, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(energy, "counter_of", lambda device: counter)
    monkeypatch.setattr(measuring, "inferences", counted)
    made = settled(kind="measured", seconds=0.02)
    (value,) = made.on(None).measure([architecture], CPU)
    assert (value.kind, value.value) == ("measured", pytest.approx(10))
    assert value.detail["n"] == counter.done - 3, "each window begins with one that does not count"
    assert (value.detail["method"], value.detail["windows"], value.detail["batch"]) == ("rapl", 3, 1)
    assert value.detail["runtime"].startswith("torch")


def test_this_machine_has_a_counter_or_a_reason() -> None:
    found = EnergyMj.here(CPU)
    assert found["class"] == "cpu"
    assert (found["counter"] is None) == bool(found["reason"])


@pytest.mark.parametrize(
    ("given", "setting", "words"),
    [
        ({"kind": "measured", "device": "pi"}, "device", "this-worker for kind measured, or kind predicted"),
        ({"kind": "measured", "power_w": 3.0}, "power_w", "no meaning for energy_mj measured"),
        ({"method": "power"}, "power_w", "the power of the busy device"),
        ({"method": "parts"}, "method", "whose profile has millijoules"),
        (
            {"method": "operations", "power_w": 3.0},
            "power_w",
            "no meaning for energy_mj predicted by method 'operations'",
        ),
        ({"method": "operations", "seconds": 3.0}, "seconds", "no meaning"),
        ({"power_w": 3.0, "pj_per_mac": 1.0}, "pj_per_mac", "no meaning for energy_mj predicted by method 'power'"),
        ({"device": "pi"}, "power_w", "the power of the busy device"),
        ({"device": "pi", "method": "parts"}, "method", "whose profile has millijoules"),
        ({"device": "pi", "method": "operations"}, "method", "knows no device but this-worker"),
        (
            {"device": "pi", "power_w": 3.0, "batch": 4},
            "batch",
            "no meaning .* for device 'pi', which takes device, kind",
        ),
    ],
)
def test_settings_that_do_not_go_together_name_the_one(given: dict[str, Any], setting: str, words: str) -> None:
    profile = DeviceProfile.from_json(document()) if given.get("device") == "pi" else None
    with pytest.raises(SettingError, match=words) as refused:
        settled(profile, **given)
    assert refused.value.setting == setting
