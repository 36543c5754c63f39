"""``skyline gate JOB --require 'error<=10%,params<=300000'``."""

from __future__ import annotations

from typing import Annotated

import typer

from skyline.cli.options import UNMET, JobArgument, Json, Key, Kind, Url


def gate(
    job: JobArgument,
    require: Annotated[
        list[str],
        typer.Option(
            "--require",
            "-r",
            help="What a network must hold: KEY<=NUMBER (<=, <, >=, >), with commas between. Repeatable.",
        ),
    ],
    kind: Annotated[Kind, typer.Option(help="Which front.")] = Kind.final,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the job has ended.")] = False,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Ask whether a job found a network that holds every requirement; exits with 4 when there is none."""
    from skyline.cli.find import find_job
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client
    from skyline.errors import NotSucceededError
    from skyline.schemas.answers import ENDED

    with Client(url, key) as client:
        found, text = find_job(client, job), ",".join(require)
        try:
            verdict = client.gate(found, text, kind.value)
        except NotSucceededError as error:
            if not wait or error.job.status in ENDED:
                raise
            from skyline.cli.progress import follow

            follow(client, found, console(stderr=True))
            verdict = client.gate(found, text, kind.value)
        if json:
            emit(as_json(verdict))
        else:
            from skyline.cli.tables import front_table, gate_lines

            if verdict.passed:
                front = client.front(found, kind.value)
                console().print(front_table(front.model_copy(update={"members": verdict.passing})))
            for line in gate_lines(verdict):
                typer.echo(line)
    raise typer.Exit(0 if verdict.passed else UNMET)
