"""Which plug-ins this worker is to have. They are loaded by the processes that describe and run (nas_core.plugins),
never by Celery's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

VARIABLE = "SKYLINE_PLUGINS"

State = tuple[tuple[str, int, int], ...]


def wanted() -> list[str]:
    """Files and modules as the environment names them, parted by a comma or ``os.pathsep``."""
    named = os.environ.get(VARIABLE, "")
    return [part.strip() for part in re.split(f"[,{re.escape(os.pathsep)}]", named) if part.strip()]


def state() -> State:
    """Names, times in nanoseconds and bytes of the files: changes when one is edited, added or removed."""
    found = []
    for name in wanted():
        try:
            stat = os.stat(os.path.expanduser(name))
            found.append((name, stat.st_mtime_ns, stat.st_size))
        except OSError:  # a module, or not there (yet)
            found.append((name, 0, 0))
    return tuple(found)


def remarks(publication: Mapping[str, Any]) -> Iterator[str]:
    """What became of the plug-ins, for whoever reads the worker's log."""
    for entry in publication["entries"]:
        if entry["kind"] != "plugin":
            continue
        for part in entry["workers"].values():
            if part["adds"]:
                yield f"plug-in '{entry['name']}' adds {', '.join(part['adds'])}"
            if part["error"] is not None:
                yield f"warning: plug-in '{entry['name']}' cannot be used: {part['error']}"
