"""``skyline delete JOB``."""

from __future__ import annotations

import typer

from skyline.cli.options import JobArgument, Json, Key, Url


def delete(job: JobArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Remove an ended job with its candidates and files."""
    from skyline.cli.find import find_job
    from skyline.cli.output import emit
    from skyline.client import Client

    with Client(url, key) as client:
        found = find_job(client, job)
        client.delete(found)
    if json:
        emit({"id": str(found), "deleted": True})
    else:
        typer.echo(f"job {found} is deleted")
