"""``skyline datasets``: lists, adds and removes data sets under names of your own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyline.cli.options import Asked, Json, Key, Url, merged

datasets = typer.Typer(invoke_without_command=True)


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As jobs name it: dataset: {name: NAME}.")]


@datasets.callback(help="List data sets under names of your own; see 'add' and 'remove'.")
def list_datasets(context: typer.Context, json: Json = False, url: Url = None, key: Key = None) -> None:
    context.obj = Asked(json, url, key)
    if context.invoked_subcommand is not None:
        return
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(url, key) as client:
        found = list(client.datasets())
    if json:
        emit(as_json(found))
        return
    from skyline.cli.tables import datasets_table

    if found:
        console().print(datasets_table(found))
    else:
        typer.echo("no data set is registered; 'skyline datasets add NAME --path FOLDER' registers one")


@datasets.command()
def add(
    context: typer.Context,
    name: NameArgument,
    path: Annotated[str | None, typer.Option(help="Folder or file below the data folder of the workers.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="What it is, as in 'skyline catalog'.", show_default="npz for FILE.npz, else imagefolder"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of it, such as size=64. Repeatable.")
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Register images under a name: the service checks that a worker has them."""
    from skyline.cli.output import as_json, emit
    from skyline.client import Client

    kind = dataset or ("npz" if (path or "").endswith(".npz") else "imagefolder")
    chosen: dict[str, Any] = {"name": kind, **({} if path is None else {"path": path}), **_parsed(settings or [])}
    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        answer = client.add_dataset(name, chosen, description)
    if asked.json:
        emit(as_json(answer))
        return
    from skyline.cli.tables import images

    classes = f", {answer.classes} classes" if answer.classes else ""
    typer.echo(f"data set {answer.name}: {images(answer) or 'fetched at its first use'}{classes}")
    typer.echo(f"in a job: dataset: {{name: {answer.name}}}")


@datasets.command()
def remove(context: typer.Context, name: NameArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Remove a name; the images stay, and jobs that named it go on."""
    from skyline.cli.output import emit
    from skyline.client import Client

    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        client.delete_dataset(name)
    if asked.json:
        emit({"name": name, "deleted": True})
    else:
        typer.echo(f"data set {name} is removed; its images stay where they are")


def _parsed(settings: list[str]) -> dict[str, Any]:
    """``size=64`` as ``{"size": 64}``; values are YAML. Raises typer.BadParameter."""
    from skyline.errors import InvalidSpecError
    from skyline.specs import override

    for setting in settings:
        if not all(setting.partition("=")[:2]):
            raise typer.BadParameter(f"'{setting}' is no setting; write it as --set size=64")
    try:
        return override({}, settings)
    except InvalidSpecError as error:
        raise typer.BadParameter(f"{error.source}: {error.why}") from error
