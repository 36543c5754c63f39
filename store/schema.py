"""Brings a database to the tables that this version needs, and refuses to work on others."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from store.engine import build_for_migration, parse_url, shown_url
from store.errors import SchemaMismatchError

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "skyline_schema"
"""Our own: other tools that use Alembic may share the database."""
MIGRATION_LOCK = 7_595_446_353
"""Key of the PostgreSQL advisory lock that lets one process migrate at a time."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, from a checkout or an installed package alike."""
    from alembic.config import Config  # here and below: Alembic takes a while to import, and most never need it

    made = Config()
    made.set_main_option("script_location", str(files("migrations")))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def migrate(url: str | None = None, revision: str = "head") -> None:
    """Upgrades the database, in one transaction; builds a fresh one. Several processes may call it at once."""
    from alembic import command

    engine = build_for_migration(parse_url(url))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        command.upgrade(config(connection), revision)


def head() -> str:
    """The revision of the tables that this version needs."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(config()).get_current_head()
    assert found is not None, "migrations hold no revision"
    return found


def check_schema(url: str | None = None) -> None:
    """Raises SchemaMismatchError unless the tables are those of this version."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(config())
    wanted = script.get_current_head()
    assert wanted is not None, "migrations hold no revision"
    parsed = parse_url(url)
    with build_for_migration(parsed).connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = context.get_current_revision()
    if found != wanted:
        known = {revision.revision for revision in script.walk_revisions()}
        raise SchemaMismatchError(found, wanted, shown_url(parsed), newer=found is not None and found not in known)
