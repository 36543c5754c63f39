"""Before a worker starts: database, broker and artefact store answer, the tables are those of this version, and it can
write its logs and checkpoints.

Celery would try a dead broker for ever and say so in its own words; a keeper without tables would fail every round.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from store import artefacts, queue
from store.engine import shown_url
from store.errors import ArtefactUrlError, SchemaMismatchError
from store.session import check_schema
from store.settings import settings

PATIENCE_SECONDS = 30.0
"""Database, broker and worker may be started in any order."""
LOOK_SECONDS = 1.0


class NotReadyError(Exception):
    """What a worker needs is not there; the message says what came and what next."""


def wait_until_ready(patience: float = PATIENCE_SECONDS) -> None:
    """Returns when all is there; waits for what does not answer yet. Raises NotReadyError."""
    for folder, variable in (
        (settings().log_dir, "SKYLINE_LOG_DIR"),
        (settings().checkpoint_dir, "SKYLINE_CHECKPOINT_DIR"),
    ):
        if cause := _unwritable(folder):
            raise NotReadyError(
                f"nothing can be written in {folder}: {cause}\nnext: let this worker, or set {variable}"
            )
    deadline, told = time.monotonic() + patience, False
    while missing := database_trouble() or broker_trouble() or artefact_trouble():
        if time.monotonic() >= deadline:
            raise NotReadyError(missing)
        if not told:
            print(f"waiting at most {patience:g} s: {missing}", file=sys.stderr, flush=True)
            told = True
        time.sleep(LOOK_SECONDS)


def _unwritable(folder: Path) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        return error.strerror or str(error)
    return None


def database_trouble() -> str | None:
    """Why the database does not answer; None where it does. Raises NotReadyError where waiting would not help."""
    try:
        check_schema()
    except (SchemaMismatchError, ArgumentError) as error:
        raise NotReadyError(f"{error}\nnext: the database is the one that SKYLINE_DATABASE_URL names") from error
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        return (
            f"the database {shown_url()} does not answer: {cause}\n"
            "next: start it, or set SKYLINE_DATABASE_URL to the one of the service that this worker is for"
        )
    return None


def broker_trouble() -> str | None:
    """Why the broker does not answer; None where it does."""
    cause = queue.trouble()
    if cause is None:
        return None
    return f"{cause}\nnext: start it, or set SKYLINE_BROKER_URL to the one of the service that this worker is for"


def artefact_trouble() -> str | None:
    """Why artefacts cannot be stored; None where they can. Raises NotReadyError where waiting would not help."""
    try:
        cause = artefacts.trouble()
    except ArtefactUrlError as error:
        raise NotReadyError(str(error)) from None
    if cause is None:
        return None
    return (
        f"{cause}\nnext: let this worker write there (a store of objects: AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY), or set SKYLINE_ARTEFACT_URL"
    )
