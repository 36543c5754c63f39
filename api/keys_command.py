"""``skyline keys``: makes, lists and revokes keys, in the database that the settings name; no service need run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from store.models import ApiKey

FAILED, USAGE = 1, 2
MOST = 2**31 - 1
"""What a column holds."""

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys, where the service's database is.")

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="SKYLINE_DATA_DIR",
        help="Folder of 'skyline serve'; SKYLINE_DATABASE_URL goes before it.",
        show_default="~/.local/share/skyline",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is or what for; need not be unique.")],
    scope: Annotated[
        Literal["read", "submit", "admin"],
        typer.Option(help="read: look; submit: also post, stop, retry; admin: also delete."),
    ] = "submit",
    days: Annotated[
        int | None, typer.Option(min=1, max=36500, help="Days until it expires.", show_default="never")
    ] = None,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=0, max=MOST, help="0: no limit.", show_default="SKYLINE_REQUESTS_PER_MINUTE"),
    ] = None,
    open_jobs: Annotated[
        int | None, typer.Option(min=0, max=MOST, help="Jobs under way; 0: no limit.", show_default="SKYLINE_OPEN_JOBS")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a key. It is printed once and stored nowhere."""
    from datetime import timedelta

    from store import keys as stored
    from store.session import unit_of_work

    if not 0 < len(name) <= stored.NAME_CHARACTERS or not name.isprintable():
        raise typer.BadParameter(f"a name has 1 to {stored.NAME_CHARACTERS} printable characters", param_hint="NAME")
    lifetime = None if days is None else timedelta(days=days)
    with _database(data_dir), unit_of_work() as session:
        row, secret = stored.create(
            session, name, scope, lifetime=lifetime, requests_per_minute=requests_per_minute, open_jobs=open_jobs
        )
        shown = _as_json(row, row.created_at)
    if json:
        _emit({**shown, "key": secret})
        return
    until = "until it is revoked" if row.expires_at is None else f"until {row.expires_at:%Y-%m-%d %H:%M} UTC"
    typer.echo(f"key '{name}', scope {scope}, good {until}; it is shown now and never again:", err=True)
    typer.echo(secret)
    typer.echo("use it: export SKYLINE_API_KEY=..., or 'Authorization: Bearer ...'", err=True)


@keys.command("list")
def list_keys(data_dir: DataDir = None, json: Json = False) -> None:
    """List keys, revoked ones too; of each its first characters."""
    from store import keys as stored
    from store.session import now, reading

    with _database(data_dir), reading() as session:
        at = now(session)
        rows = [_as_json(row, at) for row in stored.listed(session)]
    if json:
        _emit(rows)
        return
    if not rows:
        typer.echo("no key; 'skyline keys create NAME' makes one")
        return
    from rich.table import Table

    from skyline.cli.output import console

    table = Table(box=None, pad_edge=False)
    for heading in ("key", "name", "scope", "state", "created", "expires", "last used"):
        table.add_column(heading)
    for row in rows:
        times = (_day(row[name]) for name in ("created_at", "expires_at", "last_used_at"))
        table.add_row(f"{row['prefix']}...", row["name"], row["scope"], row["state"], *times)
    console().print(table, markup=False)


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its first characters as listed, or its id.")],
    data_dir: DataDir = None,
) -> None:
    """End a key, at once and for good."""
    from store import keys as stored
    from store.session import unit_of_work

    with _database(data_dir), unit_of_work() as session:
        row = stored.revoke(session, key.removesuffix("..."))
    typer.echo(f"revoked {row.prefix}... ('{row.name}')")


@contextmanager
def _database(data_dir: Path | None) -> Iterator[None]:
    """The tables that keys are in; what goes wrong becomes a message and an exit code."""
    from sqlalchemy.exc import SQLAlchemyError

    from store.errors import SchemaMismatchError, StoreError
    from store.session import check_schema, dispose, migrate
    from store.settings import checked, settings

    if data_dir is not None:
        os.environ["SKYLINE_DATA_DIR"] = str(data_dir.expanduser().absolute())
    checked()
    try:
        if settings().database_url.startswith("sqlite"):
            settings().data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            check_schema()
        except SchemaMismatchError as error:
            if error.found is not None or not settings().database_url.startswith("sqlite"):
                raise
            migrate()  # a folder that nothing has served yet: the first key comes before the first start
            typer.echo(f"note: a new database was made in {settings().data_dir}; no service has used it yet", err=True)
        yield
    except StoreError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or type(error).__name__
        typer.echo(f"error: the database of the service cannot be used: {cause}", err=True)
        raise typer.Exit(FAILED) from error
    finally:
        dispose()


def _as_json(row: ApiKey, at: datetime) -> dict[str, Any]:
    from store.keys import state

    moments = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "id": str(row.id),
        "prefix": row.prefix,
        "name": row.name,
        "scope": row.scope,
        "state": state(row, at),
        "requests_per_minute": row.requests_per_minute,
        "open_jobs": row.open_jobs,
        **{name: None if moment is None else moment.isoformat() for name, moment in moments.items()},
    }


def _day(moment: str | None) -> str:
    return "-" if moment is None else moment[:16].replace("T", " ")


def _emit(value: Any) -> None:
    from skyline.cli.output import emit

    emit(value)
