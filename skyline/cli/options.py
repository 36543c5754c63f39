"""Options that many subcommands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

UNMET = 4
"""Exit code when no point meets the bounds."""

Url = Annotated[
    str | None, typer.Option("--url", envvar="SKYLINE_URL", help="Address of the service.", show_default="this machine")
]
Key = Annotated[
    str | None, typer.Option("--api-key", envvar="SKYLINE_API_KEY", help="API key, where the service asks for one.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job id, its first characters, or 'last'.")]
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="Job in YAML or JSON; - for standard input.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Set a field, such as budget.evaluations=20. Repeatable.")
]


class Kind(StrEnum):
    """Of a front."""

    search = "search"
    final = "final"


def bounds(settings: list[str] | None, option: str) -> dict[str, float]:
    """``latency_ms=5`` as ``{"latency_ms": 5.0}``. Raises typer.BadParameter."""
    parsed: dict[str, float] = {}
    for setting in settings or []:
        key, equals, number = setting.rpartition("=")
        try:
            parsed[key] = float(number)
        except ValueError:
            equals = ""
        if not equals or not key:
            raise typer.BadParameter(f"'{setting}' is no bound; write it as {option} latency_ms=5")
    return parsed
