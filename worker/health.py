"""``python -m worker.health``: exit code 0 when this host's worker lives, 1 when not; for containers' health checks.

It looks at the worker's own row, which the worker renews every few seconds. So it sees a process that is gone or hangs,
and also a database that is away: let it mark a worker, not kill one whose training goes on without the database.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from store import catalog
from store.session import now, reading
from worker.identity import Identity


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.health", description="Whether a worker lives.")
    parser.add_argument("--name", default=Identity().name, help="the worker's name (default: %(default)s)")
    name: str = parser.parse_args(arguments).name
    alive, said = look(name)
    print(said, file=sys.stdout if alive else sys.stderr)
    return 0 if alive else 1


def look(name: str) -> tuple[bool, str]:
    """Whether the worker of this name lives, and a sentence about it."""
    try:
        with reading() as session:
            known = {worker.name: (worker, live) for worker, live in catalog.workers(session)}
            at = now(session)
    except SQLAlchemyError as error:
        return False, f"worker {name}: unknown, the database does not answer: {getattr(error, 'orig', None) or error}"
    if name not in known:
        return False, f"no worker '{name}' is registered; known: {', '.join(known) or 'none'}"
    worker, live = known[name]
    ago = (at - worker.seen_at).total_seconds()
    return live, f"worker {name} was seen {ago:.1f} s ago{'' if live else f', more than {catalog.LIVE_SECONDS} s'}"


if __name__ == "__main__":
    sys.exit(main())
