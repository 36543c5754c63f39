"""Rows of long benchmarks, kept as they come: a run that was cut goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def cached(path: Path | None, key: Row, compute: Callable[[], Row]) -> Row:
    """The row of ``key`` from the file, or computed now and appended to it. Without a path nothing is kept."""
    if path is not None and path.exists():
        for line in path.read_text().splitlines():
            row: Row = json.loads(line)
            if all(row.get(name) == value for name, value in key.items()):
                return row
    row = {**key, **compute()}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return row
