"""The ``skyline`` command. A module per subcommand; those that serve join by the entry points ``skyline.commands``.

Exit codes: 0 done, 1 the job failed, 2 usage (a request that the service refuses included), 3 no service,
4 no point meets the bound, 130 Ctrl-C.
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
from skyline.cli.front import front
from skyline.cli.job import job
from skyline.cli.jobs import jobs
from skyline.cli.log import log
from skyline.cli.pull import pull
from skyline.cli.retry import retry
from skyline.cli.submit import submit
from skyline.cli.watch import watch
from skyline.errors import ApiError, ClientError, ConnectionFailed

GROUP = "skyline.commands"
COMMANDS = (submit, watch, jobs, job, log, front, candidates, pull, cancel, retry, delete, catalog)
USAGE, NO_SERVER = 2, 3


class Group(TyperGroup):
    """Turns what the client raises into a message on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ClientError as error:
            typer.echo(f"error: {error}", err=True)
            down = isinstance(error, ConnectionFailed) or (isinstance(error, ApiError) and error.status >= 500)
            raise typer.Exit(NO_SERVER if down else USAGE) from error


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
    app.add_typer(datasets, name="datasets", rich_help_panel="With a service")
    return app


def main() -> None:
    build()(prog_name="skyline")
