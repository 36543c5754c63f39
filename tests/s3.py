"""A server that speaks S3 (moto), as a process of its own, and what names a bucket on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import httpx

ADDRESS = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
SECONDS = 60.0
SECRET = "s3cr3t-key-that-nobody-may-see"
KEY = "AKIDTHATNOBODYMAYSEE"


class Server:
    """Buckets live as long as the process does."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._log = folder / "moto.log"
        self._numbers = count(1)
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=os.environ
            )
        self.url = self._address()

    def _address(self) -> str:
        deadline = time.monotonic() + SECONDS
        while (found := ADDRESS.search(self._log.read_text())) is None:
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)
        return found[1]

    def bucket(self) -> dict[str, str]:
        """Variables that name a prefix in a new, empty bucket, and how to reach it."""
        name = f"skyline-{next(self._numbers)}"
        httpx.put(f"{self.url}/{name}", trust_env=False).raise_for_status()
        return self.variables(f"s3://{name}/some/prefix")

    def variables(self, url: str) -> dict[str, str]:
        return {
            "SKYLINE_ARTEFACT_URL": url,
            "AWS_ENDPOINT": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def requests(self) -> list[str]:
        """Lines of what was asked of it."""
        return [line for line in self._log.read_text().splitlines() if '" ' in line]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
