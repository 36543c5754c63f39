"""Engines: one per database and process, with the same promises on SQLite and PostgreSQL.

A writing transaction on SQLite takes the write lock at its start (BEGIN IMMEDIATE), so that it waits for its turn there
and never fails half-way; a reading one takes none. A reading transaction sees one moment and refuses writes on both.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from store.forks import ForkSafePool
from store.settings import settings

CONNECT_SECONDS = 10
"""How long a host that does not answer is waited for, unless the address says otherwise."""
SILENT_SECONDS = 60
"""How long PostgreSQL keeps a transaction, and its locks, for a client that says nothing: a host may be hung."""
BUSY_SECONDS = 10
"""How long a SQLite writer waits for the others."""

_engines: dict[tuple[URL, int], tuple[Engine, Engine]] = {}


def parse_url(url: str | URL | None = None) -> URL:
    """The database's address, default from the settings; ``postgresql://`` means psycopg 3."""
    parsed = make_url(url or settings().database_url)
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername in ("postgres", "postgresql") else parsed


def shown_url(url: str | URL | None = None) -> str:
    """The database's address fit to be told: without password, and without parameters, which may hold one."""
    return parse_url(url).set(query={}).render_as_string(hide_password=True)


def engine(url: str | None = None) -> Engine:
    """The engine for writing transactions, made on first use in each process: a forked child never shares a socket."""
    return _pair(url)[0]


def reading_engine(url: str | None = None) -> Engine:
    """The same pool for transactions that only read."""
    return _pair(url)[1]


def dispose() -> None:
    """Closes this process's idle connections; the next use opens new ones."""
    for key in [key for key in _engines if key[1] == os.getpid()]:
        _engines.pop(key)[0].dispose()


def build(url: URL, *, foreign_keys: bool = True, **options: Any) -> Engine:
    """A new engine. ``foreign_keys=False`` is for migrations, where SQLite rebuilds tables by dropping them."""
    serializer = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
    if url.get_backend_name() != "sqlite":
        reachable = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
        built = create_engine(url, connect_args=reachable, pool_pre_ping=True, json_serializer=serializer, **options)

        @event.listens_for(built, "connect")
        def _bound(connection: Any, entry: ConnectionPoolEntry) -> None:
            connection.execute(f"SET idle_in_transaction_session_timeout = '{SILENT_SECONDS}s'")
            connection.commit()

        return built
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    options = {"poolclass": ForkSafePool, **options}
    built = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, json_serializer=serializer, **options)

    @event.listens_for(built, "connect")
    def _prepare(connection: Any, entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"foreign_keys={'ON' if foreign_keys else 'OFF'}"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(built, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if reading else 'OFF'}")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return built


def build_for_migration(url: URL) -> Engine:
    """An engine that keeps no connection and, on SQLite, checks no foreign keys."""
    return build(url, foreign_keys=False, poolclass=NullPool)


def _pair(url: str | None) -> tuple[Engine, Engine]:
    key = (parse_url(url), os.getpid())
    found = _engines.get(key)
    if found is None:
        writing = build(key[0])
        if writing.dialect.name == "sqlite":
            reading = writing.execution_options(reading=True)
        else:
            reading = writing.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # Engines that were made before a fork stay in the dictionary, unused: collecting them in the child would
        # close sockets that belong to the parent.
        found = _engines.setdefault(key, (writing, reading))
    return found
