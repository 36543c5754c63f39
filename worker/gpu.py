"""What an attempt takes of its worker's GPU, as far as that can be known (docs/decisions/0012).

The driver is asked through NVML (the package nvidia-ml-py, an extra) by the supervisor, which never uses the GPU
itself; what PyTorch allocated comes from the child. Unknown is None, never 0.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import psutil

log = logging.getLogger(__name__)

MIB = 2**20


class GpuUse:
    """Of one attempt on a device of the class given; nothing is to be known where that is no GPU."""

    def __init__(self, device_class: str) -> None:
        self._is_gpu = device_class == "cuda"
        self._began = time.monotonic()
        self._seconds: float | None = None
        self._peak_mb: float | None = None

    def look(self, pid: int) -> None:
        """Asks the driver what the process and its children hold now; to be called now and then."""
        if self._is_gpu:
            self._saw(held_mb(_family(pid)))

    def ended(self, said: Iterable[bytes]) -> None:
        """The process is gone; the lines that it said may have its own account."""
        if not self._is_gpu:
            return
        self._seconds = time.monotonic() - self._began
        for line in said:
            if line:
                self._saw(json.loads(line).get("peak_gpu_memory_mb"))

    def _saw(self, mb: float | None) -> None:
        if mb:
            self._peak_mb = max(mb, self._peak_mb or 0.0)

    def facts(self) -> dict[str, float | None]:
        """For the attempt's row."""
        return {
            "gpu_seconds": None if self._seconds is None else round(self._seconds, 3),
            "peak_gpu_memory_mb": None if self._peak_mb is None else round(self._peak_mb, 1),
        }


def _family(pid: int) -> set[int]:
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.Error:
        return {pid}


def held_mb(pids: set[int]) -> float | None:
    """MiB of GPU memory that these processes hold, over all GPUs; None where the driver cannot tell."""
    driver = _driver()
    if driver is None:
        return None
    held: list[int] = []
    try:
        for index in range(driver.nvmlDeviceGetCount()):
            device = driver.nvmlDeviceGetHandleByIndex(index)
            for process in driver.nvmlDeviceGetComputeRunningProcesses(device):
                if process.pid in pids and process.usedGpuMemory is not None:
                    held.append(process.usedGpuMemory)
    except driver.NVMLError as error:
        _tell(f"the NVIDIA driver does not say who holds memory: {error}")
        return None
    return sum(held) / MIB if held else None


@cache
def _driver() -> Any:
    """NVML, made ready; None where it is not there."""
    try:
        driver = importlib.import_module("pynvml")
    except ImportError:
        _tell("the package nvidia-ml-py is not installed; of GPU memory only what PyTorch allocates is known")
        return None
    try:
        driver.nvmlInit()
    except driver.NVMLError as error:
        _tell(f"the NVIDIA driver does not answer: {error}")
        return None
    return driver


@cache
def _tell(text: str) -> None:
    """Once."""
    log.warning("%s", text)
