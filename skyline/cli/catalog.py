"""``skyline catalog``."""

from __future__ import annotations

from skyline.cli.options import Json, Key, Url


def catalog(json: Json = False, url: Url = None, key: Key = None) -> None:
    """Show what live workers can run: spaces, algorithms, objectives, data sets, presets."""
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(url, key) as client:
        answer = client.catalog()
    if json:
        emit(as_json(answer))
        return
    from skyline.cli.tables import catalog_tables

    for table in catalog_tables(answer):
        console().print(table)
