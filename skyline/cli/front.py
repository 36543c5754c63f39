"""``skyline front JOB``."""

from __future__ import annotations

from typing import Annotated

import typer

from skyline.cli.options import UNMET, JobArgument, Json, Key, Kind, Url, bounds


def front(
    job: JobArgument,
    kind: Annotated[
        Kind | None, typer.Option(help="Which front.", show_default="final as soon as it has members")
    ] = None,
    max: Annotated[list[str] | None, typer.Option("--max", help="Upper bound, such as latency_ms=5.")] = None,
    min: Annotated[list[str] | None, typer.Option("--min", help="Lower bound, such as accuracy=0.9.")] = None,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show the Pareto front of a job; exits with 4 when no point meets the bounds, the job's or those given here."""
    from skyline.cli.find import find_job
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    upper, lower = bounds(max, "--max"), bounds(min, "--min")
    with Client(url, key) as client:
        answer = client.front(find_job(client, job), kind.value if kind else None, upper, lower)
    unmet = not answer.members and (bool(upper or lower) or answer.infeasible is not None)
    if json:
        emit(as_json(answer))
        raise typer.Exit(UNMET if unmet else 0)
    from skyline.cli.tables import front_notes, front_table

    if answer.members:
        console().print(front_table(answer))
    for note in front_notes(answer, bounded=bool(upper or lower)):
        typer.echo(note)
    raise typer.Exit(UNMET if unmet else 0)
