"""`examwire up`: run the whole system, with its engines, on this machine."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.actor.supervisor import Intensity
from actors.runtime.config.settings import (
    Settings,
    load_settings,
    make_data_dir,
    require_secret_beyond_loopback,
    signs_elsewhere,
    variable_of,
)
from actors.runtime.config.tls import check_tls
from actors.runtime.telemetry.logs import Level, configure_logging
from cli.local.data_dir import DataDirLock
from cli.local.engines import NatsServer, RedisServer
from cli.local.page_links import access_notes, describe_links, page_bases, page_links
from cli.local.process_supervisor import END_SECONDS, ProcessSupervisor
from cli.local.processes import EngineProcess, RoleProcess
from cli.local.saved_ports import SavedPorts
from cli.run import ENGINES, LOGS, SERVER_SETTINGS, SOCKET_TLS, WEB_TLS, JsonOption
from cli.shared.invocation import own_command, with_data_dir
from cli.shared.options import flatten, takes_settings, to_environment
from cli.shared.output import ExitCode, print_json
from cli.shared.running_system import ISSUER_KEYS, READY_FILE, SECRET_FINGERPRINT, TOPOLOGY, TOPOLOGY_SETTINGS
from cli.shared.signing import secret_fingerprint
from protocol.errors import ConfigurationError, RoleFailed
from protocol.ids import check_id
from protocol.log.gap import LogGap

if TYPE_CHECKING:  # imported only with --tls
    from cli.local.trial_certificate import TrialCertificate

log = logging.getLogger("examwire.up")

SERVER_IDS = ("SOCK001", "SOCK002")
INTENSITY = Intensity(restarts=5, period=60.0, backoff=0.2, backoff_max=5.0)
TARGETS_FILE = "prometheus-targets.json"
PORTS_FILE = "ports.json"
_PORTS = {**dict.fromkeys(SERVER_IDS, "port"), "web-server": "url"}
"""The field of each role's ready line with its port. A socket server's URL may be that of a proxy."""

PortOption = Annotated[
    int, typer.Option(metavar="INTEGER", min=0, max=65535, help="Port of the embedded engine; 0 picks a free one.")
]


@takes_settings(
    *ENGINES,
    *LOGS,
    "socket.host",
    "socket.port",
    "web.host",
    "web.port",
    "web.public_url",
    *SOCKET_TLS,
    *WEB_TLS,
    "mobile_sync.max_bytes",
    "captures.store",
    "retention.days",
    *SERVER_SETTINGS,
)
def up(
    settings: Settings,
    given: dict[str, Any],
    plan: Annotated[str, typer.Option("--plan", help="The plan of the printed tokens.", metavar="PLAN_ID")] = "P001",
    nats_port: PortOption = 0,
    redis_port: PortOption = 0,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve TLS with a self-signed certificate, for trials with phones.")
    ] = False,
    json_ready: JsonOption = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C. A second Ctrl-C ends it at once.

    \b
    Examples:
      examwire up
      examwire up --tls --web-host 0.0.0.0 --socket-host 0.0.0.0

    Starts NATS and a Redis-protocol server (unless their URLs are given), the queue server, the state manager, the
    socket servers SOCK001 and SOCK002, and the web server. Each is a process that is restarted when it ends.

    Ports: --socket-port and --metrics-port count up from one server to the next. Ports that are not set are the same
    as before in this data directory, so that open pages can reconnect.

    Browsers give a phone's camera only to pages over TLS: --tls creates a certificate for this machine.
    """
    check_id("planId", plan)
    certificate = None
    if tls:
        from cli.local.trial_certificate import own_host_names, trial_certificate

        if settings.web.certificate_file or settings.socket.certificate_file:
            raise ConfigurationError("--tls creates a certificate, but web or socket has a certificate_file: use one")
        certificate = trial_certificate(settings.data_dir.absolute() / "tls", own_host_names())
        pair = (str(certificate.certificate_file), str(certificate.key_file))
        given |= dict(zip((*SOCKET_TLS, *WEB_TLS), pair * 2, strict=True))
        settings = load_settings(**given)
    require_secret_beyond_loopback(settings, "socket servers", settings.socket.host)
    require_secret_beyond_loopback(settings, "web-server", settings.web.host)
    require_secret_beyond_loopback(settings, "metrics", settings.metrics.host)
    from actors.runtime.config.tokens import check_token_keys

    check_token_keys(settings)
    check_tls("socket", settings.socket)
    check_tls("web", settings.web)
    make_data_dir(settings.data_dir)
    log_level = settings.log.level or "warning"
    configure_logging("up", "up", log_level, settings.log.format)
    system = LocalSystem(settings, given, plan, (nats_port, redis_port), log_level, certificate)
    try:
        raise typer.Exit(asyncio.run(system.run(json_ready)))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Of a write, whose error names no file.
        raise RoleFailed(f"the data directory {settings.data_dir} cannot be written: {error.strerror}") from None


