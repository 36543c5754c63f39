"""Who this worker is: set by ``python -m worker`` in the environment, read by every process under it."""

from __future__ import annotations

import os
import socket

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from store.queue import SHORT

KINDS = ("search", "verify", "measure")
"""Kinds of queues a worker serves for its device class."""


def default_name(device: str) -> str:
    """HOST-DEVICE; a container has a host name of its own."""
    return f"{socket.gethostname()}-{device.replace(':', '')}"


class Identity(BaseSettings):
    """Environment: SKYLINE_WORKER_NAME, SKYLINE_WORKER_DEVICE, SKYLINE_WORKER_THREADS, SKYLINE_WORKER_QUEUES,
    SKYLINE_WORKER_SPARE.
    """

    model_config = SettingsConfigDict(
        env_prefix="SKYLINE_WORKER_", env_ignore_empty=True, use_attribute_docstrings=True
    )

    device: str = "cpu"
    """cpu, or cuda:N."""
    name: str = Field(default_factory=lambda data: default_name(data["device"]))
    """Unique among all workers; default: host and device."""
    threads: int = os.cpu_count() or 1
    """Torch threads of a task; worker.threads says how many they should be."""
    queues: str = ""
    """Comma-separated; empty: all kinds for the device's class, and short work."""
    spare: bool = True
    """Whether a process that has imported PyTorch waits for the next task (some 300 MB)."""

    @property
    def device_class(self) -> str:
        return self.device.split(":")[0]

    @property
    def queue_names(self) -> list[str]:
        if self.queues:
            return [name.strip() for name in self.queues.split(",") if name.strip()]
        return [*(f"{kind}.{self.device_class}" for kind in KINDS), SHORT]

    @property
    def is_short(self) -> bool:
        """Whether it takes nothing that is long."""
        return self.queue_names == [SHORT]
