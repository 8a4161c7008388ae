"""A whole system in one process, on real engines, and raw WebSocket clients that say what the test wants said."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from actors.queue_server.server import QueueServer
from actors.runtime.actor.service import Service
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from actors.runtime.store.state_store import StateStore
from actors.socket_server.server import SocketServer
from actors.state_manager.manager import StateManager
from actors.watches.dead_letter_watch import DeadLetterWatch
from actors.watches.lease_watch import LeaseWatch
from actors.watches.reconnect_watch import ReconnectWatch
from protocol.errors import StateUnavailable
from protocol.messages.frames import Role
from protocol.records import keys

Frame = dict[str, Any]
S = TypeVar("S", bound=Service)


async def eventually(condition: Callable[[], Awaitable[Any]], description: str, seconds: float = 20.0) -> Any:
    """Wait until `condition` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := await condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {description}")
        await asyncio.sleep(0.01)
    return result


class RawClient:
    """A WebSocket and what it was sent; it does nothing by itself."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.frames: list[Frame] = []
        self._arrived = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, **options: Any) -> Self:
        options.setdefault("subprotocols", [Subprotocol("examwire.v1")])
        options.setdefault("close_timeout", 1)
        return cls(await connect(url, compression=None, ping_interval=None, proxy=None, **options))

    async def _read(self) -> None:
        try:
            async for text in self.websocket:
                parsed = json.loads(text)
                self.frames += parsed if isinstance(parsed, list) else [parsed]
                self._arrived.set()
        except ConnectionClosed:
            pass
        finally:
            self._arrived.set()

    async def say(self, kind: str, **data: Any) -> None:
        await self.websocket.send(json.dumps({"type": kind, "data": data}))

    async def hello(self, token: str, client_id: str = "browser-1", connection_no: int = 1) -> Frame:
        await self.say("hello", token=token, clientId=client_id, connectionNo=connection_no)
        return await self.expect("welcome")

    async def expect(self, kind: str, *, seconds: float = 20.0, after: int = 0, **fields: Any) -> Frame:
        """The first frame of a type with these data fields (from index `after`), waiting for it."""
        deadline = time.monotonic() + seconds
        while True:
            for frame in self.frames[after:]:
                if frame["type"] == kind and all(frame["data"].get(k) == v for k, v in fields.items()):
                    return frame
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0 or self._reader.done():
                state = f"closed with {self.websocket.close_code}" if self._reader.done() else f"not in {seconds} s"
                raise AssertionError(f"no {kind} {fields} ({state}); got {self.frames[after:]}")
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), seconds_left)
            except TimeoutError:
                continue

    def about(self, examinee_id: str) -> list[Frame]:
        """The events about one examinee, in the order of their arrival."""
        return [f for f in self.frames if "version" in f["data"] and f["data"].get("examineeId") == examinee_id]

    async def closed(self, seconds: float = 20.0) -> int | None:
        """Wait for the end; the close code, `None` when there was none."""
        await asyncio.wait_for(self.websocket.wait_closed(), seconds)
        await self._reader
        return self.websocket.close_code if self.websocket.close_code != 1006 else None

    def abort(self) -> None:
        """Drop the TCP connection without a close frame."""
        self.websocket.transport.abort()

    async def close(self) -> None:
        await self.websocket.close()
        await self._reader


class System:
    """All roles in this process. `async with System(...) as system`."""

    def __init__(
        self,
        settings: Settings,
        *,
        servers: tuple[str, ...] = ("SOCK001", "SOCK002"),
        settings_of: Callable[[str], Settings] | None = None,
    ) -> None:
        self.settings = settings
        self._settings_of = settings_of or (lambda _name: settings)  # of the connection of this actor, and of a server
        self._server_ids = servers
        self.actors: dict[str, Service] = {}
        self._buses: dict[str, Bus] = {}
        self.clients: list[RawClient] = []
        self.failures: list[BaseException] = []
        self.store = StateStore(settings.redis_url, settings.redis)

    async def __aenter__(self) -> Self:
        try:
            await self.start("queue-server", lambda bus: QueueServer(self.settings, bus))
            await self.start("state-manager", lambda bus: StateManager(self.settings, bus, self.store, "sm1"))
            await self.start("reconnect-watch", lambda bus: ReconnectWatch(self.settings, bus, self.store, "rw1"))
            await self.start("lease-watch", lambda bus: LeaseWatch(self.settings, bus, self.store, "lw1"))
            await self.start("advisory-watch", lambda bus: DeadLetterWatch(bus, "aw1"))
            for server_id in self._server_ids:
                await self.start_server(server_id)
            for server_id in self._server_ids:
                await eventually(lambda s=server_id: self.server_is(s, "READY"), f"{server_id} READY in Redis")  # type: ignore[misc]
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            await client.close()
        for name in reversed(list(self.actors)):
            await self.stop(name)
        await self.store.close()

    async def start(self, name: str, make: Callable[[Bus], S]) -> S:
        """Start an actor with a connection of its own."""
        bus = self._buses[name] = await Bus.connect(self._settings_of(name), name)
        actor = make(bus)
        self.actors[name] = actor
        await actor.start(lambda _, error: self.failures.append(error))
        return actor

    async def start_server(self, server_id: str) -> SocketServer:
        return await self.start(
            server_id, lambda bus: SocketServer(self._settings_of(server_id), bus, self.store, server_id)
        )

    async def stop(self, name: str) -> None:
        """Stop an actor in good order."""
        await self.actors.pop(name).stop()
        await self._buses.pop(name).close()

    def server(self, server_id: str) -> SocketServer:
        actor = self.actors[server_id]
        assert isinstance(actor, SocketServer)
        return actor

    def token(
        self, role: Role, subject: str, plan_id: str = "P001", scope: Mapping[str, Sequence[str]] | None = None
    ) -> str:
        return issue_token(self.settings, role, plan_id, subject, scope=scope)

    async def raw(self, server_id: str = "SOCK001", **options: Any) -> RawClient:
        client = await RawClient.open(self.server(server_id).url, **options)
        self.clients.append(client)
        return client

    async def examinee(
        self,
        examinee_id: str = "E001",
        server_id: str = "SOCK001",
        *,
        plan_id: str = "P001",
        client_id: str | None = None,
        connection_no: int = 1,
    ) -> RawClient:
        """A connected examinee; returns when the state manager has recorded it."""
        client = await self.raw(server_id)
        token = self.token("examinee", examinee_id, plan_id)
        await client.hello(token, client_id or f"browser-{examinee_id}", connection_no)
        await client.expect("session_state")
        return client

    async def proctor(
        self,
        server_id: str = "SOCK001",
        *,
        plan_id: str = "P001",
        name: str = "proctor-1",
        scope: Mapping[str, Sequence[str]] | None = None,
    ) -> RawClient:
        """A connected proctor that has its snapshot. `scope`: the labels that its token is limited to."""
        client = await self.raw(server_id)
        await client.hello(self.token("proctor", name, plan_id, scope), name)
        await client.expect("plan_snapshot")
        return client

    async def progress(self, examinee_id: str = "E001", plan_id: str = "P001") -> dict[str, str]:
        return await self.store.entries(keys.progress(plan_id, examinee_id))

    async def status(self, examinee_id: str, expected: str, plan_id: str = "P001") -> None:
        """Wait until Redis says so."""

        async def says() -> bool:
            with suppress(StateUnavailable):  # Redis was replaced, and a state manager is at it
                return (await self.progress(examinee_id, plan_id)).get("connStatusCode") == expected
            return False

        await eventually(says, f"{examinee_id} {expected} in Redis")

    async def server_is(self, server_id: str, expected: str) -> bool:
        with suppress(StateUnavailable):
            return (await self.store.entries(keys.server_status(server_id))).get("statusCode") == expected
        return False
