"""The tables' history (Alembic). ``store.session.migrate`` and ``python -m store.migrate`` apply it."""
