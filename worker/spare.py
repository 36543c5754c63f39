"""One process in reserve, so that an attempt does not begin with seconds of imports.

A spare has imported what attempts need and computed nothing; it has no task, no lease and holds no device. It gets one
task or none, and dies with the process that made it. Every attempt runs in a process made here, so that all have the
same environment.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas_core.devices import pinned
from store.settings import settings
from worker.identity import Identity

log = logging.getLogger(__name__)

OLD_SECONDS = 86_400.0
"""A spare that waited for longer is not used: files that it has not read yet may have changed."""
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
"""glibc keeps freed activations instead of asking the kernel for fresh pages at every step (docs/decisions/0010)."""


def environment() -> dict[str, str]:
    """Of every process that looks at this worker's device or runs attempts on it: it sees no other GPU."""
    return {**ALLOCATOR, **os.environ, **pinned(Identity().device, os.environ)}


class Runner:
    """A process that waits for an order on its standard input, in a session of its own."""

    def __init__(self, env: Mapping[str, str], output: Path) -> None:
        self.env, self.output, self.made = dict(env), output, time.monotonic()
        self._line, theirs = socket.socketpair()
        output.parent.mkdir(parents=True, exist_ok=True)
        with theirs, output.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker.child", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self.env,
            )
        self._line.setblocking(False)
        self._said = b""

    @property
    def fresh(self) -> bool:
        """Whether it lives and is as a new one would be."""
        young = time.monotonic() - self.made < OLD_SECONDS
        return young and self.env == environment() and self.process.poll() is None

    def order(self, what: Mapping[str, Any]) -> None:
        """Sends it to work. One that has died by now never acknowledges."""
        with suppress(OSError):
            self._line.sendall(json.dumps(what).encode() + b"\n")

    @property
    def lines(self) -> list[bytes]:
        """What it has said so far; the first line, empty, acknowledges the order."""
        with suppress(OSError):
            while chunk := self._line.recv(4096):
                self._said += chunk
        return self._said.split(b"\n")[:-1]

    def close(self) -> None:
        self._line.close()

    def discard(self) -> None:
        """Ends one that has no order."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.close()


class Reserve:
    """At most one spare."""

    def __init__(self) -> None:
        self._spare: Runner | None = None

    def fill(self) -> None:
        """Makes a spare where there is none that can be used, unless the worker is to have none."""
        if self._spare is not None and not self._spare.fresh:
            self.empty()
        if self._spare is None and Identity().spare:
            # It may die before it has a log: what it printed then is here.
            output = settings().log_dir / f"{Identity().name}.spare.log"
            try:
                output.unlink(missing_ok=True)
                self._spare = Runner(environment(), output)
            except OSError as error:  # no room for another process now; the next attempt begins without
                log.warning("no spare process could be made: %s", error)

    def take(self) -> Runner | None:
        """The spare, if it can be used."""
        if self._spare is None or not self._spare.fresh:
            self.empty()
            return None
        taken, self._spare = self._spare, None
        return taken

    def empty(self) -> None:
        if self._spare is not None:
            self._spare.discard()
            self._spare = None
