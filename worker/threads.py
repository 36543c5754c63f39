"""How many threads a worker's attempts use: the cores of the host, divided by the workers that share them.

Two processes that each use all cores are slower than one. The number is fixed when a worker starts and stands in every
attempt, since bits repeat only at the same number.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from store import catalog
from store.queue import SHORT
from store.session import reading

CGROUP = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Cores that this process may use, as its affinity and its container's limit say."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP.read_text().split()
        return max(1, min(free, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no limit, or no cgroup of version 2
        return free


def shared_by(slots: int) -> int:
    """Threads of each of so many workers."""
    return max(1, cores() // slots)


def neighbours(name: str) -> list[tuple[str, int]]:
    """Name and threads of the other live workers on this host, as far as the database knows; those that do short work
    alone use little and do not count.
    """
    with reading() as session:
        return [
            (worker.name, worker.threads)
            for worker, live in catalog.workers(session)
            if live and worker.host == socket.gethostname() and worker.name != name and worker.queues != [SHORT]
        ]


def remark(threads: int, others: Sequence[tuple[str, int]]) -> str | None:
    """A warning where the workers of this host use more threads than it has cores; None where all is well."""
    total = threads + sum(used for _, used in others)
    if not others or total <= cores():
        return None
    who = ", ".join(f"{name} ({used})" for name, used in others)
    return (
        f"warning: {total} threads on {cores()} cores: {threads} here, beside {who}; all of them get slower. "
        f"Start each with --slots {len(others) + 1}, which is {shared_by(len(others) + 1)} threads"
    )
