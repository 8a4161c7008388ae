"""Start the system under load: engines and roles, one process each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.runtime.broker.connection import Bus
from actors.runtime.store.state_store import StateStore
from cli.local.engines import NatsServer, RedisServer
from cli.local.processes import GOOD_END, Child, EngineProcess, RoleProcess
from cli.shared.live_actors import ask
from protocol.broker import subjects
from protocol.errors import RoleFailed
from protocol.messages.operator_requests import Drain

log = logging.getLogger("examwire.load")

RECORDED_SECONDS = 15.0
SOCKET_PORT = "EXAMWIRE_SOCKET__PORT"
POLL_SECONDS = 0.25


class Fleet:
    """Engines and roles as processes with their data in `directory`. `stop` ends them.

    `environment`: settings of the roles. `nats_url`, `redis_url`: use these engines instead of starting some.
    Without `servers` or without `managers` the others run alone, for measurements of one role.

    Example::

        fleet = Fleet(directory, {"EXAMWIRE_SECRET": secret}, servers=2)
        await fleet.start()
        print(fleet.socket_urls)
        await fleet.stop()
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *,
        servers: int = 1,
        managers: int = 1,
        nats_url: str | None = None,
        redis_url: str | None = None,
    ) -> None:
        self._directory = directory
        self._environment = dict(environment)
        self._server_count = servers
        self._manager_count = managers
        self._children: dict[str, list[Child]] = {}
        self.nats_url = nats_url or ""
        self.redis_url = redis_url or ""
        self.servers: list[RoleProcess] = []
        self.socket_urls: list[str] = []

    async def start(self) -> None:
        """Start all processes and return when every role is ready. Raises `RoleFailed`."""
        if not self.nats_url:
            nats = NatsServer(self._directory / "nats")
            await self._start("nats-server", EngineProcess(nats))
            self.nats_url = nats.url
        if not self.redis_url:
            redis = RedisServer(self._directory / "redis")
            await self._start("redis-server", EngineProcess(redis))
            self.redis_url = redis.url
        self._environment |= {
            "EXAMWIRE_NATS_URL": self.nats_url,
            "EXAMWIRE_REDIS_URL": self.redis_url,
            "EXAMWIRE_DATA_DIR": str(self._directory / "data"),
            SOCKET_PORT: "0",
        }
        await self._start("queue-server", self._role("queue-server", ["queue-server"]))
        managers = [self._role("state-manager", ["state-manager"]) for _ in range(self._manager_count)]
        await self._start("state-manager", *managers)
        self.servers = [
            self._role(name, ["socket-server", "--server-id", name], {"port": SOCKET_PORT})
            for name in (f"LOAD{number:03d}" for number in range(1, self._server_count + 1))
        ]
        await self._start("socket-server", *self.servers)
        self.socket_urls = [server.ready["url"] for server in self.servers]

    def _role(self, name: str, arguments: Sequence[str], ports: Mapping[str, str] | None = None) -> RoleProcess:
        return RoleProcess(name, [*arguments, "--log-level", "warning"], self._environment, ports)

    async def replace(self, server: RoleProcess, over_seconds: float, store: StateStore) -> None:
        """Drain a socket server, start it again on the same port, and wait until it is READY in Redis.

        Raises `RoleFailed`, also when the old process did not end cleanly.
        """
        bus = await Bus.connect(self.nats_url, "examwire load")
        try:
            await ask(bus, subjects.socket_server(server.name), Drain(over_seconds=over_seconds))
        finally:
            await bus.close()
        end = await server.ended()
        if end != GOOD_END:
            raise RoleFailed(f"{server.name} was drained and ended with {end}; its log is on stderr")
        await server.start()
        async with asyncio.timeout(RECORDED_SECONDS):
            while not await _is_ready(store, server.name):  # noqa: ASYNC110 - Redis is what is polled
                await asyncio.sleep(POLL_SECONDS)

    async def _start(self, role: str, *children: Child) -> None:
        self._children[role] = list(children)
        await asyncio.gather(*(child.start() for child in children))

    async def stop(self) -> None:
        """Kill all processes. Nothing is drained, because the data is deleted with them."""
        children = [child for group in reversed(self._children.values()) for child in group]
        for child in children:
            child.kill()
        for child in children:
            await child.stop()
        self._children.clear()

    def processes(self) -> dict[str, list[int]]:
        """Return the pids by role."""
        return {
            role: [child.pid for child in children if child.pid is not None]
            for role, children in self._children.items()
        }


async def _is_ready(store: StateStore, server_id: str) -> bool:
    return any(
        server["serverId"] == server_id and server.get("statusCode") == "READY" for server in await store.servers()
    )
