"""``python -m worker.child SUPERVISOR``: imports what attempts need, then makes a process for each that is ordered.

The only kind of process of the service where torch runs. Standard input is a socket to the supervisor. An order comes
in as one line of JSON with a socket beside it: the line between the supervisor and the attempt. This process forks,
tells the attempt's number, and when it has ended how it ended. It computes nothing itself, so that there is nothing in
it that a fork would break. Only Linux forks safely with what PyTorch brings along; elsewhere this process is the
attempt, and takes one order.

The attempt acknowledges the order by an empty line, and may report at its end. A closed socket means that there is
nothing to do.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

import numpy as np

from worker.control import DONE, die_with, name_process
from worker.quiet import Room

FORKS = sys.platform == "linux"
FORK_TRIES, FORK_PAUSE_SECONDS = 40, 0.5


def main(supervisor: int) -> int:
    """Waits for orders; in the attempt's own process, its exit code, which says how it ended (worker.control)."""
    die_with(supervisor)
    name_process("skyline-spare")
    room = Room()  # importing is load, too: not beside a measurement
    from worker import run

    room.close()
    gc.freeze()  # what is here stays shared with every attempt
    above = socket.socket(fileno=os.dup(0))
    while (received := receive(above)) is not None:
        order, channel = received
        if not FORKS:
            return attempt(run, order, channel)
        here = os.getpid()
        pid = fork()
        if pid == 0:
            above.close()
            os.setpgid(0, 0)
            die_with(here)
            return attempt(run, order, channel)
        with suppress(PermissionError, ProcessLookupError):  # it has done so itself, or is over
            os.setpgid(pid, pid)  # from now on it can be signalled with all that it starts
        channel.close()
        with suppress(OSError):  # a supervisor that went takes us with it
            tell(above, pid=pid)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it leaves behind, while the number is still its own
            _, status, used = os.wait4(pid, 0)
            tell(above, status=status, cpu_seconds=used.ru_utime + used.ru_stime, peak=used.ru_maxrss)
    return DONE


def fork() -> int:
    """As os.fork; waits a little where the system has no room for another process. Raises OSError."""
    for _ in range(FORK_TRIES):
        with suppress(BlockingIOError):
            return os.fork()
        time.sleep(FORK_PAUSE_SECONDS)
    return os.fork()


def receive(above: socket.socket) -> tuple[dict[str, Any], socket.socket] | None:
    """The next order and the line to whoever gave it; None when there will be none."""
    text, lines = b"", []
    while not text.endswith(b"\n"):
        piece, files, _, _ = socket.recv_fds(above, 4096, 1)
        lines += files
        if not piece:
            return None
        text += piece
    return json.loads(text), socket.socket(fileno=lines[0])


def tell(above: socket.socket, **facts: Any) -> None:
    above.sendall(json.dumps(facts).encode() + b"\n")


def attempt(run: Any, order: dict[str, Any], channel: socket.socket) -> int:
    """The order, done in this process."""
    name_process("skyline-child")
    np.random.seed()  # forks of one template would draw the same
    _settle(order["log"])
    with suppress(OSError):
        channel.sendall(b"\n")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    outcome: int | None = None
    try:
        outcome = int(run.run(UUID(order["task"]), order["fence"]))
        return outcome
    finally:  # an exit code alone could be that of anything a plug-in does
        with suppress(OSError):
            tell(channel, outcome=outcome, **run.report())


def _settle(log: str) -> None:
    """From here on everything printed goes to the task's log, and nothing comes in."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