class LocalSystem:
    """The processes and the data directory of one `examwire up`.

    Example::

        system = LocalSystem(settings, {}, "P001", (0, 0), "warning")
        exit_code = asyncio.run(system.run(json_ready=False))
    """

    def __init__(
        self,
        settings: Settings,
        given: Mapping[str, Any],
        plan: str,
        engine_ports: tuple[int, int],
        log_level: Level,
        certificate: TrialCertificate | None = None,
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.data_dir = settings.data_dir.absolute()
        self.engines: list[EngineProcess] = []
        self._engine_ports = engine_ports
        self._given = dict(given)
        self._saved_ports = SavedPorts(self.data_dir / PORTS_FILE)
        self._log_level = log_level
        self._gap: LogGap | None = None
        self._plans_whole: int | None = None
        self._certificate = certificate

    async def run(self, json_ready: bool) -> int:
        """Run until a signal and return 0. Raises `RoleFailed` when a process fails too often."""
        self._began = time.time()
        lock = DataDirLock(self.data_dir)
        self._remove_files()  # left by an `up` that was killed
        supervisor = ProcessSupervisor(INTENSITY, lock.record)
        stop = _on_signals(supervisor)
        stopping = asyncio.create_task(stop.wait())
        working = asyncio.create_task(self._work(supervisor, json_ready))
        try:
            await asyncio.wait({stopping, working}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
        finally:
            await cancel_tasks([stopping, working], END_SECONDS)
            self._remove_files()
            await supervisor.stop(*self._stop_order(supervisor))
            lock.release()
        return ExitCode.OK

    async def _work(self, supervisor: ProcessSupervisor, json_ready: bool) -> None:
        roles = await self._start(supervisor)
        await self._wait_until_recorded(roles)
        ready = self._ready_line(roles)
        self._saved_ports.save({name: roles[name].port_of(key) for name, key in _PORTS.items()})
        self._write(TARGETS_FILE, targets(roles), 0o644)  # Prometheus may run as another user
        token_source = (
            {ISSUER_KEYS: True}
            if signs_elsewhere(self.settings)
            else {SECRET_FINGERPRINT: secret_fingerprint(self.settings)}
        )
        values = flatten(self.settings.model_dump(mode="json"))
        topology = {name: values[name] for name in TOPOLOGY_SETTINGS}
        self._write(READY_FILE, {**ready, **token_source, TOPOLOGY: topology})
        if json_ready:
            print_json(ready, lines=True)
        else:
            print(self._description(ready), flush=True)
        await supervisor.wait()

    # -- starting and stopping -----------------------------------------------------------------------

    async def _start(self, supervisor: ProcessSupervisor) -> dict[str, RoleProcess]:
        nats_port, redis_port = self._engine_ports
        if "nats_url" not in self.settings.model_fields_set:
            self.engines.append(EngineProcess(NatsServer(self.data_dir / "nats", nats_port)))
        if "redis_url" not in self.settings.model_fields_set:
            self.engines.append(EngineProcess(RedisServer(self.data_dir / "redis", redis_port)))
        await supervisor.start(*self.engines)
        roles = self._roles()
        # The other roles read streams that the queue server creates.
        await supervisor.start(roles["queue-server"])
        await supervisor.start(*(role for name, role in roles.items() if name != "queue-server"))
        return roles

    def _roles(self) -> dict[str, RoleProcess]:
        addresses = {"nats_url": self.nats_url, "redis_url": self.redis_url, "data_dir": str(self.data_dir)}
        environment = to_environment({**self._given, **addresses})
        level = ["--log-level", self._log_level]
        commands = {
            "queue-server": ["queue-server", "--name", "queue-server", *level],
            "state-manager": ["state-manager", "--name", "state-manager", *level],
            **{server_id: ["socket-server", "--server-id", server_id, *level] for server_id in SERVER_IDS},
            "web-server": ["web-server", *level],
        }
        metrics_port = self.settings.metrics.port if "port" in self.settings.metrics.model_fields_set else None
        roles = {}
        for number, (name, command) in enumerate(commands.items()):
            role_environment = dict(environment)
            ports = {"metricsUrl": variable_of("metrics.port")}
            if metrics_port is not None:
                role_environment[variable_of("metrics.port")] = str(metrics_port and metrics_port + number)
            if name in SERVER_IDS:
                role_environment[variable_of("socket.port")] = str(self._socket_port(name))
                ports[_PORTS[name]] = variable_of("socket.port")
            elif name == "web-server":
                role_environment[variable_of("web.port")] = str(self._web_port())
                ports[_PORTS[name]] = variable_of("web.port")
            roles[name] = RoleProcess(name, command, role_environment, ports)
        return roles

    def _socket_port(self, server_id: str) -> int:
        sockets = self.settings.socket
        if sockets.port == 0:
            return self._saved_ports.get(server_id, sockets.host)
        return sockets.port + SERVER_IDS.index(server_id)

    def _web_port(self) -> int:
        web = self.settings.web
        return web.port or self._saved_ports.get("web-server", web.host)

    async def _wait_until_recorded(self, roles: Mapping[str, RoleProcess]) -> None:
        """Wait until both socket servers are READY in Redis, so that clients learn both addresses."""
        from cli.local.recorded_servers import RecordedServers

        recorded = RecordedServers(self.redis_url, self.settings.redis, self._began)
        await recorded.wait({(server_id, roles[server_id].ready["url"]) for server_id in SERVER_IDS})
        self._gap, self._plans_whole = recorded.gap, recorded.plans_whole

    def _stop_order(self, supervisor: ProcessSupervisor) -> list[list[Any]]:
        """Return the groups of processes in stop order: dependent roles first, engines last."""
        by_name = {child.name: child for child in supervisor.children}
        order = [["web-server"], list(SERVER_IDS), ["state-manager"], ["queue-server"]]
        groups = [[by_name[name] for name in names if name in by_name] for names in order]
        return [*groups, self.engines]

    # -- output --------------------------------------------------------------------------------------

    @property
    def nats_url(self) -> str:
        for process in self.engines:
            if isinstance(process.engine, NatsServer):
                return process.engine.url
        return self.settings.nats_url

    @property
    def redis_url(self) -> str:
        for process in self.engines:
            if isinstance(process.engine, RedisServer):
                return process.engine.url
        return self.settings.redis_url

    def _ready_line(self, roles: Mapping[str, RoleProcess]) -> dict[str, Any]:
        """Return the ready line that `--json` prints; programs depend on its fields."""
        web = roles["web-server"].ready
        web_url = web["url"]
        trial = {"certificateFile": str(self._certificate.certificate_file)} if self._certificate is not None else {}
        return {
            "event": "ready",
            "natsUrl": self.nats_url,
            "redisUrl": self.redis_url,
            "webUrl": web_url,
            "metricsUrl": web["metricsUrl"],
            "dataDir": str(self.data_dir),
            "socketServers": [{"serverId": name, "url": roles[name].ready["url"]} for name in SERVER_IDS],
            "planId": self.plan,
            "pages": page_links(page_bases(web_url, self.settings)[0], self.settings, self.plan),
            **trial,
            **({"logGap": self._gap.model_dump(by_alias=True)} if self._gap is not None else {}),
            **({"plansWhole": self._plans_whole} if self._plans_whole is not None else {}),
        }

    def _write(self, name: str, value: object, mode: int = 0o600) -> None:
        """Write JSON atomically; by default for the owner only, as an engine's URL may hold a password."""
        descriptor, temporary = tempfile.mkstemp(dir=self.data_dir, prefix=f".{name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            json.dump(value, file, indent=2)
        Path(temporary).replace(self.data_dir / name)

    def _remove_files(self) -> None:
        for name in (READY_FILE, TARGETS_FILE):
            (self.data_dir / name).unlink(missing_ok=True)

    def _description(self, ready: Mapping[str, Any]) -> str:
        """Return what people read: links, what a phone can reach, and commands. It fits 80 columns and 24 lines."""
        notes = []
        if self._plans_whole is not None:
            notes.append("Redis is still being repaired: plans that are not whole yet say so.")
        if self._gap is not None:
            notes.append(f"The log was older than Redis, and was mended: {self._gap}.")
        sockets = [server["url"] for server in ready["socketServers"]]
        bases = page_bases(ready["webUrl"], self.settings)
        command, data_dir = own_command(), with_data_dir(self.settings)
        lines = [
            "examwire is up. Ctrl-C stops it.",
            *notes,
            *describe_links(ready["pages"], self.plan, with_tokens=not signs_elsewhere(self.settings)),
            "",
            *access_notes(bases, self.settings, sockets, self._certificate, command),
            "",
            f"Try  {command} simulate{data_dir}",
            f"     {command} plans watch {self.plan}{data_dir}",
            f"All addresses are in {shlex.quote(str(self.settings.data_dir / READY_FILE))}",
        ]
        return "\n".join(lines)


def targets(roles: Mapping[str, RoleProcess]) -> list[dict[str, Any]]:
    """Return the metrics address of each role for Prometheus' `file_sd_configs`; `instance` is the process name."""
    return [
        {
            "targets": [urlsplit(role.ready["metricsUrl"]).netloc],
            "labels": {"role": role.ready["role"], "instance": name},
        }
        for name, role in roles.items()
    ]


def _on_signals(supervisor: ProcessSupervisor) -> asyncio.Event:
    """Return an event that the first SIGINT, SIGTERM or SIGHUP sets; a second one kills all processes and exits."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            log.error("stopped by force")
            supervisor.kill()
            os._exit(ExitCode.FAILED)
        if sys.stderr.isatty():  # only for people: in a log file, each line may have to be JSON
            print("examwire is stopping. Press Ctrl-C again to stop it by force.", file=sys.stderr)
        stop.set()

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signals.append(signal.SIGHUP)
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop
