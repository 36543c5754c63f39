"""Runs a command that gets SIGTERM when its parent ends: ``python leash.py PARENT COMMAND ...`` becomes the command.

A program of its own, since code between fork and exec is unsafe in a process with threads. Where the system has no
parent-death signal (it is Linux's), the command simply runs.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it ended before we asked
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])
