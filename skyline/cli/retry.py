"""``skyline retry JOB`` and ``skyline retry --candidate CANDIDATE``."""

from __future__ import annotations

from typing import Annotated

import typer

from skyline.cli.options import Json, Key, Url


def retry(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Job id, its first characters, or 'last'.", show_default=False)
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(help="Verify this candidate again: a whole id, or, with JOB, its first characters."),
    ] = None,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Go on with a job that failed or was cancelled, or verify one candidate again."""
    from skyline.cli.find import find_candidate, find_job
    from skyline.cli.output import as_json, emit
    from skyline.client import Client

    if job is None and candidate is None:
        raise typer.BadParameter("name a job, or a candidate by --candidate")
    with Client(url, key) as client:
        if candidate is not None:
            again = client.retry_candidate(find_candidate(client, candidate, job))
            if json:
                emit(as_json(again))
            else:
                typer.echo(f"candidate {again.id} is verified again; follow it: skyline watch {str(again.job)[:8]}")
            return
        answer = client.retry(find_job(client, job or "last"))
    if json:
        emit(as_json(answer))
    else:
        typer.echo(f"job {answer.id} is {answer.status}")
