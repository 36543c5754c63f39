"""Runs revisions on the connection that :func:`store.schema.migrate` hands over, or on one of its own for the
``alembic`` command of developers."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from store.engine import build_for_migration, parse_url
from store.models import Base, Utc
from store.schema import VERSION_TABLE


def _plain(kind: str, item: Any, autogenerate: Any) -> str | Literal[False]:
    """Revisions stand by themselves: they name SQLAlchemy's types, not ours."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Utc) else False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        render_item=_plain,
        compare_type=True,
        compare_server_default=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if context.is_offline_mode():
    raise SystemExit("run migrations on a database: SQLite's batch mode needs to look at the tables")
if given is not None:
    run(given)
else:
    with build_for_migration(parse_url()).begin() as own:
        run(own)
