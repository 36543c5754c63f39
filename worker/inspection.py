"""Asks a process of its own (worker.catalog) what this host can run. Users' plug-ins are loaded there: one that hangs
or takes its process along is named and left out, and the process is started again.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from nas_core.errors import DeviceError
from worker.control import NO_DEVICE
from worker.template import environment

START_SECONDS = 300.0
"""For imports and the device, on a busy machine."""
PLUGIN_SECONDS = 60.0
"""For each plug-in: its own imports may be heavy."""
END_SECONDS = 10.0
"""Between closing its output and ending."""


class _PluginLostError(Exception):
    """A plug-in whose process did not live to tell."""

    def __init__(self, key: str, how: str) -> None:
        self.key, self.how = key, how
        super().__init__(f"{key}: {how}")


def inspect_host() -> dict[str, Any]:
    """The publication, made by a process that may import torch and sees this worker's device alone.

    Raises DeviceError when the device is not here, RuntimeError when the process fails by no plug-in's fault.
    """
    lost: dict[str, str] = {}
    while True:
        try:
            return _ask(lost)
        except _PluginLostError as error:
            if error.key in lost:
                raise RuntimeError(f"python -m worker.catalog loads what it was told to leave out: {error}") from error
            lost[error.key] = error.how


def _ask(lost: Mapping[str, str]) -> dict[str, Any]:
    """What ``python -m worker.catalog`` says: lines of JSON, ``{"plugin": KEY}`` before it touches one (null after the
    last), then the publication.
    """
    argv = [sys.executable, "-m", "worker.catalog", str(os.getpid()), json.dumps(lost)]
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=printed,
            env=environment(),
            start_new_session=True,
        )
        assert process.stdout is not None
        plugin: str | None = None
        late: float | None = None
        lines = _Lines(process.stdout)
        try:
            for line in lines:
                document: dict[str, Any] = json.loads(line)
                if "plugin" not in document:
                    return document
                plugin = document["plugin"]
                lines.patience = START_SECONDS if plugin is None else PLUGIN_SECONDS
            process.wait(END_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            late = lines.patience
        finally:
            process.stdout.close()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever a plug-in has started
            code = process.wait()
        printed.seek(0)
        said = printed.read().decode(errors="replace").strip()[-2000:]
    how = f"did not end within {late:g} s" if late is not None else _ended(code)
    if plugin is not None:
        raise _PluginLostError(plugin, f"the process that loaded it {how}")
    if code == NO_DEVICE:
        raise DeviceError(said)
    raise RuntimeError(f"python -m worker.catalog {how}; it printed:\n{said}")


class _Lines:
    """Whole lines out of a pipe. Raises TimeoutError where nothing comes for ``patience`` seconds."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe, self.patience = pipe, START_SECONDS

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while selector.select(self.patience):
                chunk = os.read(self.pipe.fileno(), 65_536)
                if not chunk:
                    return
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
        raise TimeoutError(f"nothing came for {self.patience:g} s")


def _ended(code: int) -> str:
    known = {each.value: each.name for each in signal.Signals}  # real-time signals have no names
    return f"was killed by {known.get(-code, f'signal {-code}')}" if code < 0 else f"ended with code {code}"
