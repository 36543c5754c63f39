"""What workers can run and which of them live. Workers write it, so that the API never imports what it describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, delete, insert, select, tuple_, update
from sqlalchemy.orm import Session

from store.clock import now
from store.errors import SeveralHostsError
from store.models import CatalogRow, Worker

LIVE_SECONDS = 15
"""A worker unseen for longer counts as gone."""
CATALOG = cast(Table, CatalogRow.__table__)

Part = tuple[str, str]
"""A kind of catalog entry and a name: ``("objective", "error")``."""


def publish(session: Session, worker: Mapping[str, Any], publication: Mapping[str, Any]) -> None:
    """Registers a worker with all that it can run; what it published before and no longer has goes.

    ``worker`` has ``name``, ``host``, ``queues``; ``publication`` has ``entries`` (catalog entries), ``device``,
    ``threads``, ``memory_gb``, ``versions``. Raises SeveralHostsError where SQLite cannot serve it.
    """
    at = now(session)
    name, host = worker["name"], worker["host"]
    if session.get_bind().dialect.name == "sqlite":
        query = select(Worker.host).where(Worker.host != host, Worker.seen_at >= at - timedelta(seconds=LIVE_SECONDS))
        other = session.scalars(query.limit(1)).first()
        if other is not None:
            raise SeveralHostsError(host, other)
    row = {
        "name": name,
        "host": host,
        "queues": list(worker["queues"]),
        "device": publication["device"],
        "threads": publication["threads"],
        "memory_gb": publication["memory_gb"],
        "versions": dict(publication["versions"]),
        "draining": False,
        "started_at": at,
        "seen_at": at,
    }
    session.merge(Worker(**row))
    session.execute(delete(CatalogRow).where(CatalogRow.worker == name))
    rows = [
        {
            "kind": entry["kind"],
            "name": entry["name"],
            "worker": name,
            "entry": {**entry, "workers": {name: {}, **(entry.get("workers") or {})}},
            "published_at": at,
        }
        for entry in publication["entries"]
    ]
    if rows:
        session.execute(insert(CATALOG), rows)


def seen(session: Session, name: str) -> bool:
    """The worker's own heartbeat; False when it is not registered and has to publish again."""
    return _set(session, name, seen_at=now(session))


def drain(session: Session, name: str) -> bool:
    """Asks a worker to put back what it runs and to take no more."""
    return _set(session, name, draining=True)


def is_draining(session: Session, name: str) -> bool:
    """Whether the worker was asked to stop."""
    return bool(session.execute(select(Worker.draining).where(Worker.name == name)).scalar_one_or_none())


def retire(session: Session, name: str) -> None:
    """Strikes a worker that shut down cleanly off the list; what it published stays."""
    session.execute(delete(Worker).where(Worker.name == name).execution_options(synchronize_session=False))


def workers(session: Session) -> list[tuple[Worker, bool]]:
    """All workers by name, each with whether it lives."""
    since = now(session) - timedelta(seconds=LIVE_SECONDS)
    query = select(Worker).order_by(Worker.name).execution_options(populate_existing=True)
    return [(worker, worker.seen_at >= since) for worker in session.scalars(query)]


def entries(session: Session, kind: str | None = None) -> list[dict[str, Any]]:
    """Catalog entries by kind and name: the newest description, with the parts of all workers united."""
    query = select(CatalogRow.entry).order_by(CatalogRow.kind, CatalogRow.name, CatalogRow.published_at)
    if kind is not None:
        query = query.where(CatalogRow.kind == kind)
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in session.scalars(query):
        key = (entry["kind"], entry["name"])
        before = merged[key]["workers"] if key in merged else {}
        merged[key] = {**entry, "workers": {**before, **entry["workers"]}}
    return list(merged.values())


def published(session: Session, worker: str, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The entries of these parts as one worker described them; what it does not have is left out."""
    return list(session.scalars(select(CatalogRow.entry).where(CatalogRow.worker == worker, _of(parts))))


def lacking(session: Session, workers: Sequence[str], parts: Sequence[Part]) -> dict[str, list[Part]]:
    """By worker, which of the parts it has not published."""
    query = select(CatalogRow.worker, CatalogRow.kind, CatalogRow.name)
    rows = session.execute(query.where(CatalogRow.worker.in_(workers), _of(parts))) if parts and workers else ()
    there = {tuple(row) for row in rows}
    return {worker: [part for part in parts if (worker, *part) not in there] for worker in workers}


def withdraw(session: Session, worker: str, parts: Sequence[Part]) -> None:
    """Takes back what a worker published and turned out not to have, until it publishes again."""
    statement = delete(CatalogRow).where(CatalogRow.worker == worker, _of(parts))
    session.execute(statement.execution_options(synchronize_session=False))


def _of(parts: Sequence[Part]) -> ColumnElement[bool]:
    return tuple_(CatalogRow.kind, CatalogRow.name).in_(parts)


def _set(session: Session, name: str, **values: Any) -> bool:
    statement = update(Worker).where(Worker.name == name).values(values).returning(Worker.name)
    return session.execute(statement.execution_options(synchronize_session=False)).first() is not None
