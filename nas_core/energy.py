"""Energy as a device counts it: NVML's counter of a GPU, RAPL's of a CPU. What cannot be read has a reason, never 0.

A counter moves in steps that are coarser than one inference, so a window of many inferences is read, several times, and
what the device takes while it idles is taken off (docs/decisions/0023). No torch at import.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nas_core.errors import EnergyError

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
PACKAGES = "intel-rapl:*"
"""AMD's processors stand under this name, too."""
MEMORY = "dram"
"""A domain below a package that the package's own counter leaves out."""
IDLE_SECONDS = 2.0
WINDOWS = 3
MICRO, MILLI = 1e-6, 1e-3
EXTRA = "the package nvidia-ml-py is not installed (pip install 'skyline-nas[gpu]')"


class Counter(Protocol):
    """Counts energy from some moment on."""

    @property
    def method(self) -> str: ...
    def joules(self) -> float:
        """Since the counter was made. Raises EnergyError where it cannot be read any more."""
        ...


@dataclass
class _Domain:
    file: Path
    span: int
    """Microjoules at which it begins anew."""
    last: int
    passed: int = 0

    def read(self) -> int:
        """Microjoules since the start."""
        now = _number(self.file)
        self.passed += now - self.last + (self.span if now < self.last else 0)
        self.last = now
        return self.passed


@dataclass
class Rapl:
    """RAPL of every processor package of this host and its memory, as Linux' powercap shows them."""

    root: Path = POWERCAP
    method: str = field(default="rapl", init=False)
    _domains: list[_Domain] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Raises EnergyError with the reason where there is none, or none that may be read."""
        try:
            found = sorted(each for each in self.root.glob(PACKAGES) if each.name.count(":") == 1)
        except OSError as error:
            raise EnergyError(f"{self.root} cannot be listed: {error.strerror}") from error
        if not found:
            raise EnergyError(f"this machine shows no RAPL counter under {self.root}")
        for package in found:
            inside = [each for each in sorted(package.glob(f"{package.name}:*")) if _name(each) == MEMORY]
            for folder in (package, *inside):
                file = folder / "energy_uj"
                self._domains.append(_Domain(file, _number(folder / "max_energy_range_uj"), _number(file)))

    def joules(self) -> float:
        return MICRO * sum(domain.read() for domain in self._domains)


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii", errors="replace"))
    except PermissionError as error:
        raise EnergyError(
            f"{file} may not be read by this user; let the worker's user read it (chmod a+r, as root, at each start)"
        ) from error
    except (OSError, ValueError) as error:
        raise EnergyError(f"{file} cannot be read: {error}") from error


@dataclass
class Nvml:
    """The total-energy counter of one NVIDIA GPU (Volta and later)."""

    uuid: str
    """As NVML writes it: GPU-..."""
    method: str = field(default="nvml", init=False)

    def __post_init__(self) -> None:
        """Raises EnergyError with the reason where there is no such counter."""
        try:
            self._driver: Any = importlib.import_module("pynvml")
        except ImportError as error:
            raise EnergyError(EXTRA) from error
        try:
            self._driver.nvmlInit()
            self._handle = self._driver.nvmlDeviceGetHandleByUUID(self.uuid)
        except (self._driver.NVMLError, AttributeError) as error:  # an old library has no such question
            raise EnergyError(f"the NVIDIA driver does not answer: {error}") from error
        self._start = self._millijoules()

    def joules(self) -> float:
        return MILLI * (self._millijoules() - self._start)

    def _millijoules(self) -> int:
        try:
            return int(self._driver.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._driver.NVMLError as error:
            raise EnergyError(f"this GPU does not count its energy: {error}") from error


def counter_of(device: torch.device) -> Counter:
    """The one that counts what this device takes. Raises EnergyError with the reason where there is none."""
    if device.type != "cuda":
        return Rapl()
    import torch

    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    if not uuid:
        raise EnergyError(f"PyTorch {torch.__version__} does not say which GPU this is; a newer one does")
    return Nvml(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy of one inference, above what the idle device takes."""

    millijoules: float
    q25: float
    q75: float
    gross: float
    """With the idle share, mJ."""
    idle_w: float
    inferences: int
    """Over all windows."""
    windows: int


def measure(
    runs: list[Callable[[], None]],
    counter: Counter,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    rest: Callable[[float], None] = time.sleep,
) -> list[Reading]:
    """Each of ``runs`` makes one inference and waits until it is done; ``seconds``: of each window.

    Windows of all runs follow each other in rounds. Raises EnergyError where the counter does not rise above the idle
    device's: the energy of such an inference is unknown, and not 0.
    """
    began, before = clock(), counter.joules()
    rest(IDLE_SECONDS)
    idle_w = max(0.0, (counter.joules() - before) / max(clock() - began, 1e-9))
    rows: list[list[tuple[float, float, int]]] = [[] for _ in runs]
    for _ in range(WINDOWS):
        for row, run in zip(rows, runs, strict=True):
            run()
            count, began, before = 0, clock(), counter.joules()
            while clock() - began < seconds:
                run()
                count += 1
            gross, took = counter.joules() - before, clock() - began
            row.append((gross - idle_w * took, gross, max(count, 1)))
    return [_reading(row, idle_w) for row in rows]


def _reading(row: list[tuple[float, float, int]], idle_w: float) -> Reading:
    net = np.array([joules / count for joules, _, count in row]) / MILLI
    gross = np.array([joules / count for _, joules, count in row]) / MILLI
    lower, middle, upper = (float(each) for each in np.quantile(net, (0.25, 0.5, 0.75)))
    if middle <= 0:
        raise EnergyError(
            f"the counter rose by {np.median(gross):.3g} mJ an inference, which is not above the idle device's "
            f"{idle_w:.3g} W; give longer windows ('seconds'), or a quieter machine"
        )
    done = sum(count for _, _, count in row)
    return Reading(middle, lower, upper, float(np.median(gross)), idle_w, done, len(row))
