"""The one place that knows devices: their names, which one a process sees, choosing it, waiting for it, its memory.

What decides about processes imports without torch; what needs torch imports it inside.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.errors import DeviceError

if TYPE_CHECKING:
    import torch

KNOWN = "cpu, cuda, cuda:<number>"
VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
MIB = 2**20


def cuda_number(name: str) -> int | None:
    """3 of ``cuda:3``, 0 of ``cuda``, None of ``cpu``. Raises DeviceError for any other name."""
    if name == "cpu":
        return None
    found = re.fullmatch(r"cuda(?::(\d+))?", name)
    if found is None:
        raise DeviceError(f"unknown device '{name}'; known: {KNOWN}")
    return int(found[1] or 0)


def pinned(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What a process that is to use this device gets into its environment: it sees no other GPU, and its own as cuda:0.

    The number counts within what CUDA_VISIBLE_DEVICES of the ``environment`` leaves, numbers or UUIDs; without that it
    is the one that nvidia-smi shows. Raises DeviceError for a number beyond.
    """
    number = cuda_number(name)
    if number is None:
        return {VISIBLE: "-1"}  # a process on the CPU takes no memory of a GPU
    if VISIBLE not in environment:
        return {VISIBLE: str(number), ORDER: environment.get(ORDER, "PCI_BUS_ID")}
    left = _visible(environment[VISIBLE])
    if number >= len(left):
        raise DeviceError(
            f"device '{name}' is not here: {VISIBLE}={environment[VISIBLE]!r} leaves {len(left)} CUDA devices, "
            "counted from cuda:0"
        )
    return {VISIBLE: left[number]}


def _visible(listed: str) -> list[str]:
    """As CUDA reads it: what stands behind an entry that is none does not count."""
    left: list[str] = []
    for entry in (part.strip() for part in listed.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-.+", entry):
            break
        left.append(entry)
    return left


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:1``. Raises DeviceError for another name or a device that is not here."""
    import torch

    number = cuda_number(name)
    if number is None:
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if number >= found:
        raise DeviceError(f"device '{name}' is not here: PyTorch {torch.__version__} sees {found} CUDA devices")
    return torch.device("cuda", number)


def describe(device: torch.device) -> str:
    """``cpu:<model>`` or ``cuda:<name>``, as it stands beside measured values."""
    import torch

    if device.type == "cuda":
        return f"cuda:{torch.cuda.get_device_name(device)}"
    return f"cpu:{_cpu_model()}"


def memory_mb(device: torch.device) -> float | None:
    """All the memory of a GPU, MiB; None for the CPU, which has the host's."""
    if device.type != "cuda":
        return None
    import torch

    return float(torch.cuda.get_device_properties(device).total_memory / MIB)


def peak_memory_mb(device: torch.device) -> float | None:
    """The most that this process's tensors took of a GPU at once, MiB; None where there is none or it was not used."""
    if device.type != "cuda":
        return None
    import torch

    return float(torch.cuda.max_memory_allocated(device) / MIB) or None


def moved(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The tensor on the device. The host does not wait for the device where the tensor comes from the host."""
    return tensor.to(device=device, dtype=dtype or tensor.dtype, non_blocking=tensor.device.type == "cpu")


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all it was told; the CPU always has."""
    if device.type == "cuda":
        import torch

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
