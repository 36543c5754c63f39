"""What goes to standard output: one JSON document, or tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

PIPE_WIDTH = 160
"""Columns of a table that is not for a terminal; nothing is cut there for want of room."""


def console(*, stderr: bool = False) -> Console:
    """Where tables and progress go."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    return made


def as_json(value: BaseModel | Iterable[BaseModel]) -> Any:
    """Answers as JSON values."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [item.model_dump(mode="json") for item in value]


def emit(value: Any, *, indent: int | None = 2) -> None:
    """Writes one JSON document."""
    sys.stdout.write(json.dumps(value, indent=indent, allow_nan=False) + "\n")
    sys.stdout.flush()
