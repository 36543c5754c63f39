"""``skyline watch JOB``."""

from __future__ import annotations

import typer

from skyline.cli.options import JobArgument, Json, Key, Url


def watch(job: JobArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Follow a job until it has ended; with --json one event a line. Exit code 1 when it did not succeed."""
    from skyline.cli.find import find_job
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(url, key) as client:
        found = find_job(client, job)
        if json:
            for event in client.watch(found):
                emit(as_json(event), indent=None)
            ended = client.job(found)
        else:
            from skyline.cli.progress import conclude, follow

            screen = console()
            ended = follow(client, found, screen)
            conclude(client, ended, screen)
    raise typer.Exit(0 if ended.status == "succeeded" else 1)
