"""``skyline serve`` and ``skyline demo``; nothing heavy is imported before they run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from skyline.cli import options

if TYPE_CHECKING:
    from api.embedded import Embedded

FAILED, USAGE, INTERRUPTED = 1, 2, 130
CHECK_SECONDS = 0.5
DEMO_DIR = Path("~/.local/share/skyline-demo")

Host = Annotated[str, typer.Option(help="Address to listen at; any but this machine's own asks clients for keys.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of each worker.", show_default="cores divided by workers")
]


def serve(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            envvar="SKYLINE_DATA_DIR",
            help="Folder that holds everything.",
            show_default="~/.local/share/skyline",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8765,
    host: Host = "127.0.0.1",
    workers: Workers = 1,
    threads: Threads = None,
    plugins: options.Plugins = None,
) -> None:
    """Run the whole service here: broker, database, workers, API. Ctrl-C ends all of it."""
    from api.embedded import Embedded
    from store.settings import checked

    default = checked().data_dir
    folder = data_dir or default
    service = Embedded(folder, port, host, workers, threads, options.plugins(plugins))
    typer.echo(f"starting in {service.data_dir} ...", err=True)
    with running(service):
        for said in service.plugin_remarks():
            typer.echo(said, err=True)
        typer.echo(f"Skyline is ready at {service.url}")
        at = "" if service.url == "http://127.0.0.1:8765" else f" --url {service.url}"
        typer.echo(f"next: skyline submit examples/digits.yaml --watch{at}")
        if service.keys == "required":
            typer.echo(
                "clients need an API key (SKYLINE_API_KEY); 'skyline keys' makes, lists and revokes them", err=True
            )
        look_after(service)


def demo(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Folder that holds everything.")] = DEMO_DIR,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up afterwards, until Ctrl-C.")] = False,
) -> None:
    """Search on real digits here, from nothing to a table of trained networks, in a few minutes."""
    from api.demo import run
    from api.embedded import Embedded, cores
    from store.settings import checked

    checked()

    # networks this small gain nothing from a second thread: a second worker verifies beside the first
    service = Embedded(data_dir, port, workers=min(2, cores()))
    typer.echo(f"starting a service in {service.data_dir} ...")
    with running(service):
        succeeded = run(service, seed)
        if service.halt.is_set():
            raise typer.Exit(INTERRUPTED)
        if keep:
            typer.echo(f"the service stays up at {service.url}; Ctrl-C ends it")
            look_after(service)
    raise typer.Exit(0 if succeeded else FAILED)


def look_after(service: Embedded) -> None:
    """Until somebody asks to stop: workers that die are started again, and it is said so."""
    while not service.halt.wait(CHECK_SECONDS):
        for said in service.check():
            typer.echo(f"warning: {said}", err=True)


@contextmanager
def running(service: Embedded) -> Iterator[None]:
    """The service within; signals end it in good order, a second one at once; mishaps become messages, exit codes."""
    from api.embedded import FolderInUseError, KeysNeededError, PortError, StoppedError
    from api.processes import ServeError
    from store.errors import StoreError

    with stopping_by_signal(service.halt, service.hurry):
        try:
            with service:
                yield
        except StoppedError as error:
            raise typer.Exit(INTERRUPTED) from error
        except (FolderInUseError, KeysNeededError, PortError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(USAGE) from error
        except (ServeError, StoreError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(FAILED) from error


@contextmanager
def stopping_by_signal(halt: Event, hurry: Event) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal set ``halt``, a second one ``hurry``.

    An exception out of a signal handler could come between a process' start and its entry in the books. Where SIGHUP is
    ignored already (``nohup``), it stays so.
    """

    def note(number: int, frame: object) -> None:
        (hurry if halt.is_set() else halt).set()

    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, *hangup)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
