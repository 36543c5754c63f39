"""``skyline submit FILE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from skyline.cli.options import FileArgument, From, Json, Key, Preset, Settings, Url

if TYPE_CHECKING:
    from skyline.client import Client
    from skyline.schemas.answers import Job


def submit(
    file: FileArgument,
    settings: Settings = None,
    origin: From = None,
    preset: Preset = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="A name for this request: sent again within 24 h, it is the same job.", show_default=False),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until the job has ended.")] = False,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Post a search job."""
    from skyline.cli.find import job_file
    from skyline.client import Client

    with Client(url, key) as client:
        job = client.submit(job_file(client, file, settings, origin, preset), idempotency_key=idempotency_key)
        posted(client, job, watch, json)


def posted(client: Client, job: Job, watch: bool, json: bool) -> None:
    """What is said of a job that was just posted; with ``watch`` until it has ended, and then exits."""
    from skyline.cli.output import as_json, console, emit

    if not watch:
        if json:
            emit(as_json(job))
        else:
            typer.echo(f"job {job.id} is {job.status}")
            typer.echo(f"follow it: skyline watch {str(job.id)[:8]}")
        return
    from skyline.cli.progress import conclude, follow

    screen = console(stderr=json)
    screen.print(f"job {job.id}")
    ended = follow(client, job.id, screen)
    if json:
        emit(as_json(ended))
    else:
        conclude(client, ended, screen)
    raise typer.Exit(0 if ended.status == "succeeded" else 1)
