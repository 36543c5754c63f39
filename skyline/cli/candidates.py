"""``skyline candidates JOB``."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from skyline.cli.options import JobArgument, Json, Key, Url


def candidates(
    job: JobArgument,
    sort: Annotated[str | None, typer.Option(help="An objective, or number.", show_default="number")] = None,
    stage: Annotated[
        str | None, typer.Option(help="Whose values --sort goes by: search or final.", show_default="search")
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="Largest first.")] = False,
    status: Annotated[str | None, typer.Option(help="Only proposed, evaluated, verified or failed ones.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=1, show_default="50")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="All of them as a table in CSV, and nothing else.")] = False,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List everything that a job tried."""
    from skyline.cli.find import find_job
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    if csv and (json or limit is not None):
        raise typer.BadParameter("--csv is all candidates in one form; leave out --json and --limit")
    most = 50 if limit is None else limit
    with Client(url, key) as client:
        found = find_job(client, job)
        if csv:
            pieces = client.candidates_csv(found, sort=sort, stage=stage, descending=descending, status=status)
            typer.get_binary_stream("stdout").writelines(pieces)
            return
        pages = client.candidates(
            found, sort=sort, stage=stage, descending=descending, status=status, limit=min(most, 100)
        )
        listed = list(islice(pages, most))
        if json:
            emit(as_json(listed))
            return
        keys = client.job(found).spec.keys
    from skyline.cli.tables import candidates_table

    if listed:
        console().print(candidates_table(listed, keys))
    else:
        typer.echo("no candidate yet")
