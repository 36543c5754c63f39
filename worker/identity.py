"""Who this worker is: set by ``python -m worker`` in the environment, read by every process under it."""

from __future__ import annotations

import os
import socket

from pydantic_settings import BaseSettings, SettingsConfigDict

KINDS = ("search", "verify", "measure")
"""Kinds of queues a worker serves for its device class."""


class Identity(BaseSettings):
    """Environment: SKYLINE_WORKER_NAME, SKYLINE_WORKER_DEVICE, SKYLINE_WORKER_THREADS, SKYLINE_WORKER_QUEUES."""

    model_config = SettingsConfigDict(env_prefix="SKYLINE_WORKER_")

    name: str = f"{socket.gethostname()}-cpu"
    device: str = "cpu"
    """cpu, or cuda:N."""
    threads: int = os.cpu_count() or 1
    """Torch threads of a task."""
    queues: str = ""
    """Comma-separated; empty: all kinds for the device's class."""

    @property
    def device_class(self) -> str:
        return self.device.split(":")[0]

    @property
    def queue_names(self) -> list[str]:
        if self.queues:
            return [name.strip() for name in self.queues.split(",") if name.strip()]
        return [f"{kind}.{self.device_class}" for kind in KINDS]
