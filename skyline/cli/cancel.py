"""``skyline cancel JOB``."""

from __future__ import annotations

import typer

from skyline.cli.options import JobArgument, Json, Key, Url


def cancel(job: JobArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Stop a job; what it found is kept."""
    from skyline.cli.find import find_job
    from skyline.cli.output import as_json, emit
    from skyline.client import Client

    with Client(url, key) as client:
        answer = client.cancel(find_job(client, job))
    if json:
        emit(as_json(answer))
    else:
        typer.echo(f"job {answer.id} is {answer.status}")
