"""``skyline jobs``."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from skyline.cli.options import Json, Key, Url


def jobs(
    status: Annotated[str | None, typer.Option(help="Only those with this status.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    label: Annotated[str | None, typer.Option(help="Only those with this label, key=value.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List jobs, newest first."""
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(url, key) as client:
        pages = client.jobs(status=status, name=name, label=label, limit=min(limit, 100))
        found = list(islice(pages, limit))
    if json:
        emit(as_json(found))
        return
    from skyline.cli.tables import jobs_table

    if found:
        console().print(jobs_table(found))
    else:
        typer.echo("no job; 'skyline submit job.yaml' posts one")
