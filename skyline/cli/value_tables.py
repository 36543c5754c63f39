"""``skyline tables``: lists, adds, shows and deletes tables of values by architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skyline.cli.datasets import parsed
from skyline.cli.options import Asked, Json, Key, Url, merged

tables = typer.Typer(invoke_without_command=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As jobs name it: table: NAME.")]
DIRECTIONS = {"min": "minimize", "max": "maximize"}


@tables.callback(help="List tables of values by architecture; see 'add', 'show' and 'delete'.")
def all_tables(context: typer.Context, json: Json = False, url: Url = None, key: Key = None) -> None:
    context.obj = Asked(json, url, key)
    if context.invoked_subcommand is None:
        _list(context.obj)


@tables.command("list")
def list_tables(context: typer.Context, json: Json = False, url: Url = None, key: Key = None) -> None:
    """List tables of values by architecture."""
    _list(merged(context, json, url, key))


def _list(asked: Asked) -> None:
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(asked.url, asked.key) as client:
        found = list(client.tables())
    if asked.json:
        emit(as_json(found))
        return
    from skyline.cli.tables import registered_tables

    if found:
        console().print(registered_tables(found))
    else:
        typer.echo("no table is registered; 'skyline tables add NAME FILE --space SPACE ...' registers one")


@tables.command()
def add(
    context: typer.Context,
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header line; .gz too.")],
    space: Annotated[str, typer.Option(help="Search space of the architectures, such as nasbench201.")],
    input: Annotated[str, typer.Option(help="Images that their networks take: channels x height x width.")],
    classes: Annotated[int, typer.Option(help="Classes that they tell apart.")],
    column: Annotated[
        list[str],
        typer.Option(help="A column to keep: NAME:UNIT, or NAME:UNIT:max where more is better. Repeatable."),
    ],
    architecture: Annotated[
        str, typer.Option("--key", help="The column that names architectures: arch strings, genotypes or hashes.")
    ] = "arch",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the space, such as cells=17. Repeatable.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Architectures of the space may lack a row.")] = False,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Register values by architecture: the service reads the whole table, or keeps nothing of it."""
    from skyline.cli.output import as_json, emit
    from skyline.client import Client

    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        answer = client.add_table(
            name,
            file,
            space={"name": space, **parsed(settings or [])},
            input=_input(input),
            classes=classes,
            columns=_columns(column),
            key=architecture,
            partial=partial,
            description=description,
        )
    if asked.json:
        emit(as_json(answer))
        return
    from skyline.cli.tables import read_as, rows_line

    left_out = f"; {answer.left_out:,} rows outside the space are left out" if answer.left_out else ""
    count = "1 column" if len(answer.columns) == 1 else f"{len(answer.columns)} columns"
    typer.echo(f"table {answer.name}: {rows_line(answer)} architectures, {count}{left_out}")
    for one in filter(None, map(read_as, answer.columns)):
        typer.echo(one)
    typer.echo(f"in a job: objectives: [{{name: error, table: {answer.name}, column: ...}}, ...]")


@tables.command()
def show(context: typer.Context, name: NameArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Show a table's columns and how far they reach."""
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        answer = client.table(name)
    if asked.json:
        emit(as_json(answer))
        return
    from skyline.cli.tables import registered_tables

    console().print(registered_tables([answer]))


@tables.command()
def delete(context: typer.Context, name: NameArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Delete a table that no job under way uses; values that were looked up stay with their jobs."""
    from skyline.cli.output import emit
    from skyline.client import Client

    asked = merged(context, json, url, key)
    with Client(asked.url, asked.key) as client:
        client.delete_table(name)
    if asked.json:
        emit({"name": name, "deleted": True})
    else:
        typer.echo(f"table {name} is deleted")


def _input(text: str) -> list[int]:
    """``3x32x32``. Raises typer.BadParameter."""
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(size.strip().isdecimal() for size in sizes):
        raise typer.BadParameter(f"'{text}' is no shape of images; write it as --input 3x32x32")
    return [int(size) for size in sizes]


def _columns(texts: list[str]) -> dict[str, dict[str, Any]]:
    """By name. Raises typer.BadParameter."""
    found: dict[str, dict[str, Any]] = {}
    written: dict[str, str] = {}
    for text in texts:
        name, about = _column(text)
        if name in found:
            raise typer.BadParameter(
                f"column '{name}' is named twice, '{written[name]}' and '{text}'; keep one of them"
            )
        found[name], written[name] = about, text
    return found


def _column(text: str) -> tuple[str, dict[str, Any]]:
    """``raspi4:ms`` or ``accuracy:%:max``. Raises typer.BadParameter."""
    name, colon, rest = text.partition(":")
    unit, _, direction = rest.partition(":")
    if not (name and colon and unit) or direction not in ("", *DIRECTIONS):
        raise typer.BadParameter(f"'{text}' is no column; write it as --column NAME:UNIT or --column NAME:UNIT:max")
    return name, {"unit": unit, "direction": DIRECTIONS[direction or "min"]}
