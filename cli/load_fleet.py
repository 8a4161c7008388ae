"""What is loaded and what loads it: engines and roles, a process each, their cost, and the load's own processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from actors.runtime.bus import Bus
from actors.runtime.state_store import StateStore
from cli.children import GOOD_END, Child, EngineProcess, RoleProcess
from cli.engines import NatsServer, RedisServer
from cli.live import ask
from protocol import subjects
from protocol.control import Drain
from protocol.errors import RoleFailed

log = logging.getLogger("examwire.load")

READY_SECONDS = 60.0
RECORDED_SECONDS = 15.0
SOCKET_PORT = "EXAMWIRE_SOCKET__PORT"
SETTLE_SECONDS = 5.0
SETTLE_STEP_SECONDS = 0.25
SETTLED_SHARE = 0.002


class Fleet:
    """Engines and one process a role in `directory`, ended by `stop`.

    `environment`: settings of the roles. With `nats_url` and `redis_url`, engines that run already.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *,
        servers: int = 1,
        nats_url: str | None = None,
        redis_url: str | None = None,
    ) -> None:
        self._directory = directory
        self._environment = dict(environment)
        self._server_count = servers
        self._children: dict[str, list[Child]] = {}
        self.nats_url = nats_url or ""
        self.redis_url = redis_url or ""
        self.servers: list[RoleProcess] = []
        self.socket_urls: list[str] = []

    async def start(self) -> None:
        """Return when every role is ready. Raises `RoleFailed`."""
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
        await self._start("state-manager", self._role("state-manager", ["state-manager"]))
        self.servers = [
            self._role(f"LOAD{number:03d}", ["socket-server", "--server-id", f"LOAD{number:03d}"], {"url": SOCKET_PORT})
            for number in range(1, self._server_count + 1)
        ]
        await self._start("socket-server", *self.servers)
        self.socket_urls = [server.ready["url"] for server in self.servers]

    def _role(self, name: str, arguments: Sequence[str], ports: Mapping[str, str] | None = None) -> RoleProcess:
        return RoleProcess(name, [*arguments, "--log-level", "warning"], self._environment, ports)

    async def renew(self, server: RoleProcess, over_seconds: float, store: StateStore) -> None:
        """Drain a socket server and start its successor on the same port; returns when Redis says READY of that.

        Raises `RoleFailed`, also when the old process did not end in good order.
        """
        bus = await Bus.connect(self.nats_url, "examwire load")
        try:
            await ask(bus, subjects.socket_server(server.name), Drain(over_seconds=over_seconds))
        finally:
            await bus.close()
        how = await server.ended()
        if how != GOOD_END:
            raise RoleFailed(f"{server.name} was drained and ended with {how}; its log is on stderr")
        await server.start()
        async with asyncio.timeout(RECORDED_SECONDS):
            while not await _is_ready(store, server.name):  # noqa: ASYNC110 - Redis is what is polled
                await asyncio.sleep(SETTLE_STEP_SECONDS)

    async def _start(self, role: str, *children: Child) -> None:
        self._children[role] = list(children)
        await asyncio.gather(*(child.start() for child in children))

    async def stop(self) -> None:
        """End all. Nothing is drained: engines, data and plans are the load's own and go with it."""
        children = [child for group in reversed(self._children.values()) for child in group]
        for child in children:
            child.kill()
        for child in children:
            await child.stop()
        self._children.clear()

    def processes(self) -> dict[str, list[int]]:
        """The pids of each role that the fleet started."""
        return {
            role: [child.pid for child in children if child.pid is not None]
            for role, children in self._children.items()
        }


async def _is_ready(store: StateStore, server_id: str) -> bool:
    return any(one["serverId"] == server_id and one.get("statusCode") == "READY" for one in await store.servers())


CpuTimes = Mapping[str, Mapping[int, float]]
"""By role and pid, the user and system seconds that a process has used since it was started."""


def cpu_times(processes: Mapping[str, Sequence[int]]) -> CpuTimes:
    """What each process has used until now; those that have ended are left out."""
    used: dict[str, dict[int, float]] = {}
    for role, pids in processes.items():
        used[role] = {}
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used[role][pid] = times.user + times.system
    return used


def spent(before: CpuTimes, after: CpuTimes) -> dict[str, float]:
    """CPU seconds by role between two readings, of the processes that are in both."""
    return {
        role: round(sum(seconds - before[role][pid] for pid, seconds in pids.items() if pid in before[role]), 2)
        for role, pids in after.items()
        if role in before
    }


def resident_bytes(pids: Sequence[int]) -> int:
    """The RSS of some processes together."""
    return sum(int(psutil.Process(pid).memory_info().rss) for pid in pids)


async def settled_bytes(pids: Sequence[int]) -> int:
    """`resident_bytes` once it stands still (or after some seconds)."""
    known = resident_bytes(pids)
    for _ in range(int(SETTLE_SECONDS / SETTLE_STEP_SECONDS)):
        await asyncio.sleep(SETTLE_STEP_SECONDS)
        now = resident_bytes(pids)
        if abs(now - known) <= SETTLED_SHARE * known:
            return now
        known = now
    return known


class LoadProcess:
    """A process of ours that is told JSON lines and tells JSON lines; each goes to `on_event`.

    `run` is the module and `arguments` what follows it. When it ends without being asked to, `on_event` gets
    `{"event": "ended"}`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_event: Callable[[LoadProcess, dict[str, Any]], None],
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._environment = dict(environment)
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[dict[str, Any]] | None = None
        self._wanted = True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> dict[str, Any]:
        """Start and wait for its ready line, which is returned. Raises `RoleFailed`."""
        # Before anything can fail, so that `stop` finds it.
        self._ready = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for `examwire load`; the end of its stdin ends this
            limit=2**24,
        )
        self._reading = asyncio.create_task(self._read(self._process), name=f"read:{self.name}")
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), READY_SECONDS)
        except TimeoutError:
            raise RoleFailed(f"{self.name} was not ready within {READY_SECONDS:g} s; its log is on stderr") from None

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert self._ready is not None
        while line := await process.stdout.readline():
            event = json.loads(line)
            if event["event"] == "ready":
                self._ready.set_result(event)
            else:
                self._on_event(self, event)
        code = await process.wait()
        if not self._ready.done():
            self._ready.set_exception(RoleFailed(f"{self.name} ended with {code} before it was ready; see above"))
        elif self._wanted:
            self._on_event(self, {"event": "ended", "code": code})

    def tell(self, **command: Any) -> None:
        """Send a command."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    def kill(self) -> None:
        """SIGKILL: the kernel closes its sockets at once."""
        self._wanted = False
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Kill it and wait until it is gone. Harmless when repeated."""
        self.kill()
        if self._reading is not None:
            await self._reading
        if self._ready is not None and self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # retrieved, also when nobody waits any more
