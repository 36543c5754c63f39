"""``python -m worker``: one Celery worker for one device."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from worker.identity import Identity, default_name
from worker.preflight import NotReadyError, wait_until_ready


def main(arguments: Sequence[str] | None = None) -> None:
    """Puts the options into the environment, where every process under this one reads them, and runs Celery."""
    default = Identity()
    parser = argparse.ArgumentParser(prog="python -m worker", description="A Skyline worker for one device.")
    parser.add_argument("--device", default=default.device, help="cpu or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=default.threads, help="torch threads (default: %(default)s)")
    parser.add_argument("--name", default=None, help="unique among all workers (default: HOST-DEVICE)")
    parser.add_argument("--queues", default=default.queues, help="comma-separated (default: all for the device)")
    given = parser.parse_args(arguments)
    if given.threads < 1:
        parser.error(f"--threads must be at least 1; got {given.threads}")
    name = given.name or os.environ.get("SKYLINE_WORKER_NAME") or default_name(given.device)
    os.environ.update(
        SKYLINE_WORKER_NAME=name,
        SKYLINE_WORKER_DEVICE=given.device,
        SKYLINE_WORKER_THREADS=str(given.threads),
        SKYLINE_WORKER_QUEUES=given.queues,
    )
    try:
        wait_until_ready()
    except NotReadyError as error:
        parser.exit(1, f"error: {error}\n")
    from worker.app import app

    identity = Identity()
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            "--concurrency=1",
            f"--hostname={identity.name}@%h",
            f"--queues={','.join(identity.queue_names)}",
            "--without-gossip",
            "--without-mingle",
            "--loglevel=WARNING",
        ]
    )


if __name__ == "__main__":
    main()
