"""Child processes of ``skyline serve``: they log to files, die with their parent and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

LEASH = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py"))]
TAIL_LINES = 20
TAIL_BYTES = 64 * 1024
POLL_SECONDS = 0.05


class ServeError(Exception):
    """``skyline serve`` cannot start or go on; the message says why and what to do."""


class ChildDiedError(ServeError):
    """A process that the service needs has ended."""

    def __init__(self, child: Child) -> None:
        self.name, self.code = child.name, child.code
        how = (
            f"was killed by {_signal(-child.code)}"
            if child.code and child.code < 0
            else f"ended with code {child.code}"
        )
        said = child.tail()
        said = f"; its log ends with:\n{said}" if said else ""
        super().__init__(f"the {child.name} {how} ({child.log}){said}")


class Child:
    """One process in a session of its own, with standard output and error in ``log``.

    On Linux it gets SIGTERM when the thread that started it ends, however that ends.
    """

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path | None = None
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._from = out.tell()
            self.process = subprocess.Popen(
                [*LEASH, str(os.getpid()), *argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor, which stops them in order
            )
        self.started = time.monotonic()

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def tail(self) -> str:
        """The last lines that this process logged."""
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._from, end - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])


def stop(children: Sequence[Child], grace: float, hurry: Callable[[], bool]) -> None:
    """Ends processes together: SIGTERM, then SIGKILL after ``grace`` seconds or as soon as ``hurry()``.

    Whatever they started is killed if it outlives them.
    """
    families = [family for child in children for family in _family(child)]
    for child in children:
        if child.code is None:
            child.process.terminate()
    deadline = time.monotonic() + grace
    while any(child.code is None for child in children) and time.monotonic() < deadline and not hurry():
        time.sleep(POLL_SECONDS)
    for child in children:
        families += _family(child)
        try:
            os.killpg(child.process.pid, signal.SIGKILL)  # what is left of its session, itself included
        except ProcessLookupError:
            pass
        child.process.wait()
    for process in families:  # sessions that they opened themselves
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(families, timeout=5)


def python(module: str, *arguments: str) -> list[str]:
    """Command line of one of our modules in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def environment(**changes: str) -> dict[str, str]:
    """This process' environment with changes, in which our packages are found and the current folder's are not.

    Without the safe path ``python -m worker`` would run a ``worker`` that happens to lie in the user's folder.
    """
    env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", **changes}
    root = Path(__file__).resolve().parent.parent
    if root.name != "site-packages":
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return env


def _family(child: Child) -> list[psutil.Process]:
    try:
        return psutil.Process(child.process.pid).children(recursive=True) if child.code is None else []
    except psutil.NoSuchProcess:
        return []


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
