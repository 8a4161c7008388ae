"""Command-line flags for settings: `takes_settings` adds them to a command and loads the settings."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import BaseModel

from actors.runtime.config.settings import Settings, load_settings, variable_of
from actors.runtime.telemetry.logs import configure_logging
from cli.shared.running_system import READY_FILE, RunningSystem
from protocol.errors import BrokerUnavailable, StateUnavailable

FLAGS: dict[str, str] = {
    "nats_url": "The address of NATS.",
    "nats.replicas": "Copies of each stream in a cluster: 1, 3 or 5.",
    "nats.status_max_bytes": "Maximum size of the log of record, in bytes.",
    "retention.days": "Delete a closed plan after this many days; 0: never.",
    "redis_url": "The address of Redis.",
    "data_dir": "Directory for pictures, the token secret and the data of the embedded engines.",
    "socket.host": "Host that the socket servers listen on.",
    "socket.port": "Port that a socket server listens on; 0 picks a free one.",
    "socket.public_url": "The ws(s):// address for clients, if it differs from the listening address.",
    "socket.certificate_file": "Serve TLS (wss://) with this certificate chain (PEM).",
    "socket.key_file": "Private key of the certificate (PEM).",
    "socket.ping_interval_seconds": "Ping a socket that was silent for this long.",
    "socket.ping_timeout_seconds": "Close a socket whose ping is not answered within this time.",
    "reconnect.max_attempts": "Number of reconnect attempts of an examinee.",
    "reconnect.backoff_seconds": "Seconds of each attempt, such as 5,10,20.",
    "reconnect.jitter": "Random share of the backoff, 0 to 1.",
    "mobile_sync.timeout_seconds": "Duration of the mobile sync stage.",
    "mobile_sync.max_bytes": "Maximum size of a picture, in bytes.",
    "server.lease_seconds": "A server counts as lost this long after its last heartbeat.",
    "server.takeover": "false: do not take the serverId over from a running process; end with exit code 6.",
    "web.host": "Host that the web server listens on.",
    "web.port": "Port that the web server listens on; 0 picks a free one.",
    "web.public_url": "The http(s):// address of the pages, if it differs from the listening address.",
    "web.certificate_file": "Serve TLS (https://) with this certificate chain (PEM).",
    "web.key_file": "Private key of the certificate (PEM).",
    "captures.store": "Store of the pictures: directory (data_dir/captures), or nats for several web servers.",
    "metrics.host": "Host that /metrics, /healthz and /readyz are served on.",
    "metrics.port": "Port that they are served on; 0 picks a free one.",
    "log.level": "Log level for stderr: debug, info, warning or error.",
    "log.format": "Log lines as text, or as one JSON object a line (json).",
    "tracing.endpoint": "Send traces to this OTLP/HTTP collector.",
    "tracing.sample": "Share of the traces that are sent, 0 to 1.",
}
"""Settings that have a flag, each with its help text. `socket.host` has the flag `--socket-host`."""


class NoRunningSystem(BrokerUnavailable):
    """An engine cannot be reached, its URL is not set, and no `examwire up` runs on the data directory."""


def flag_of(setting: str) -> str:
    """Return the flag of a setting: `socket.public_url` -> `--socket-public-url`."""
    return "--" + setting.replace(".", "-").replace("_", "-")


def takes_settings(*names: str, running: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with a flag for each setting in `names`, and pass the loaded settings as `settings`.

    Example::

        @takes_settings("nats_url", "data_dir", running=True)
        def list_actors(settings: Settings, limit: int = 50) -> None: ...

    A command with a parameter `given` gets the values of the flags by setting name, too (or instead). `running`: an
    engine URL that is not set is taken from the `examwire up` on the data directory; without one, an unreachable
    engine raises `NoRunningSystem`. An invalid value raises `ConfigurationError` naming the setting.
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
            if "log.format" in names:  # also what is wrong with the settings is one object a line
                log_early(given.get("log.format", os.environ.get(variable_of("log.format"))))
            if not wants_settings:
                command(**arguments)
                return
            settings = load_settings(**given)
            if "log.format" in names:
                log_early(settings.log.format)
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
                    f"give the --data-dir of a running system, or {flag_of(engine)}"
                ) from error

        def log_early(form: str | None) -> None:
            if form == "json":
                role = command.__name__.replace("_", "-")
                configure_logging(role, role, "info", "json")

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
        # typer reads the signature: it has the flags instead of `settings`.
        vars(with_settings)["__signature__"] = inspect.Signature(parameters)
        with_settings.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del vars(with_settings)["__wrapped__"]
        return with_settings

    return decorate


def _type_and_default(setting: str) -> tuple[Any, Any]:
    """Return the type and the default value of a setting."""
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
    """Return the placeholder of a flag's value in the help, such as URL or INTEGER."""
    if setting.endswith("_url"):
        return "URL"
    kind = _type_and_default(setting)[0]
    if setting.endswith("_file"):
        return "PATH"
    return "LIST" if _is_list(setting) else {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _help_text(setting: str) -> str:
    """Return the help of a flag with the default value."""
    default = _type_and_default(setting)[1]
    default_text = default
    if isinstance(default, list):
        default_text = ",".join(f"{number:g}" for number in default)
    elif isinstance(default, bool):
        default_text = str(default).lower()
    return FLAGS[setting] + (f" [default: {default_text}]" if default is not None else "")


def _parse_flag(setting: str, text: str) -> Any:
    """Split the value of a list setting at commas; return other values unchanged for pydantic."""
    if not _is_list(setting):
        return text
    return [part.strip() for part in text.strip("[] ").split(",") if part.strip()]


def to_environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as environment variables for a child process."""
    return {
        variable_of(setting): json.dumps(value) if isinstance(value, list) else str(value)
        for setting, value in values.items()
    }


def with_running_engines(settings: Settings) -> Settings:
    """Fill in engine URLs that are not set from the `examwire up` on the data directory.

    If NATS is the one of that system, its topology settings are taken over, too, unless they are set. Otherwise
    `streams diff` would compare with the defaults, and `streams apply` would undo that system's flags in mid-exam.
    """
    unset_urls = {"nats_url", "redis_url"} - settings.model_fields_set
    running = RunningSystem.find(settings.data_dir) if unset_urls else None
    if running is None:
        return settings
    running_urls = {"nats_url": running.nats_url, "redis_url": running.redis_url}
    settings = settings.model_copy(update={name: running_urls[name] for name in unset_urls})
    if settings.nats_url == running.nats_url:
        for name, value in running.topology.items():
            section, _, field = name.partition(".")
            section_settings = getattr(settings, section)
            # pydantic cannot tell which fields of a section were set, so a value that differs from the default counts.
            if getattr(section_settings, field) == type(section_settings).model_fields[field].get_default(
                call_default_factory=True
            ):
                settings = settings.model_copy(update={section: section_settings.model_copy(update={field: value})})
    return settings


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted names: `{"socket": {"port": 1}}` -> `{"socket.port": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
