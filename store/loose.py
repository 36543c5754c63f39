"""Files that no artefact answers for: on their way in, or on their way out.

A file and its row cannot change in one transaction. So a path is written down here before its file is stored, and
struck out by the transaction that adds the artefact; and it is written down again by the transaction that removes the
artefact, and struck out when the file is gone. Whatever dies in between leaves a line, and :func:`sweep` finds it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store import artefacts
from store.clock import now
from store.errors import ArtefactsAwayError
from store.models import LooseFile
from store.session import reading, unit_of_work

ARRIVAL_SECONDS = 86_400.0
"""How long a file may be on its way in; after that nobody is waiting for it."""
BATCH = 1000

log = logging.getLogger(__name__)


def announce(session: Session, path: str) -> None:
    """A file is about to be stored; unless :func:`settle` comes within a day, it goes again."""
    due = now(session) + timedelta(seconds=ARRIVAL_SECONDS)
    session.merge(LooseFile(path=path, due_at=due))
    session.flush()


def settle(session: Session, path: str) -> None:
    """The file has its artefact."""
    session.execute(delete(LooseFile).where(LooseFile.path == path).execution_options(synchronize_session=False))


def release(session: Session, paths: Iterable[str]) -> None:
    """The files have lost their artefacts: whoever commits this calls :func:`discard`, or :func:`sweep` will."""
    at = now(session)
    for path in sorted(set(paths)):
        session.merge(LooseFile(path=path, due_at=at))
    session.flush()


def discard(paths: Collection[str]) -> bool:
    """Removes files and their lines; False when the store is away, and all of it stays for the next sweep."""
    if not paths:
        return True
    ordered = sorted(paths)
    try:
        artefacts.files().delete(ordered)
    except ArtefactsAwayError as error:
        log.warning("%d artefact files are to be removed and stay for now: %s", len(ordered), error.why)
        return False
    with unit_of_work() as session:
        struck = delete(LooseFile).where(LooseFile.path.in_(ordered))
        session.execute(struck.execution_options(synchronize_session=False))
    return True


def sweep() -> int:
    """Removes what is due; returns how many files. Several may sweep at once."""
    total = 0
    while True:
        with reading() as session:
            due = select(LooseFile.path).where(LooseFile.due_at <= now(session)).order_by(LooseFile.path).limit(BATCH)
            paths = session.scalars(due).all()
        if not paths or not discard(paths):
            return total
        total += len(paths)
