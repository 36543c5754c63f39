"""``skyline pull CANDIDATE``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skyline.cli.options import Json, Key, Url


class Format(StrEnum):
    json = "json"
    safetensors = "safetensors"
    onnx = "onnx"
    pt2 = "pt2"
    python = "python"
    masks = "masks"
    inherited = "inherited"


def pull(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="Candidate id, or its first characters.")],
    format: Annotated[
        Format, typer.Option(help="onnx, pt2, python, safetensors: of a verified candidate.")
    ] = Format.json,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; - for standard output.", show_default="ID.FORMAT"),
    ] = None,
    job: Annotated[str | None, typer.Option(help="Job among whose candidates short ids are looked up.")] = None,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Download a network: its architecture (json), its trained weights (safetensors), or a file that runs elsewhere
    (onnx, pt2, python), which is made when it is first asked for; or what its search brought: weight masks (masks),
    weights to begin with (inherited).
    """
    from skyline.cli.find import find_candidate
    from skyline.cli.output import emit
    from skyline.client import Client

    with Client(url, key) as client:
        found = find_candidate(client, candidate, job)
        if str(output) == "-":
            if json:
                raise typer.BadParameter("--json and -o - both want standard output; give one of them")
            typer.get_binary_stream("stdout").write(client.model(found, format.value))
            return
        try:
            path = client.pull(found, format.value, output)
        except OSError as error:
            raise typer.BadParameter(f"{output or 'the file'} cannot be written: {error.strerror or error}") from error
    if json:
        emit({"candidate": str(found), "format": format.value, "path": str(path), "bytes": path.stat().st_size})
    else:
        typer.echo(str(path))
