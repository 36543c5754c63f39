"""``skyline estimate FILE``."""

from __future__ import annotations

import typer

from skyline.cli.options import FileArgument, From, Json, Key, Preset, Settings, Url


def estimate(
    file: FileArgument,
    settings: Settings = None,
    origin: From = None,
    preset: Preset = None,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Check a search job and say what it would be, without posting it."""
    from skyline.cli.find import job_file
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(url, key) as client:
        answer = client.estimate(job_file(client, file, settings, origin, preset))
    if json:
        emit(as_json(answer))
        return
    from skyline.cli.counts import estimate_lines, ranges_table

    if any(target.ranges for target in answer.targets):
        console().print(ranges_table(answer))
    for line in estimate_lines(answer):
        console().print(line)
    typer.echo("the job is valid; nothing was posted")
