"""`examwire run ROLE`: run one role as a process, as in production."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.config.settings import Settings, require_secret_beyond_loopback, unknown_variables
from actors.runtime.config.tls import check_tls
from actors.runtime.telemetry.logs import configure_logging
from actors.runtime.telemetry.tracing import configure_tracing, end_tracing
from cli.shared.options import takes_settings
from cli.shared.output import print_json
from protocol.ids import check_id, check_server_id

if TYPE_CHECKING:  # each role imports only its own modules
    from actors.runtime.actor.service import Service
    from actors.runtime.actor.supervisor import ChildSpec, Supervisor
    from actors.runtime.broker.connection import Bus
    from actors.runtime.store.state_store import StateStore

log = logging.getLogger("examwire.run")

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

ENGINES = ("nats_url", "redis_url", "data_dir", "metrics.host", "metrics.port")
LOGS = ("log.level", "log.format", "tracing.endpoint", "tracing.sample")
SOCKET_TLS = ("socket.certificate_file", "socket.key_file")
WEB_TLS = ("web.certificate_file", "web.key_file")
SERVER_SETTINGS = (
    "socket.ping_interval_seconds",
    "socket.ping_timeout_seconds",
    "reconnect.max_attempts",
    "reconnect.backoff_seconds",
    "reconnect.jitter",
    "mobile_sync.timeout_seconds",
    "server.lease_seconds",
)

# Roles that are not ready without Redis. The others continue to work.
NEEDS_REDIS = ("state-manager", "web-server")

CHECKS_TOKENS = ("socket-server", "web-server")

JsonOption = Annotated[bool, typer.Option("--json", help="Print the ready line, the first line on stdout, as JSON.")]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of this process, unique within its role. [default: random]"),
]


@app.callback()
def run() -> None:
    """Run one role as a process. SIGINT or SIGTERM drains it, a second signal ends it at once."""


@app.command("socket-server")
@takes_settings(
    *ENGINES,
    *LOGS,
    "socket.host",
    "socket.port",
    "socket.public_url",
    "web.public_url",
    *SOCKET_TLS,
    *SERVER_SETTINGS,
    "server.takeover",
)
def socket_server(
    settings: Settings,
    server_id: Annotated[
        str, typer.Option("--server-id", metavar="SERVER_ID", help="Its serverId, such as SOCK001.", show_default=False)
    ],
    json_ready: JsonOption = False,
) -> None:
    """Serve the WebSockets of examinees and proctors.

    Example: examwire run socket-server --server-id SOCK001 --socket-port 8001
    """
    check_server_id(server_id)
    check_tls("socket", settings.socket)
    require_secret_beyond_loopback(settings, "socket-server", settings.socket.host)

    from actors.runtime.actor.supervisor import ChildSpec
    from actors.socket_server.server import SocketServer

    def children(bus: Bus, store: StateStore) -> list[ChildSpec[Service]]:
        # "transient": a RoleFailed of the start-up sequence is final, as its steps were retried already.
        return [ChildSpec("socket-server", lambda: SocketServer(settings, bus, store, server_id), "transient")]

    def describe(supervisor: Supervisor) -> dict[str, Any]:
        server = supervisor.children["socket-server"]
        assert isinstance(server, SocketServer)
        return {"serverId": server.server_id, "url": server.url, "port": server.port}

    _run("socket-server", server_id, settings, children, describe, json_ready)


@app.command("state-manager")
@takes_settings(*ENGINES, *LOGS, "reconnect.max_attempts", "reconnect.backoff_seconds", "server.lease_seconds")
def state_manager(
    settings: Settings,
    name: NameOption = None,
    json_ready: JsonOption = False,
) -> None:
    """Apply the log to Redis and notify proctors.

    Also watches reconnect attempts and leases of servers. Several can run.
    """
    own_name = _name_of("state-manager", name)

    from actors.runtime.actor.supervisor import ChildSpec
    from actors.state_manager.manager import StateManager
    from actors.watches.dead_letter_watch import DeadLetterWatch
    from actors.watches.lease_watch import LeaseWatch
    from actors.watches.reconnect_watch import ReconnectWatch

    def children(bus: Bus, store: StateStore) -> list[ChildSpec[Service]]:
        return [
            ChildSpec("state-manager", lambda: StateManager(settings, bus, store, own_name)),
            ChildSpec("reconnect-watch", lambda: ReconnectWatch(settings, bus, store, own_name)),
            ChildSpec("lease-watch", lambda: LeaseWatch(settings, bus, store, own_name)),
            ChildSpec("advisory-watch", lambda: DeadLetterWatch(bus, own_name)),
        ]

    _run("state-manager", own_name, settings, children, lambda _: {"name": own_name}, json_ready)


@app.command("queue-server")
@takes_settings(
    *ENGINES,
    "nats.replicas",
    "nats.status_max_bytes",
    "retention.days",
    "captures.store",
    *LOGS,
    "reconnect.max_attempts",
    "reconnect.backoff_seconds",
    "server.lease_seconds",
)
def queue_server(
    settings: Settings,
    name: NameOption = None,
    json_ready: JsonOption = False,
) -> None:
    """Create streams, consumers and the queues of socket servers.

    Also deletes plans after `retention.days`. Several can run.
    """
    own_name = _name_of("queue-server", name)

    from actors.queue_server.server import QueueServer
    from actors.retention.retention import Retention
    from actors.runtime.actor.supervisor import ChildSpec

    def children(bus: Bus, store: StateStore) -> list[ChildSpec[Service]]:
        return [
            ChildSpec("queue-server", lambda: QueueServer(settings, bus, own_name, store)),
            ChildSpec("retention", lambda: Retention(settings, bus, store, own_name)),
        ]

    _run("queue-server", own_name, settings, children, lambda _: {"name": own_name}, json_ready)


@app.command("web-server")
@takes_settings(
    *ENGINES,
    *LOGS,
    "web.host",
    "web.port",
    "web.public_url",
    *WEB_TLS,
    "mobile_sync.max_bytes",
    "mobile_sync.timeout_seconds",
    "captures.store",
)
def web_server(settings: Settings, json_ready: JsonOption = False) -> None:
    """Serve the pages, and receive and serve pictures over HTTP.

    Example: examwire run web-server --web-host 127.0.0.1 --web-port 8080
    """
    check_tls("web", settings.web)
    require_secret_beyond_loopback(settings, "web-server", settings.web.host)

    from actors.runtime.actor.supervisor import ChildSpec
    from actors.web_server.server import WebServer

    def children(bus: Bus, store: StateStore) -> list[ChildSpec[Service]]:
        return [ChildSpec("web-server", lambda: WebServer(settings, bus, store))]

    def describe(supervisor: Supervisor) -> dict[str, str]:
        server = supervisor.children["web-server"]
        assert isinstance(server, WebServer)
        return {"url": server.url}

    _run("web-server", "web-server", settings, children, describe, json_ready)


def _name_of(role: str, name: str | None) -> str:
    return check_id("name", name) if name is not None else f"{role}-{secrets.token_hex(3)}"


def _run(
    role: str,
    name: str,
    settings: Settings,
    children: Callable[[Bus, StateStore], Sequence[ChildSpec[Service]]],
    describe: Callable[[Supervisor], Mapping[str, Any]],
    json_ready: bool,
) -> None:
    """Run the role and end the process. `describe` returns further fields of the ready line."""
    from actors.runtime.config.tokens import check_token_keys
    from actors.runtime.role.metrics_server import MetricsServer
    from actors.runtime.role.role import run_role

    host, port = settings.metrics.host, settings.metrics.port
    require_secret_beyond_loopback(settings, f"{role} metrics", host)
    check_token_keys(settings, needed=role in CHECKS_TOKENS)
    configure_logging(role, name, settings.log.level or "info", settings.log.format)
    for variable, meant in unknown_variables(os.environ).items():
        hint = f"; did you mean {meant}?" if meant else ""
        log.warning("%s: the variable %s is not a setting and has no effect%s", name, variable, hint)
    metrics = MetricsServer(role, host, port, needs_redis=role in NEEDS_REDIS)

    async def ready(supervisor: Supervisor) -> None:
        line = {"event": "ready", "role": role, **describe(supervisor), "metricsUrl": metrics.url}
        if json_ready:
            print_json(line, lines=True)
        else:
            process_name = role if name == role else f"{role} {name}"
            address = f" at {line['url']}" if "url" in line else ""
            print(f"{process_name} is ready{address}; metrics at {metrics.url}", flush=True)

    configure_tracing(settings.tracing, role, name)
    try:
        code = run_role(name, settings, children, ready, metrics)
    finally:
        end_tracing()
    raise typer.Exit(code)
