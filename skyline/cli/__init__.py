"""The ``skyline`` command. A module per subcommand; those that serve join by the entry points ``skyline.commands``.

Exit codes: 0 done, 1 the job failed (of ``gate`` also: has not ended), 2 usage (a request that the service refuses
included), 3 no service, 4 no point meets the bound, 130 Ctrl-C.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from skyline import __version__
from skyline.cli.cancel import cancel
from skyline.cli.candidates import candidates
from skyline.cli.catalog import catalog
from skyline.cli.datasets import datasets
from skyline.cli.delete import delete
from skyline.cli.devices import devices
from skyline.cli.estimate import estimate
from skyline.cli.front import front
from skyline.cli.gate import gate
from skyline.cli.job import job
from skyline.cli.jobs import jobs
from skyline.cli.log import log
from skyline.cli.pull import pull
from skyline.cli.retry import retry
from skyline.cli.submit import submit
from skyline.cli.value_tables import tables as tables_of_values
from skyline.cli.verify import verify
from skyline.cli.watch import watch
from skyline.errors import ApiError, ClientError, ConnectionFailed, NotSucceededError

GROUP = "skyline.commands"
COMMANDS = (
    estimate,
    submit,
    watch,
    jobs,
    job,
    log,
    front,
    gate,
    candidates,
    pull,
    verify,
    cancel,
    retry,
    delete,
    catalog,
)
FAILED, USAGE, NO_SERVER = 1, 2, 3


class Group(TyperGroup):
    """Turns what the client raises into a message on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ClientError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(_code(error)) from error


def _code(error: ClientError) -> int:
    if isinstance(error, ConnectionFailed) or (isinstance(error, ApiError) and error.status >= 500):
        return NO_SERVER
    return FAILED if isinstance(error, NotSucceededError) else USAGE


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


def build() -> typer.Typer:
    """The command with all subcommands that this installation has."""
    app = typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback(help="Multi-objective neural-architecture search: post a job, get a front of trained networks.")
    def root(
        version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version)] = False,
    ) -> None:
        pass

    for entry in entry_points(group=GROUP):
        try:
            command = entry.load()
        except ModuleNotFoundError:  # a client-only installation: the package that serves is not there
            continue
        if isinstance(command, typer.Typer):  # one that has subcommands of its own
            app.add_typer(command, name=entry.name, rich_help_panel="On this machine")
        else:
            app.command(entry.name, rich_help_panel="On this machine")(command)
    for command in COMMANDS:
        app.command(command.__name__, rich_help_panel="With a service")(command)
    for name, group in (("datasets", datasets), ("tables", tables_of_values), ("devices", devices)):
        app.add_typer(group, name=name, rich_help_panel="With a service")
    return app


def main() -> None:
    build()(prog_name="skyline")
