"""What ``skyline demo`` does with a service: a search over HTTP, its progress, its front, a network taken home."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import typer

from api.embedded import Embedded
from api.processes import ServeError
from skyline.cli.output import console
from skyline.cli.progress import conclude, follow
from skyline.cli.values import short
from skyline.client import Client
from skyline.errors import ApiError
from skyline.schemas.answers import ENDED, Event, Front
from skyline.specs import parse

LABEL = ("made-by", "skyline-demo")
ASK_SECONDS = 0.5
FORMATS = ("json", "safetensors", "onnx")
"""Networks are taken home as architecture, as weights, and ready to be deployed."""


def specification(seed: int) -> dict[str, Any]:
    """The demo's job: ``examples/digits.yaml``, labelled, with a seed."""
    text = (files("skyline") / "examples" / "digits.yaml").read_text(encoding="utf-8")
    spec = parse(text, "examples/digits.yaml")
    return {**spec, "seed": seed, "labels": {**spec.get("labels", {}), LABEL[0]: LABEL[1]}}


def run(service: Embedded, seed: int) -> bool:
    """Runs the demo on a service that is up; True when its job succeeded. Ends early when ``service.halt`` is set."""
    screen = console()
    with Client(service.url) as client:
        clear(client)
        job = client.submit(specification(seed))
        screen.print(f"job {job.id} submitted to {service.url}")

        ended = follow(client, job.id, screen, events(service, client, job.id))
        if ended.status not in ENDED:
            end(client, ended.id)
            return False
        front = conclude(client, ended, screen)
        if ended.status != "succeeded" or front is None or not front.members:
            typer.echo(f"logs: {service.log_dir}", err=True)
            return False
        for path in take_home(client, front, service.data_dir):
            screen.print(f"pulled {path}")
        screen.print(f"look again: skyline serve --data-dir {service.data_dir}, then skyline front {short(job.id)}")
    return True


def events(service: Embedded, client: Client, job_id: UUID) -> Iterator[Event | None]:
    """The job's events by asking, None at each turn, until it has ended or ``service.halt`` is set.

    Not from the live stream: reading that, a signal would go unseen until the next event. Looks after the service too.
    """
    last, ended = 0, False
    while True:
        for event in client.events(job_id, after=last).items:
            last = event.seq
            yield event
        if ended or service.halt.wait(ASK_SECONDS):
            return
        for said in service.check():
            typer.echo(f"warning: {said}", err=True)
        yield None
        ended = client.job(job_id).status in ENDED  # once more after that: events come before the end


def take_home(client: Client, front: Front, folder: Path) -> list[Path]:
    """Pulls the front's knee, else its first member, into ``folder``; returns the files."""
    chosen = front.knee or front.members[0].id
    return [client.pull(chosen, format, folder / f"{short(chosen)}.{format}") for format in FORMATS]


def clear(client: Client) -> None:
    """Stops what an earlier demo that was killed left in the folder: it would be searched first."""
    for job in list(client.jobs(label="=".join(LABEL))):
        if job.status not in ENDED:
            end(client, job.id)


def end(client: Client, job_id: UUID) -> None:
    """Cancels a job unless it has ended meanwhile. Raises ServeError when the service has gone."""
    try:
        client.cancel(job_id)
    except ApiError as error:
        if error.status != 409:
            raise ServeError(str(error)) from error
