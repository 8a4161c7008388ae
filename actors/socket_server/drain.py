"""The drain of a socket server: its clients are told to connect to other servers, evenly, and then it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from actors.runtime.store.ready_servers import ReadyServers
from actors.sessions.context import ServerContext
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.sessions import Sessions
from actors.socket_server.status import StatusPublisher
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages.frames import Migrate
from protocol.messages.operator_requests import Drain
from protocol.messages.server_messages import ServerStatusCode
from protocol.times import format_time

log = logging.getLogger("examwire.drain")

TICK_SECONDS = 0.05
GROUP = 256
"""At most so many sessions are drained together: the first of them waits until the log has the last."""

CLOSE_SECONDS = 6.0
FLUSH_SECONDS = 10.0


class ServerDrain:
    """Drains one server. `active`: it is being drained, and lets nobody in.

    done = await drain.begin(request)  # what an operator has asked
    await drain.run(listener.connections)  # returns when no client is left

    A client is told to go only when the log has the end of its session: so proctors never hear of its new connection
    first. While no other server is READY no client is told to go, unless the operator forces the drain.
    """

    def __init__(
        self, context: ServerContext, sessions: Sessions, endpoints: ReadyServers, status: StatusPublisher
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._endpoints = endpoints
        self._status = status
        self.active = False
        self._request: Drain | None = None
        self._force = False
        self._waiting = False
        self._began_at = ""
        self._total = 0
        self._drained = 0
        self._frames = 0
        self._closing: set[asyncio.Task[None]] = set()

    async def begin(self, request: Drain) -> bool:
        """Enter DRAINING. False: the drain is under way already, and only `force` is taken over.

        Raises `ProtocolError` when the server is not READY, or no other server is and `force` is not set.
        """
        server_id = self._context.server_id
        if self._request is None and self._status.current is not ServerStatusCode.READY:
            raise ProtocolError(ErrorCode.UNAVAILABLE, f"{server_id} is not READY")
        await self._endpoints.read()
        if self._request is not None:
            self._force |= request.force
            return False
        if not self._endpoints.others and not request.force:
            detail = f"no other server is READY: the clients of {server_id} would have nowhere to go"
            raise ProtocolError(ErrorCode.UNAVAILABLE, detail)
        self._status.enter(ServerStatusCode.DRAINING)
        self._request, self._force = request, request.force
        self._began_at = format_time(self._context.clock.now())
        self._total = len(self._sessions.all())
        return True

    def describe(self) -> str:
        """Return what the drain will do, or how far it is, as a sentence."""
        if self.active or self._request is None:
            return f"is being drained already: {self._drained} of {self._total} clients are sent away"
        seconds = self._request.over_seconds
        how = f"within {seconds:g} s" if seconds else "at once"
        return f"{self._context.server_id}: {self._total} clients are sent to other servers {how}; then it ends"

    def progress(self) -> dict[str, Any] | None:
        """Return how far the drain is, JSON-ready; `None` before it has begun.

        `left`: sockets that are still open. `waiting`: for another server to become READY.
        """
        if self._request is None:
            return None
        return {
            "since": self._began_at,
            "overSeconds": self._request.over_seconds,
            "clients": self._total,
            "sentAway": self._drained,
            "left": self._sessions.sockets,
            "waiting": self._waiting,
        }

    async def run(self, connections: Callable[[], Sequence[WebSocketConnection]]) -> None:
        """Drain all sessions evenly, close what is left of `connections`, and return when the log has everything."""
        assert self._request is not None
        self.active = True
        await self._status.publish_until_stored(ServerStatusCode.DRAINING)
        await self._drain_evenly(self._sessions.all(), self._request.over_seconds)
        for connection in connections():
            if connection.is_open:  # before its hello, or admitted at the last moment
                self._migrate(connection)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)
        if not await self._context.outbox.flush(FLUSH_SECONDS):
            log.error("drained, but %d statuses are not stored yet", len(self._context.outbox))
        log.warning("drained: %d clients were sent to other servers", self._drained)

    def frame(self) -> Migrate:
        """Return the frame for the next client. Each names another server first, so that the clients spread."""
        others = self._endpoints.others
        turn = self._frames % len(others) if others else 0
        self._frames += 1
        return Migrate(endpoints=[*others[turn:], *others[:turn]])

    async def _drain_evenly(self, sessions: list[SocketSession], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        done = 0
        while done < len(sessions):
            began += await self._wait_for_endpoint()
            share = (loop.time() - began) / seconds if seconds else 1.0
            due = min(len(sessions), int(share * len(sessions)) + 1, done + GROUP)
            group = sessions[done:due]
            await asyncio.gather(*(session.drain() for session in group))
            for session in group:
                self._migrate(session.connection)
            done, self._drained = due, self._drained + len(group)
            await asyncio.sleep(TICK_SECONDS if seconds else 0)

    async def _wait_for_endpoint(self) -> float:
        """Wait until another server is READY, and return how long that took in seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not (self._force or self._endpoints.others):
            if not self._waiting:
                log.warning("the drain waits until another server is READY")
            self._waiting = True
            await asyncio.sleep(TICK_SECONDS)
        self._waiting = False
        return loop.time() - began

    def _migrate(self, connection: WebSocketConnection) -> None:
        # As a task of its own: a client that does not answer a close takes some seconds.
        task = asyncio.get_running_loop().create_task(connection.migrate(self.frame()))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
