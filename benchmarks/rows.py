"""Rows of long benchmarks, kept as they come: a run that was cut goes on where it stopped."""

from __future__ import annotations

import argparse
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


class RowFile:
    """As ``cached``, for many rows: the file is read once, and several processes may append to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, Row] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            row: Row = json.loads(line)
            self._rows[_name(row["key"])] = row

    def row(self, key: Row, compute: Callable[[], Row]) -> Row:
        """The row whose ``key`` is this one, or computed now and appended."""
        name = _name(key)
        if name not in self._rows:
            self._rows[name] = {"key": key, **compute()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write((json.dumps(self._rows[name]) + "\n").encode())
        return self._rows[name]


def _name(key: Row) -> str:
    return json.dumps(key, sort_keys=True)


def seeded(description: str | None) -> argparse.ArgumentParser:
    """Arguments of a benchmark that takes one seed after another and keeps its rows: data, first, seeds, cache."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--cache", type=Path, default=Path("build/search-quality"))
    return parser
