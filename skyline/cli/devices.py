"""``skyline devices``: lists, shows, adds and removes devices whose costs are predicted from a profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyline.cli.options import Asked, Json, Key, Url, merged

if TYPE_CHECKING:
    from skyline.client import Client
    from skyline.schemas import Device

devices = typer.Typer(invoke_without_command=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As jobs name it: {name: latency_ms, device: NAME}.")]


@devices.callback(help="List devices with a profile; see 'add', 'show' and 'remove', and 'skyline device profile'.")
def list_devices(context: typer.Context, json: Json = False, url: Url = None, key: Key = None) -> None:
    context.obj = Asked(json, url, key)
    if context.invoked_subcommand is not None:
        return
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(url, key) as client:
        found = list(client.devices())
    if json:
        emit(as_json(found))
        return
    from skyline.cli.tables import devices_table

    if found:
        console().print(devices_table(found))
    else:
        typer.echo(
            "no device has a profile; 'skyline device profile' measures this machine, 'skyline devices add FILE'"
        )


@devices.command()
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A profile as JSON or YAML; - reads standard input.")],
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Upload a profile: one written by hand, or by 'skyline device profile --out FILE'. It replaces any before."""
    from skyline.cli.output import as_json, emit
    from skyline.client import Client
    from skyline.specs import load

    profile = load(file, "profile")
    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        before = None if asked.json else _known(client, profile.get("name"))
        answer = client.add_device(profile)
    if asked.json:
        emit(as_json(answer))
        return
    from skyline.cli.tables import trust

    if before is not None and before.sha256 != answer.sha256:
        was = f"{before.sha256[:12]}, {before.device}"
        typer.echo(f"replaced the profile of '{answer.name}' ({was}); jobs that were posted with it go on with it")
    typer.echo(f"device {answer.name}: {answer.parts} parts; {trust(answer)}")
    typer.echo(f"in a job: objectives: [error, {{name: {answer.predicts[0]}, device: {answer.name}}}]")


def _known(client: Client, name: Any) -> Device | None:
    """The device that has the name already."""
    return next((one for one in client.devices(limit=200) if one.name == name), None)


@devices.command()
def show(context: typer.Context, name: NameArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Show a device; --json gives its whole profile, which can be added again."""
    from skyline.cli.output import console, emit
    from skyline.client import Client

    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        device = client.device(name)
    if asked.json:
        emit(device.profile)
        return
    from skyline.cli.tables import device_lines

    for line in device_lines(device):
        console().print(line)


@devices.command()
def remove(context: typer.Context, name: NameArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Remove a device's name; jobs that named it go on with the profile that they were posted with."""
    from skyline.cli.output import emit
    from skyline.client import Client

    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        client.delete_device(name)
    gone: dict[str, Any] = {"name": name, "deleted": True}
    if asked.json:
        emit(gone)
    else:
        typer.echo(f"device {name} is removed; jobs that named it go on")
