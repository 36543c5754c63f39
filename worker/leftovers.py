"""What this host keeps of tasks, and for how long.

A file stays while its task is open. Afterwards

- a log stays for KEEP_SECONDS after its last line (the database has its beginning and end for as long as the job);
- a checkpoint goes, unless its task, candidate or job failed or was cancelled: then it stays for KEEP_SECONDS after it
  was written, and a retry within that time goes on from it.

Files of a task that is not there any more, because its job was deleted, go at once; so does the scratch folder of a
task that is over. Artefacts are no leftovers: :mod:`store.retention`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from store import tasks
from store.settings import settings

KEEP_SECONDS = 7 * 86_400.0
SCRATCH = ".scratch"
"""What the name of an attempt's scratch folder ends in; it begins with the task's id."""


def forget(session: Session) -> None:
    """Removes what is not to be kept any more."""
    checkpoints, passing = (_files(settings().checkpoint_dir, pattern) for pattern in ("*.pt*", f"*{SCRATCH}"))
    found = [*_files(settings().log_dir, "*.log"), *checkpoints, *passing]
    fates = tasks.fates(session, sorted({task_id for task_id, _ in found}))
    for task_id, path in found:
        fate = fates.get(task_id)
        if path.suffix == SCRATCH:
            if fate != "open":
                shutil.rmtree(path, ignore_errors=True)
            continue
        kept = fate == "failed" or (fate == "done" and path.suffix == ".log")
        with suppress(FileNotFoundError):  # another worker of this host was first
            if fate != "open" and not (kept and time.time() - path.stat().st_mtime < KEEP_SECONDS):
                path.unlink()


def _files(folder: Path, pattern: str) -> Iterator[tuple[UUID, Path]]:
    """Files of a folder that are named after a task."""
    for path in folder.glob(pattern):
        with suppress(ValueError):
            yield UUID(path.name.partition(".")[0]), path
