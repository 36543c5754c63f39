"""Fresh processes that can import the standard library and what they are given, and nothing else of what is here."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = ("skyline", "nas_core", "worker", "store", "api", "migrations", "tests")
SECONDS = 200.0


def install(folder: Path, *names: str) -> Path:
    """A folder to import from, as ``pip install NAMES`` would fill it: links to what is installed here."""
    folder.mkdir()
    waiting, done = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in done:
            continue
        done.add(name)
        found = distribution(name)
        for part in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / part).is_symlink():  # distributions share namespaces
                (folder / part).symlink_to(Path(str(found.locate_file(part))).absolute())
        wanted = map(Requirement, found.requires or ())
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return folder


def alone(script: str, folder: Path, packages: Path | None = None, absent: tuple[str, ...] = ()) -> str:
    """What a process prints that runs in ``folder`` with those packages alone: without ours, and ``absent`` ones."""
    head = f"""
import importlib.util
import sys

sys.path += {[str(packages)] if packages else []}
there = [name for name in {OURS + absent} if importlib.util.find_spec(name)]
assert not there, f"can be imported here: {{there}}"
"""
    # -I: no folder of the user's, no PYTHONPATH, nothing from the current one; -S: no site-packages
    without_numpy = "ignore:Failed to initialize NumPy"  # PyTorch says so at its import; what is run here needs none
    command = [sys.executable, "-I", "-S", "-W", "error", "-W", without_numpy, "-c", head + script]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
