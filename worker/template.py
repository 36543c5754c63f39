"""One process with the imports done, from which attempts are made, so that none begins with seconds of imports.

A template has imported what attempts need and computed nothing; it has no task, no lease and holds no device. It makes
one attempt at a time and dies with the process that made it, and its attempt with it. Every attempt is made by one, so
that all have the same environment.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.devices import pinned
from store.settings import settings
from worker.identity import Identity

log = logging.getLogger(__name__)

OLD_SECONDS = 86_400.0
"""A template that is older makes no attempt: files that it has not read yet may have changed."""
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
"""glibc keeps freed activations instead of asking the kernel for fresh pages at every step (docs/decisions/0010)."""
DEATH_SECONDS = 5.0
"""How long somebody waits for a process that was killed."""
KIBIBYTES = 1024 if sys.platform == "linux" else 1024 * 1024
"""In a MiB, as the system counts peak memory."""


def environment() -> dict[str, str]:
    """Of every process that looks at this worker's device or runs attempts on it: it sees no other GPU."""
    return {**ALLOCATOR, **os.environ, **pinned(Identity().device, os.environ)}


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt's process ended and what it used."""

    code: int
    """Exit code, or minus the signal."""
    cpu_seconds: float | None
    """Without the imports, where its template had them done; None where nobody was left to tell."""
    peak_memory_mb: float | None

    @classmethod
    def of(cls, status: int, cpu_seconds: float, peak: int) -> Ended:
        return cls(os.waitstatus_to_exitcode(status), cpu_seconds, peak / KIBIBYTES)


class Line:
    """Lines from another process, as many as have come."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.setblocking(False)
        self._said = b""

    @property
    def lines(self) -> list[bytes]:
        """All that have come."""
        with suppress(OSError):
            while chunk := self.end.recv(4096):
                self._said += chunk
        return self._said.split(b"\n")[:-1]

    def take(self) -> list[bytes]:
        """Those that have come since they were taken last."""
        new = self.lines
        self._said = self._said.rpartition(b"\n")[2]
        return new


class Template:
    """A process that waits for orders on its standard input, in a session of its own."""

    def __init__(self, env: Mapping[str, str], output: Path) -> None:
        self.env, self.output, self.made = dict(env), output, time.monotonic()
        ours, theirs = socket.socketpair()
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
        self._line = Line(ours)
        self.ended: Ended | None = None
        """Its own end."""

    @property
    def fresh(self) -> bool:
        """Whether it lives and is as a new one would be."""
        young = time.monotonic() - self.made < OLD_SECONDS
        return young and self.env == environment() and self.poll() is None

    def poll(self) -> Ended | None:
        """Its own end, if that has come."""
        if self.ended is None and self.process.returncode is None:
            pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.ended = Ended.of(status, used.ru_utime + used.ru_stime, used.ru_maxrss)
                self.process.returncode = self.ended.code  # reaped here, for the sake of its resource usage
        return self.ended

    def make(self, what: Mapping[str, Any]) -> Making:
        """Orders an attempt; the one before must have ended."""
        ours, theirs = socket.socketpair()
        with theirs, suppress(OSError):  # one that has died by now never makes it
            self._line.end.setblocking(True)
            socket.send_fds(self._line.end, [json.dumps(what).encode() + b"\n"], [theirs.fileno()])
        self._line.end.setblocking(False)
        return Making(self, Line(ours))

    def hear(self) -> list[dict[str, Any]]:
        """What it has told since it was heard last."""
        return [json.loads(line) for line in self._line.take()]

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def discard(self) -> None:
        """Ends it, and what it has made."""
        if self.poll() is None:
            self.signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # one that the kernel holds on to dies later
                self.process.wait(DEATH_SECONDS)
        self._line.end.close()


class Making:
    """An attempt's process, from the order to its end."""

    def __init__(self, template: Template, line: Line) -> None:
        self.template, self._line = template, line
        self.pid: int | None = None
        """None until it is there."""
        self._ended: Ended | None = None

    @property
    def lines(self) -> list[bytes]:
        """What it has said so far; the first line, empty, acknowledges the order."""
        return self._line.lines

    def poll(self) -> Ended | None:
        """Its end, if that has come; it does not outlive its template."""
        gone = self.template.poll()  # first: what it told before it went counts
        for told in self.template.hear():
            if "pid" in told:
                self.pid = told["pid"]
            else:
                self._ended = Ended.of(**told)
        if self._ended is None and gone is not None:
            if self.pid is None or self.pid == self.template.process.pid:
                self._ended = gone
            else:  # it died with its template, whose account holds all the attempts before
                self._ended = Ended(gone.code, None, None)
                self.signal(signal.SIGKILL)  # and what it had started
        return self._ended

    def signal(self, number: signal.Signals) -> None:
        """To it and all that it has started; before it is there, to the template, which then makes none."""
        if self.pid is None:
            self.template.signal(number)
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        self._line.end.close()


class Reserve:
    """At most one template, kept between attempts."""

    def __init__(self) -> None:
        self._template: Template | None = None

    def fill(self) -> None:
        """Makes a template where there is none that can be used, unless the worker is to keep none."""
        if not Identity().spare:
            self.empty()
        elif self._template is None or not self._template.fresh:
            self.empty()
            try:
                self._template = self._new()
            except OSError as error:  # no room for another process now; the next attempt waits for its imports
                log.warning("no template process could be made: %s", error)

    def _new(self) -> Template:
        """One that has to die before it has an attempt leaves what it printed here."""
        output = settings().log_dir / f"{Identity().name}.spare.log"
        with suppress(OSError):
            output.unlink(missing_ok=True)
        return Template(environment(), output)

    def take(self) -> tuple[Template, bool]:
        """A template that can be used, and whether it was waiting already."""
        if self._template is not None and self._template.fresh:
            return self._template, True
        self.empty()
        self._template = self._new()
        return self._template, False

    def empty(self) -> None:
        if self._template is not None:
            self._template.discard()
            self._template = None
