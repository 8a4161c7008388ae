"""The `examwire` command. A command's module is imported only when the command is used, so that it starts quickly."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from actors.runtime.config.masking import masked
from actors.runtime.telemetry.logs import configure_logging, logs_json
from cli.shared.invocation import check_arguments
from cli.shared.output import ExitCode, exit_code_of, say
from cli.shared.streams import OutputClosed, OutputFailed, prepare_streams
from protocol.access.roster_file import InvalidRoster
from protocol.errors import ConfigurationError, ExamwireError

log = logging.getLogger("examwire")

CommandLocation = tuple[str, str]
"""Module and attribute of a command's function, or of a Typer with all commands of a group."""


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """A group with commands in several modules: `help` of the group, and where each command is defined."""

    help: str
    commands: Mapping[str, CommandLocation]


COMMANDS: dict[str, CommandLocation | CommandGroup] = {
    "up": ("cli.local.up", "up"),
    "run": ("cli.run", "app"),
    "simulate": ("cli.simulate.simulate", "simulate_command"),
    "load": ("cli.load.load", "load"),
    "token": ("cli.token", "token"),
    "plans": CommandGroup(
        "Exam plans: create, schedule, show, history, report.",
        {
            "ls": ("cli.plans.plans", "list_plans"),
            "show": ("cli.plans.plans", "show_plan"),
            "watch": ("cli.plans.plans", "watch_plan"),
            "create": ("cli.plans.create", "create"),
            "roster": ("cli.plans.create", "show_roster"),
            "schedule": ("cli.plans.schedule", "schedule"),
            "open": ("cli.plans.schedule", "open_plan"),
            "close": ("cli.plans.schedule", "close"),
            "finish": ("cli.plans.finishing", "finish"),
            "resume": ("cli.plans.finishing", "resume"),
            "extend": ("cli.plans.finishing", "extend"),
            "timeline": ("cli.plans.timeline", "timeline"),
            "report": ("cli.plans.report", "report"),
            "archive": ("cli.plans.archive", "archive"),
            "purge": ("cli.plans.purge", "purge_plan"),
        },
    ),
    "actors": CommandGroup(
        "The running actors: list, show, watch, drain and stop them.",
        {
            "ls": ("cli.operate.actors", "list_actors"),
            "show": ("cli.operate.actors", "show_actor"),
            "top": ("cli.operate.top", "top"),
            "tail": ("cli.operate.tail", "tail"),
            "drain": ("cli.operate.drain_and_stop", "drain"),
            "stop": ("cli.operate.drain_and_stop", "stop"),
        },
    ),
    "sessions": ("cli.operate.sessions", "app"),
    "queues": ("cli.operate.queues", "app"),
    "streams": ("cli.operate.streams", "app"),
    "dead-letters": ("cli.operate.dead_letters", "app"),
    "examinees": CommandGroup(
        "Examinees: explain, readmit, remove, message, finish.",
        {
            "show": ("cli.examinees.show", "show_examinee"),
            "readmit": ("cli.examinees.admission", "readmit"),
            "remove": ("cli.examinees.admission", "remove"),
            "notify": ("cli.examinees.notify", "notify"),
            "finish": ("cli.plans.finishing", "finish"),
            "resume": ("cli.plans.finishing", "resume"),
            "purge": ("cli.plans.purge", "purge_examinee"),
        },
    ),
    "state": ("cli.operate.state", "app"),
    "nats": ("cli.operate.nats_permissions", "app"),
    "spec": ("cli.spec", "app"),
    "config": ("cli.check.config", "app"),
    "doctor": ("cli.check.doctor", "doctor"),
    "backup": ("cli.backup.backup", "backup"),
    "restore": ("cli.backup.restore", "restore"),
    "version": ("cli.main", "version"),
}


ALIASES = {"list": "ls"}
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class AliasGroup(TyperGroup):
    """A command group that knows other words for its commands: `examwire plans list`.

    Contexts and commands are `Any`: typer bundles click without making its classes public.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, ALIASES.get(cmd_name, ""))


class LazyCommands(Mapping[str, Any]):
    """The commands of a group by name. A command's module is imported when the command is taken out."""

    def __init__(self, places: Mapping[str, CommandLocation | CommandGroup]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, name: str) -> Any:
        place = self.places[name]
        if isinstance(place, CommandGroup):
            group = AliasGroup(name=name, help=place.help, no_args_is_help=True, rich_markup_mode=None)
            group.commands = LazyCommands(place.commands)  # type: ignore[assignment]  # typer only reads it
            return group
        module, attribute = place
        loaded = getattr(import_module(module), attribute)
        command: Any
        if isinstance(loaded, typer.Typer):
            loaded.info.cls = AliasGroup
            command = get_group(loaded)
        else:
            holder = typer.Typer(add_completion=False, rich_markup_mode=None)
            holder.command(name)(loaded)
            command = get_command(holder)
        command.name = name
        return command


class ExamwireGroup(AliasGroup):
    """The top-level group: prints an `ExamwireError` as one line on stderr and ends with its exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands(COMMANDS)  # type: ignore[assignment]  # typer only reads it

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OutputClosed:
            raise
        except ExamwireError as error:
            _say_error(error)
            raise typer.Exit(exit_code_of(error)) from None
        except OSError as error:
            # Of a file or a socket that no command has expected: the disk is full, a directory may not be written.
            log.debug("the command ends", exc_info=True)
            _say_error(error)
            raise typer.Exit(ExitCode.FAILED) from None


app = typer.Typer(
    cls=ExamwireGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def examwire(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """The connection fabric of live online exams: distributed actors on NATS JetStream, state in Redis.

    To try it: `examwire up`, then `examwire simulate` in another terminal.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 cannot reach, 5 degraded, 6 another process has this serverId.
    """
    # Commands print their own errors. Roles configure logging again.
    if not logging.getLogger().handlers:
        configure_logging("cli", "examwire", "error")


def _say_error(error: Exception) -> None:
    # Errors of rosters and settings have several lines of our own. Line breaks in other errors are escaped.
    several = isinstance(error, InvalidRoster | ConfigurationError)
    text = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    if logs_json():
        log.error("%s", text)
    else:
        say(f"examwire: {masked(text)}", err=True, lines=several)


def version() -> None:
    """Print the version of examwire."""
    from importlib.metadata import version as version_of

    say(version_of("examwire"))


def main() -> None:
    """Run the console script."""
    # Imported modules stay in memory: collecting garbage while importing finds nothing and costs a tenth of the start.
    gc.set_threshold(50_000, 20, 1000)
    prepare_streams()
    try:
        check_arguments(sys.argv[1:])
        try:
            app()
        finally:
            sys.stdout.flush()
    except OutputClosed:
        sys.exit(ExitCode.OK)
    except ConfigurationError as error:
        _say_error(error)
        sys.exit(ExitCode.USAGE)
    except (OutputFailed, OSError) as error:  # of a help text
        _say_error(error)
        sys.exit(ExitCode.FAILED)


if __name__ == "__main__":
    main()
