"""The one place that knows devices: choosing one, naming it, waiting for it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch

from nas_core.errors import DeviceError


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:1``. Raises DeviceError for another name or a device that is not here."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device '{name}'; known: cpu, cuda, cuda:<number>") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"device '{name}' is not supported; known: cpu, cuda, cuda:<number>")
    found = torch.cuda.device_count()
    if (device.index or 0) >= found:
        raise DeviceError(f"device '{name}' is not here: PyTorch {torch.__version__} sees {found} CUDA devices")
    return torch.device("cuda", device.index or 0)


def describe(device: torch.device) -> str:
    """``cpu:<model>`` or ``cuda:<name>``, as it stands beside measured values."""
    if device.type == "cuda":
        return f"cuda:{torch.cuda.get_device_name(device)}"
    return f"cpu:{_cpu_model()}"


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all it was told; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@cache
def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name" and model.strip():
                return " ".join(model.split())
    return platform.processor() or platform.machine() or "unknown"
