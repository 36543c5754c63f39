"""Scripts in processes of their own, with so much memory and time and no more: for files that want a lot of either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 60.0

only_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot be held to its memory")

LIMIT = """
import resource
from pathlib import Path

held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + {megabytes} * 2**20,) * 2)
"""


def run(imports: str, script: str, folder: Path, megabytes: int, seconds: float = SECONDS) -> str:
    """What a script prints that may take ``megabytes`` more than its imports did. Raises AssertionError when it fails,
    and subprocess.TimeoutExpired.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", imports + LIMIT.format(megabytes=megabytes) + script]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
