"""Attempts that run in the test's own process, with a plug-in of the test's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nas_core.plugins import REGISTRIES
from worker import plugins, run
from worker.quiet import Room


def attempts_here(environment: Path, monkeypatch: pytest.MonkeyPatch, plugin: Path) -> Iterator[Path]:
    """For a fixture: worker and plug-in as the environment says them; signals and registries are handed back."""
    monkeypatch.setattr(run, "Room", partial(Room, environment / "quiet"))
    monkeypatch.setenv("SKYLINE_WORKER_NAME", "w")
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "1")
    monkeypatch.setenv("SKYLINE_OUTAGE_SECONDS", "0")
    monkeypatch.setenv(plugins.VARIABLE, str(plugin))
    before = {registry.what: dict(registry) for registry in REGISTRIES}
    handler = signal.getsignal(signal.SIGTERM)
    yield environment
    signal.signal(signal.SIGTERM, handler)
    for registry in REGISTRIES:
        registry.restore(before[registry.what])
