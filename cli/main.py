"""The `examwire` command. Each command's module is imported when the command is used, so that all start quickly."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from actors.runtime.logs import configure_logging
from actors.runtime.masking import masked
from cli.output import exit_code_of
from protocol.errors import ExamwireError

# name -> where its Typer (a group) or its function (a command) is
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("cli.up", "up"),
    "run": ("cli.run", "app"),
    "simulate": ("cli.simulate", "app_command"),
    "load": ("cli.load", "app_command"),
    "token": ("cli.token", "token"),
    "plans": ("cli.plans", "app"),
    "actors": ("cli.actors", "app"),
    "sessions": ("cli.sessions", "app"),
    "queues": ("cli.queues", "app"),
    "streams": ("cli.streams", "app"),
    "dead-letters": ("cli.dead_letters", "app"),
    "examinees": ("cli.examinees", "app"),
    "state": ("cli.state", "app"),
    "nats": ("cli.nats", "app"),
    "spec": ("cli.spec", "app"),
    "config": ("cli.config", "app"),
    "doctor": ("cli.doctor", "doctor"),
    "version": ("cli.main", "version"),
}


class ExamwireGroup(TyperGroup):
    """The top level: commands by name, and every `ExamwireError` as one line on stderr and an exit code.

    Contexts and commands are `Any` here: typer brings its own click, whose classes are not public.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, attribute = place
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command = get_command(found)
        else:
            holder = typer.Typer(add_completion=False)
            holder.command(cmd_name)(found)
            command = get_command(holder)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ExamwireError as error:
            typer.echo(f"examwire: {masked(str(error))}", err=True)
            raise typer.Exit(exit_code_of(error)) from None


app = typer.Typer(
    cls=ExamwireGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def examwire() -> None:
    """The connection fabric of a live online exam: distributed actors on NATS JetStream, state in Redis.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 cannot reach, 5 degraded.
    """
    # A command says itself what went wrong. Roles, which log, configure it anew.
    if not logging.getLogger().handlers:
        configure_logging("cli", "examwire", "error")


def version() -> None:
    """Print the version of examwire."""
    from importlib.metadata import version as version_of

    typer.echo(version_of("examwire"))


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
