"""Files that documents show: a line that names one, then its text."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHOWN = re.compile(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
JOB = re.compile(r"^```yaml\n(space: .*?)^```$", re.DOTALL | re.MULTILINE)


def write(page: str, folder: Path) -> dict[str, Path]:
    """Writes the Python files of a page; by their names without the ending."""
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = {}
    for name, code in SHOWN.findall(text):
        path = folder / Path(name).name
        path.write_text(code, encoding="utf-8")
        paths[path.stem] = path
    return paths


def job(page: str) -> str:
    """The one job file of a page."""
    (found,) = JOB.findall((ROOT / page).read_text(encoding="utf-8"))
    return str(found)
