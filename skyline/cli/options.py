"""Options that many subcommands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
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
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="JOB",
        help="Go on from the search of this job: its id, its first characters, or 'last'.",
        show_default="as the file says",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Take what the job leaves out from this preset ('skyline catalog' lists them).",
        show_default="as the file says",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Set a field, such as budget.evaluations=20. Repeatable.")
]


class Kind(StrEnum):
    """Of a front."""

    search = "search"
    final = "final"


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugins",
        metavar="FILE[,FILE]",
        help="Your own objectives, data sets, spaces and algorithms: .py files or modules. May be repeated.",
        show_default="SKYLINE_PLUGINS",
    ),
]


@dataclass(frozen=True)
class Asked:
    """Options of a command that has subcommands, given before the subcommand."""

    json: bool
    url: str | None
    key: str | None


def merged(context: typer.Context, json: bool, url: str | None, key: str | None) -> Asked:
    """Options may stand before or after the subcommand; those after it count, and both go before the environment."""
    before: Asked = context.obj

    def typed(option: str) -> bool:
        source = context.get_parameter_source(option)
        return source is not None and source.name == "COMMANDLINE"

    return Asked(json or before.json, url if typed("url") else before.url, key if typed("key") else before.key)


def plugins(given: Sequence[str] | None) -> str | None:
    """As one text for the environment, files with their whole paths; None where nothing is given.

    Raises typer.BadParameter for a file that is not there.
    """
    if not given:
        return None
    named = [part.strip() for text in given for part in text.split(",") if part.strip()]
    return ",".join(_whole(name) for name in named)


def _whole(name: str) -> str:
    if not name.endswith(".py") and os.sep not in name:
        return name  # a module, which the worker imports
    path = Path(os.path.expanduser(name)).absolute()
    if not path.is_file():
        raise typer.BadParameter(
            f"there is no file {path}; a plug-in is a .py file or a module", param_hint="--plugins"
        )
    return str(path)


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
