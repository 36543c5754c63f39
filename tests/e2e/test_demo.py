"""`skyline demo` cut short; its whole run is `make demo`."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.e2e

SECONDS = 120.0


def test_ctrl_c_stops_job_and_service(tmp_path: Path) -> None:
    folder, output = tmp_path / "data", tmp_path / "output"
    env = {name: value for name, value in os.environ.items() if not name.startswith("SKYLINE_")}
    with output.open("w") as out:
        argv = [sys.executable, "-m", "skyline", "demo", "--data-dir", str(folder)]
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=env)
    family: set[psutil.Process] = set()
    try:
        deadline = time.monotonic() + SECONDS
        while "submitted" not in output.read_text():
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        family.update(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130, output.read_text()
        assert not [child for child in family if child.is_running()]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in output.read_text()
    database = sqlite3.connect(folder / "skyline.db")
    ((status, asked),) = database.execute("SELECT status, cancel_requested_at FROM jobs").fetchall()
    database.close()
    assert asked is not None or status == "cancelled", "the next demo does not begin with this job"
