"""``python -m worker.child SUPERVISOR``: a process that imports what attempts need, then waits for its one task.

The only kind of process of the service where torch runs. Standard input is a socket to the supervisor: the order comes
in as one line of JSON, is acknowledged by an empty line, and may be followed by a report at the end. A closed socket
means that there is nothing to do.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from contextlib import suppress
from uuid import UUID

from worker.control import DONE, die_with, name_process
from worker.quiet import Room


def main(supervisor: int) -> int:
    """Waits, and runs the attempt; the exit code says how it ended (worker.control)."""
    die_with(supervisor)
    name_process("skyline-spare")
    room = Room()  # importing is load, too: not beside a measurement
    from worker.run import report, run

    room.close()
    line = sys.stdin.buffer.readline()
    if not line:
        return DONE
    order = json.loads(line)
    name_process("skyline-child")
    channel = _settle(order["log"])
    with suppress(OSError):  # a supervisor that went takes us with it
        channel.sendall(b"\n")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return run(UUID(order["task"]), order["fence"])
    finally:
        with suppress(OSError):
            channel.sendall(json.dumps(report()).encode() + b"\n")


def _settle(log: str) -> socket.socket:
    """From here on everything printed goes to the task's log, and nothing comes in; returns the line to above."""
    channel = socket.socket(fileno=os.dup(0))
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)
    return channel


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
