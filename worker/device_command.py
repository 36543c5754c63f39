"""``skyline device profile``: measures what the parts of networks cost on this machine, and uploads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from json import dumps, loads
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from skyline.cli.options import Json, Key, Url

device = typer.Typer(no_args_is_help=True, help="This machine as a device whose costs can be predicted.")


@device.callback()
def group() -> None:
    """A callback keeps 'profile' a subcommand."""


def _shape(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"[1-9][0-9]{0,4}(x[1-9][0-9]{0,4}){2}", text):
        raise typer.BadParameter(f"channels, height and width such as 3x32x32 are wanted; got '{text}'")
    channels, height, width = map(int, text.split("x"))
    return channels, height, width


def _widths(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", text):
        raise typer.BadParameter(f"channels such as 16 or 16,24 are wanted; got '{text}'")
    return [int(part) for part in text.split(",")]


def _own_width(text: str | None) -> int | None:
    """Of cells that have widths of their own, whatever the target's: the one that is asked for, unless it is set."""
    widths = [] if text is None else _widths(text)
    return widths[0] if len(widths) == 1 else None


def _check_place(out: Path) -> None:
    """Before anything is measured. Raises BadParameter."""
    folder = out.absolute().parent
    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; name a file in it", param_hint="--out")
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}; make it, or name another file", param_hint="--out")
    if not os.access(out if out.exists() else folder, os.W_OK):
        raise typer.BadParameter(f"{out} cannot be written; name another file", param_hint="--out")


def _counts(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[1-9][0-9]{0,3},[1-9][0-9]{0,3}", text):
        raise typer.BadParameter(f"two numbers such as 24,40 are wanted; got '{text}'")
    fit, held = map(int, text.split(","))
    return fit, held


@device.command()
def profile(
    space: Annotated[str, typer.Option(help="Space whose parts are measured: darts or nasbench201.")] = "darts",
    name: Annotated[
        str | None, typer.Option(help="By which jobs will name it.", show_default="host and device")
    ] = None,
    cells: Annotated[
        int | None, typer.Option(min=1, help="Of the networks.", show_default="as the space has it")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Of the first cell, one or several widths: 16,24.", show_default="as the space")
    ] = None,
    input: Annotated[str, typer.Option(metavar="CxHxW", help="Of an image.")] = "3x32x32",
    classes: Annotated[int, typer.Option(min=2, help="Of the data set.")] = 10,
    stem: Annotated[str | None, typer.Option(help="auto, cifar or imagenet.", show_default="auto")] = None,
    connection: Annotated[
        bool, typer.Option("--connection", help="Cells of darts that choose how inputs come.")
    ] = False,
    filters: Annotated[
        bool, typer.Option("--filters", help="Cells of darts with widths of their own, as mgas finds them.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Another setting of the space, such as nodes=2. Repeatable.")
    ] = None,
    on: Annotated[str, typer.Option("--device", help="cpu or cuda:N.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images of one inference.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    power_w: Annotated[
        float | None,
        typer.Option(min=0.001, help="Power of the busy device, W, for energy_mj.", show_default="unknown"),
    ] = None,
    networks: Annotated[
        str, typer.Option(metavar="FIT,HELD", help="Whole networks to fit on, and held out to judge by.")
    ] = "24,40",
    seconds: Annotated[float, typer.Option(min=0.01, max=60, help="Most time for a network, on the average.")] = 0.6,
    out: Annotated[Path | None, typer.Option(help="Write the profile there instead of uploading it.")] = None,
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Measure every part of a space's networks on this machine, judge the sum by whole networks, upload it.

    Takes half a minute to two minutes for networks of the default size; nothing else should run meanwhile.
    """
    from skyline.cli.datasets import parsed
    from skyline.cli.output import emit
    from skyline.schemas.datasets import NAME_FORM, NAME_RULE
    from worker.identity import default_name

    named = name or re.sub(r"[^A-Za-z0-9._-]", "-", default_name(on))
    if not NAME_FORM.fullmatch(named):
        raise typer.BadParameter(NAME_RULE, param_hint="--name")
    train, held_out = _counts(networks)
    if out is not None:
        _check_place(out)
    if filters and connection:
        raise typer.BadParameter("cells with widths of their own have no connections to choose", param_hint="--filters")
    given = {"cells": cells, "stem": stem, "connection": connection or None, **parsed(settings or [])}
    if filters:
        if channels is not None and "," in channels and "channels" not in given:
            several = f"got '{channels}'; with --filters --set channels=16 says up to how many channels cells have"
            raise typer.BadParameter(several, param_hint="--channels")
        given = {"channels": _own_width(channels), "fan_in": "free", "levels": "cell", "filters": True, **given}
    document = _measured(
        {
            "space": space,
            "settings": {key: value for key, value in given.items() if value is not None},
            "widths": [None] if channels is None else _widths(channels),
            "input": _shape(input),
            "classes": classes,
            "name": named,
            "device": on,
            "batch": batch,
            "threads": threads,
            "seconds": seconds,
            "train": train,
            "held_out": held_out,
            "power_w": power_w,
            "seed": 0,
        }
    )
    if out is not None:
        out.write_text(dumps(document, indent=1) + "\n", encoding="utf-8")
        typer.echo(f"written to {out}; 'skyline devices add {out}' uploads it", err=True)
    else:
        from skyline.client import Client
        from skyline.errors import ClientError

        try:
            with Client(url, key) as client:
                client.add_device(document)
        except ClientError:
            kept = Path(mkdtemp(prefix="skyline-")) / f"{named}.json"
            kept.write_text(dumps(document, indent=1) + "\n", encoding="utf-8")
            typer.echo(f"not uploaded; the profile is kept: 'skyline devices add {kept}' uploads it", err=True)
            raise
        typer.echo(f"in a job: objectives: [error, {{name: latency_ms, device: {named}}}]", err=True)
    if json:
        emit(document)
        return
    (seen,) = document["latency_validation"]
    typer.echo(
        f"{named}: {len(document['parts'])} parts; {seen['n']} held-out networks: tau {seen['tau']:.3f} "
        f"(measured twice: {seen['tau_repeat']:.3f}), off by {seen['mape']:.1f} % on the average"
    )


def _measured(request: dict[str, Any]) -> dict[str, Any]:
    """In a process whose memory is kept as in an attempt's (docs/decisions/0010)."""
    from worker.template import ALLOCATOR

    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    words = [sys.executable, "-P", "-m", "worker.profile_child", str(os.getpid()), dumps(request)]
    env = {**ALLOCATOR, **os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise typer.Exit(2 if done.returncode == 2 else 1)
    document: dict[str, Any] = loads(done.stdout)
    return document
