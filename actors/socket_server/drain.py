"""A server that is drained: its clients are sent to other servers at a pace, and then it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from actors.runtime.store.ready_servers import ReadyServers
from actors.sessions.outbox import Outbox
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.clients import Clients
from protocol.messages.frames import Migrate
from protocol.messages.operator_requests import Done, Drain
from protocol.times import format_time

log = logging.getLogger("examwire.drain")

TICK_SECONDS = 0.05
GROUP = 256
"""So many at most are sent away together: the first of them waits for the log to have the last."""
CLOSE_SECONDS = 6.0
FLUSH_SECONDS = 10.0


class Departure:
    """Empties one server. `announce` puts DRAINING into the log, `connections` are all that are open, `end` is called
    when nobody is left.

    Who is sent away is told so only when the log has it: proctors never hear of the new connection first. While no
    other server is READY nobody is sent away, unless the operator forces it.
    """

    def __init__(
        self,
        request: Drain,
        clients: Clients,
        endpoints: ReadyServers,
        outbox: Outbox,
        *,
        announce: Callable[[], Awaitable[None]],
        connections: Callable[[], Iterable[WebSocketConnection]],
        end: Callable[[], None],
    ) -> None:
        self.over_seconds = request.over_seconds
        self.force = request.force
        self.waiting = False
        self._clients = clients
        self._endpoints = endpoints
        self._outbox = outbox
        self._announce = announce
        self._connections = connections
        self._end = end
        self._began_at = format_time(outbox.clock.now())
        self._total = len(clients.sessions())
        self._sent_away = 0
        self._frames = 0
        self._closing: set[asyncio.Task[None]] = set()

    def plan(self) -> str:
        """What it does, for people."""
        how = f"within {self.over_seconds:g} s" if self.over_seconds else "at once"
        return f"{self._total} clients are sent to other servers {how}; then it ends"

    def asked_again(self, request: Drain) -> Done:
        """It is under way; `force` counts from now on."""
        self.force |= request.force
        text = f"is being drained already: {self._sent_away} of {self._total} clients are sent away"
        return Done(text=text, details=self.progress())

    def progress(self) -> dict[str, Any]:
        """How far it is, JSON-ready. `waiting`: for another server to become READY."""
        return {
            "since": self._began_at,
            "overSeconds": self.over_seconds,
            "clients": self._total,
            "sentAway": self._sent_away,
            "left": self._clients.sockets,
            "waiting": self.waiting,
        }

    async def run(self) -> None:
        """Send everybody away, evenly, and end."""
        self._clients.send_newcomers_away(self.frame)
        await self._announce()
        await self._send_away_evenly(self._clients.sessions())
        stragglers = [connection for connection in self._connections() if connection.is_open]
        for connection in stragglers:  # who has not said hello yet, or came in at the last moment
            self._close(connection)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)
        if not await self._outbox.flush(FLUSH_SECONDS):
            log.error("drained, but %d statuses are not stored yet", len(self._outbox))
        log.warning("drained: %d clients were sent to other servers", self._sent_away)
        self._end()

    async def _send_away_evenly(self, everyone: list[SocketSession]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        done = 0
        while done < len(everyone):
            began += await self._somewhere_to_go()
            share = (loop.time() - began) / self.over_seconds if self.over_seconds else 1.0
            due = min(len(everyone), int(share * len(everyone)) + 1, done + GROUP)
            some = everyone[done:due]
            await asyncio.gather(*(session.leave() for session in some))
            for session in some:
                self._close(session.connection)
            done, self._sent_away = due, self._sent_away + len(some)
            await asyncio.sleep(TICK_SECONDS if self.over_seconds else 0)

    async def _somewhere_to_go(self) -> float:
        """Wait until another server is READY; how long that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not (self.force or self._endpoints.others):
            if not self.waiting:
                log.warning("the drain waits: no other server is READY")
            self.waiting = True
            await asyncio.sleep(TICK_SECONDS)
        self.waiting = False
        return loop.time() - began

    def frame(self) -> Migrate:
        """Where the next one is to go: each begins with another server, so that they spread."""
        others = self._endpoints.others
        turn = self._frames % len(others) if others else 0
        self._frames += 1
        return Migrate(endpoints=[*others[turn:], *others[:turn]])

    def _close(self, connection: WebSocketConnection) -> None:
        # Beside the pace: a client that does not answer a close takes some seconds.
        task = asyncio.get_running_loop().create_task(connection.send_away(self.frame()))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
