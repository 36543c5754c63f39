"""``skyline worker``: a worker of the service that the environment names; becomes ``python -m worker``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from skyline.cli import options


def worker(
    device: Annotated[str | None, typer.Option(help="cpu or cuda:N.", show_default="cpu")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Torch threads.", show_default="a share")] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Workers that share this host's cores.", show_default="those it runs now")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Unique among all workers.", show_default="host and device")] = None,
    queues: Annotated[str | None, typer.Option(help="Comma-separated.", show_default="all for the device")] = None,
    plugins: options.Plugins = None,
) -> None:
    """Run one more worker, for the database and broker that SKYLINE_* settings name.

    What is not given comes from SKYLINE_WORKER_DEVICE, _THREADS, _NAME and _QUEUES, and from SKYLINE_PLUGINS.
    """
    given = {"--device": device, "--threads": threads, "--slots": slots, "--name": name, "--queues": queues}
    given["--plugins"] = options.plugins(plugins)
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    root = str(Path(__file__).resolve().parent.parent)
    # -P: a folder 'worker' where the user happens to stand is not ours; so where ours is must be said
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    if Path(root).name != "site-packages":
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "worker", *words], env)
