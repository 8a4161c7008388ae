"""Options of commands that take settings: a flag for each, read into the environment."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import BaseModel

from actors.runtime.config.settings import Settings, load_settings, variable_of
from cli.shared.running_system import READY_FILE, RunningSystem
from protocol.errors import BrokerUnavailable, StateUnavailable

FLAGS: dict[str, str] = {
    "nats_url": "Where NATS is.",
    "nats.replicas": "How many copies of each stream a cluster keeps: 1, 3 or 5.",
    "nats.status_max_bytes": "The most that the log of record holds, in bytes.",
    "redis_url": "Where Redis is.",
    "data_dir": "Where files go: pictures, the token secret, the embedded engines' data.",
    "socket.host": "Where a socket server listens.",
    "socket.port": "The port it listens on; 0 picks a free one.",
    "socket.public_url": "The ws(s):// address given to clients, when it is not the listening one.",
    "socket.certificate_file": "Serve TLS (wss://) with this certificate chain.",
    "socket.key_file": "The certificate's private key.",
    "socket.ping_interval_seconds": "How long a socket may be silent before it is pinged.",
    "socket.ping_timeout_seconds": "How long a ping may stay unanswered.",
    "reconnect.max_attempts": "How many attempts to come back an examinee has.",
    "reconnect.backoff_seconds": "The seconds of each attempt, such as 5,10,20.",
    "reconnect.jitter": "The share of the backoff that is left to chance, 0 to 1.",
    "mobile_sync.timeout_seconds": "How long the mobile sync stage lasts.",
    "mobile_sync.max_bytes": "The largest picture.",
    "server.lease_seconds": "How long after its last heartbeat a server counts as lost.",
    "server.takeover": "false: leave the serverId to a process that is alive, and end with exit code 6.",
    "web.host": "Where the web server listens.",
    "web.port": "The port it listens on; 0 picks a free one.",
    "web.public_url": "The http(s):// address of the pages, when it is not the listening one.",
    "web.certificate_file": "Serve TLS (https://) with this certificate chain.",
    "web.key_file": "The certificate's private key.",
    "captures.store": "Where pictures are kept: directory (data_dir/captures), or nats for several web servers.",
    "metrics.host": "Where a process serves its /metrics, /healthz and /readyz.",
    "metrics.port": "The port it serves them on; 0 picks a free one.",
    "log.level": "What is logged to stderr: debug, info, warning or error.",
    "log.format": "Lines for people (text), or one JSON object a line (json).",
    "tracing.endpoint": "Send traces to this OTLP/HTTP collector.",
    "tracing.sample": "The share of what happens that is traced, 0 to 1.",
}
"""The settings that have a flag, and its help. The flag's name is the setting's, with dashes."""


class NoRunningSystem(BrokerUnavailable):
    """An engine cannot be reached, nobody has said where it is, and no `examwire up` has left word of it here."""


def flag_of(setting: str) -> str:
    """`socket.public_url` -> `--socket-public-url`."""
    return "--" + setting.replace(".", "-").replace("_", "-")


def takes_settings(*names: str, running: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each of the settings `names`, and the loaded tree as its argument `settings`.

    A command with an argument `given` gets the flags' values by setting as well (or instead). `running`: where the
    engines were not told, those of the `examwire up` on the data directory are taken, and when these cannot be reached
    it ends as `NoRunningSystem`. A value that does not fit ends as `ConfigurationError` naming the setting.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        flags = {name.replace(".", "_"): name for name in names}

        @functools.wraps(command)
        def with_settings(**arguments: Any) -> None:
            given = {
                setting: _parse_flag(setting, value)
                for parameter, setting in flags.items()
                if (value := arguments.pop(parameter)) is not None
            }
            if wants_given:
                arguments["given"] = given
            if not wants_settings:
                command(**arguments)
                return
            settings = load_settings(**given)
            arguments["settings"] = with_running_engines(settings) if running else settings
            try:
                command(**arguments)
            except (BrokerUnavailable, StateUnavailable) as error:
                engine = "redis_url" if isinstance(error, StateUnavailable) else "nats_url"
                path = settings.data_dir / READY_FILE
                if not running or engine in settings.model_fields_set or path.is_file():
                    raise
                raise NoRunningSystem(
                    f"{str(error).rstrip('.')}; no `examwire up` runs on {settings.data_dir} (there is no {path}): "
                    f"say --data-dir of the one that runs, or {flag_of(engine)}"
                ) from error

        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name not in ("settings", "given")
        ]
        wants_given, wants_settings = "given" in hints, "settings" in hints
        added = [
            inspect.Parameter(
                parameter,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    str | None, typer.Option(flag_of(setting), help=_help_text(setting), metavar=_metavar_of(setting))
                ],
            )
            for parameter, setting in flags.items()
        ]
        parameters = [*own, *added]
        # What typer reads: the flags in place of `settings`.
        vars(with_settings)["__signature__"] = inspect.Signature(parameters)
        with_settings.__annotations__ = {one.name: one.annotation for one in parameters}
        del vars(with_settings)["__wrapped__"]
        return with_settings

    return decorate


def _type_and_default(setting: str) -> tuple[Any, Any]:
    """The type and the default of a setting."""
    model: type[BaseModel] = Settings
    *sections, last = setting.split(".")
    for section in sections:
        nested = model.model_fields[section].annotation
        assert isinstance(nested, type)
        assert issubclass(nested, BaseModel)
        model = nested
    field = model.model_fields[last]
    return field.annotation, field.default


def _is_list(setting: str) -> bool:
    return isinstance(_type_and_default(setting)[1], list)


def _metavar_of(setting: str) -> str:
    if setting.endswith("_url"):
        return "URL"
    kind = _type_and_default(setting)[0]
    if setting.endswith("_file"):
        return "PATH"
    return "LIST" if _is_list(setting) else {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _help_text(setting: str) -> str:
    default = _type_and_default(setting)[1]
    shown = ",".join(f"{one:g}" for one in default) if isinstance(default, list) else default
    return FLAGS[setting] + (f" [default: {shown}]" if default is not None else "")


def _parse_flag(setting: str, text: str) -> Any:
    if not _is_list(setting):
        return text
    return [part.strip() for part in text.strip("[] ").split(",") if part.strip()]


def to_environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as variables for a child process."""
    return {
        variable_of(setting): json.dumps(value) if isinstance(value, list) else str(value)
        for setting, value in values.items()
    }


def with_running_engines(settings: Settings) -> Settings:
    """The settings with the engines of the `examwire up` on this data directory, where they were not told.

    Of its own engine the streams and consumers are as it was told to make them: where this command was told nothing
    else, that is what they should be. By the defaults a short ladder would look like a mistake, to be undone mid-exam.
    """
    untold = {"nats_url", "redis_url"} - settings.model_fields_set
    running = RunningSystem.on(settings.data_dir) if untold else None
    if running is None:
        return settings
    found = {"nats_url": running.nats_url, "redis_url": running.redis_url}
    settings = settings.model_copy(update={name: found[name] for name in untold})
    if settings.nats_url == running.nats_url:
        for name, value in running.topology.items():
            section, _, field = name.partition(".")
            told = getattr(settings, section)
            # Which fields of a section were set cannot be asked for: one that was makes all of them count as set.
            if getattr(told, field) == type(told).model_fields[field].get_default(call_default_factory=True):
                settings = settings.model_copy(update={section: told.model_copy(update={field: value})})
    return settings


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names of a tree of mappings."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
