"""``skyline log JOB``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from skyline.cli.options import JobArgument, Json, Key, Url


def log(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and print what comes, until it has ended.")
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="Only of this task: an id or its first characters, as in 'skyline job'.")
    ] = None,
    attempt: Annotated[int | None, typer.Option(help="Only of attempts of this number.", min=1)] = None,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show what a job's processes print; with --json one piece a line."""
    from skyline.cli.find import find_job, find_task
    from skyline.cli.output import as_json, emit
    from skyline.client import Client
    from skyline.logs import readable

    with Client(url, key) as client:
        found = find_job(client, job)
        of = None if task is None else find_task(client.job(found), task)
        if not follow and not json:
            typer.echo(client.log_text(found, task=of, attempt=attempt), nl=False)
            return
        chunks = client.log_pieces(found, task=of, attempt=attempt, follow=follow)
        if json:
            for chunk in chunks:
                emit(as_json(chunk), indent=None)
            return
        for text in readable(chunks):
            typer.echo(text, nl=False)
            sys.stdout.flush()
