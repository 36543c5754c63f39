"""``python -m worker``: one Celery worker for one device."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from nas_core.devices import cuda_number, pinned
from nas_core.errors import DeviceError
from store.settings import checked
from worker import threads
from worker.identity import Identity, default_name
from worker.inspection import inspect_host
from worker.plugins import VARIABLE
from worker.preflight import NotReadyError, wait_until_ready


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs Celery, when all that it needs is there."""
    prepare(arguments)
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


def prepare(arguments: Sequence[str] | None = None) -> None:
    """Puts the options into the environment, where every process under this one reads them; looks for the device, the
    database and the broker. Ends the program with a message when something is missing.
    """
    checked()
    parser = _parser(Identity())
    given = parser.parse_args(arguments)
    try:
        number = cuda_number(given.device)
        pinned(given.device, os.environ)
    except DeviceError as error:
        parser.error(str(error))
    device = "cpu" if number is None else f"cuda:{number}"
    name = given.name or os.environ.get("SKYLINE_WORKER_NAME") or default_name(device)
    os.environ.update(SKYLINE_WORKER_NAME=name, SKYLINE_WORKER_DEVICE=device, SKYLINE_WORKER_QUEUES=given.queues)
    if given.plugins:
        os.environ[VARIABLE] = ",".join(given.plugins)
    try:
        if number is not None:
            inspect_host()
        wait_until_ready()
    except DeviceError as error:
        parser.exit(2, f"error: {error}\n")
    except NotReadyError as error:
        parser.exit(1, f"error: {error}\n")
    os.environ["SKYLINE_WORKER_THREADS"] = str(_threads(given.threads, given.slots, name))


def _threads(wanted: int | None, slots: int | None, name: str) -> int:
    """As told, or this worker's share of the cores beside the workers that live on this host now."""
    others = threads.neighbours(name)
    if slots is None and wanted is None and os.environ.get("SKYLINE_WORKER_THREADS"):
        wanted = Identity().threads
    count = wanted or threads.shared_by(slots or len(others) + 1)
    if said := threads.remark(count, others):
        print(said, file=sys.stderr, flush=True)
    return count


def _parser(default: Identity) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description="A Skyline worker for one device.")
    parser.add_argument("--device", default=default.device, help="cpu or cuda:N (default: %(default)s)")
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--threads", type=_positive, help="torch threads (default: SKYLINE_WORKER_THREADS, or a share)")
    number.add_argument(
        "--slots", type=_positive, help="workers that share the cores of this host (default: those that live on it now)"
    )
    parser.add_argument("--name", default=None, help="unique among all workers (default: HOST-DEVICE)")
    parser.add_argument(
        "--queues", default=default.queues, help="comma-separated (default: all for the device); 'short': exports alone"
    )
    parser.add_argument(
        "--plugins",
        action="append",
        metavar="FILE[,FILE]",
        help=f"users' own code; may be repeated (default: {VARIABLE})",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is wanted; got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
