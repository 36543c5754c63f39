"""A GPU where there is none: the lowest layer, PyTorch's device and its driver's libraries, is stood in for.

Whatever is asked to be on ``cuda:N`` is computed on the CPU; all else is the real thing. Memory is counted in images: a
convolution of more of them than the device holds, while gradients are wanted, runs out of memory as PyTorch says it.
In processes, ``environment`` puts it in place of the driver (see the folder ``site``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from nas_core import compiled

COUNT = 4
MEMORY = 8 * 2**30
USED = 123 * 2**20
"""Bytes that PyTorch says it took at most."""
IMAGES = "STANDIN_GPU_IMAGES"
SITE = Path(__file__).with_name("site")


def environment(**more: str) -> dict[str, str]:
    """Of processes that find ``COUNT`` GPUs on their host."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [str(SITE), root, os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, **more}


class Gpu(TorchFunctionMode):
    """While entered, tensors can be put on ``cuda:N``. ``holds``: images, or what says so anew at every convolution."""

    def __init__(self, holds: Callable[[], float] | float = float("inf")) -> None:
        super().__init__()
        self.holds = holds
        self.out_of_memory = 0
        """How often it was."""
        self.kernels = compiled.chains

    def __enter__(self) -> Gpu:
        compiled.chains = _none  # a GPU takes none of our own kernels; what they do would pass the mode by
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        compiled.chains = self.kernels

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is torch.device:
            return function(*args, **(kwargs or {}))
        if function is torch.conv2d and torch.is_grad_enabled():
            self._hold(args[0].shape[0])
        here = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        return function(*map(_on_cpu, args), **here)

    def _hold(self, images: int) -> None:
        if images > (self.holds() if callable(self.holds) else self.holds):
            self.out_of_memory += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate room for {images} images. GPU 0 has")


def _none() -> None:
    return None


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


def driver() -> dict[str, Any]:
    """What PyTorch's ``torch.cuda`` says on such a host; the visible devices are those of the environment."""

    def visible() -> list[str]:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        if listed is None:
            return [str(number) for number in range(COUNT)]
        return [entry for entry in listed.split(",") if entry in {str(number) for number in range(COUNT)}]

    def name(device: Any = 0) -> str:
        return f"Stand-in {visible()[torch.device(device).index or 0]}"

    return {
        "device_count": lambda: len(visible()),
        "is_available": lambda: bool(visible()),
        "is_initialized": lambda: True,
        "get_device_name": name,
        "get_device_properties": lambda device=0: SimpleNamespace(name=name(device), total_memory=MEMORY),
        "max_memory_allocated": lambda device=0: USED,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: None,
    }


def install() -> None:
    """For the life of this process."""
    for word, stand_in in driver().items():
        setattr(torch.cuda, word, stand_in)
    Gpu(float(os.environ.get(IMAGES, "inf"))).__enter__()


@contextmanager
def gpu(patch: pytest.MonkeyPatch, holds: Callable[[], float] | float = float("inf")) -> Iterator[Gpu]:
    """In this process."""
    with patch.context() as within, Gpu(holds) as mode:
        for word, stand_in in driver().items():
            within.setattr(torch.cuda, word, stand_in)
        yield mode
