"""``skyline verify CANDIDATE``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyline.cli.options import Json, Key, Url


def verify(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="Candidate id, or its first characters.")],
    dataset: Annotated[str | None, typer.Option(help="Data set; its settings by --set dataset.path=...")] = None,
    cells: Annotated[int | None, typer.Option(help="Cells of the network.", show_default="as it has")] = None,
    channels: Annotated[
        list[int] | None,
        typer.Option(help="Channels of the first cell. Repeatable: each width is a network.", show_default="as it has"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the training.", show_default="as in its job")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each network.", show_default="as in its job")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new job.", show_default="as its job has")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Set another field, such as verify.lr=0.05. Repeatable.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Job among whose candidates short ids are looked up.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until the new job has ended.")] = False,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Train and measure a network that was found anew: on other data, wider, deeper or longer, as a new job."""
    from skyline.cli.find import find_candidate
    from skyline.cli.submit import posted
    from skyline.client import Client
    from skyline.specs import override

    asked: dict[str, Any] = {
        "dataset": {"name": dataset},
        "target": {"cells": cells, "channels": channels or None},
        "verify": {"epochs": epochs, "seeds": seeds},
    }
    parts = {
        part: {field: value for field, value in fields.items() if value is not None} for part, fields in asked.items()
    }
    body: dict[str, Any] = {part: fields for part, fields in parts.items() if fields}
    if name is not None:
        body["name"] = name
    with Client(url, key) as client:
        found = find_candidate(client, candidate, job)
        posted(client, client.verify(found, **override(body, settings or [])), watch, json)
