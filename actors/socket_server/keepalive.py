"""The keepalive: one loop over all sockets of a server pings silent clients and drops dead ones."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from actors.runtime.config.sections import SocketSettings
from actors.sessions.websocket import WebSocketConnection
from protocol.messages.facts import LossReason

SLICE = 256
"""So many connections are looked at without a pause: nobody's loss waits behind four thousand pings."""

TURNS = 8
"""At least so many turns of the event loop lie between a ping and the end of a connection that did not answer it."""


class Keepalive:
    """Pings clients that were silent for the ping interval, and drops those that do not answer in time.

    keepalive = Keepalive(settings.socket, listener.connections)
    while True:
        await keepalive.check_all()  # half a second, or an eighth of the shorter of the two limits

    Silence is measured in time during which the event loop was listening. While it is blocked or the process is
    stopped, answers wait unread in the sockets. So one turn of the loop counts as an eighth of the ping timeout at
    most, however long it took.
    """

    def __init__(self, settings: SocketSettings, connections: Callable[[], Sequence[WebSocketConnection]]) -> None:
        self._interval = settings.ping_interval_seconds
        self._timeout = settings.ping_timeout_seconds
        self._period = min(0.5, settings.ping_interval_seconds / 8, settings.ping_timeout_seconds / 8)
        limit = settings.ping_interval_seconds + settings.ping_timeout_seconds
        self._most_checks_without_progress = math.ceil(limit / self._period)
        self._turn = settings.ping_timeout_seconds / TURNS
        self._connections = connections
        self._listened = 0.0
        self._checked_at: float | None = None

    async def check_all(self) -> None:
        """Check every connection once, spread over the period.

        A connection is dropped that does not answer its ping, or takes nothing of what waits for it.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        connections = self._connections()
        slices = max(1, -(-len(connections) // SLICE))
        for number in range(slices):
            # The due time of a slice comes from the clock: delays of the timers do not add up.
            await asyncio.sleep(max(0.0, began + self._period * (number + 1) / slices - loop.time()))
            now = loop.time()
            self._listened += min(now - self._checked_at, self._turn) if self._checked_at is not None else 0.0
            self._checked_at = now
            silent_since = now - self._interval
            for connection in connections[number * SLICE : (number + 1) * SLICE]:
                if connection.last_heard > silent_since and connection.pinged_at is None and not connection.may_wait:
                    continue  # most of them, each time
                if not connection.is_over:
                    self._check(connection, now)

    def _check(self, connection: WebSocketConnection, now: float) -> None:
        connection.check_progress(now)
        if connection.checks_without_progress >= self._most_checks_without_progress:
            connection.abort(LossReason.SLOW_CLIENT.value)
        elif connection.pinged_at is None:
            if now - max(connection.last_heard, connection.last_progress) >= self._interval:
                connection.ping_now(self._listened)
        elif self._listened - connection.pinged_at >= self._timeout:
            if connection.reading_paused:
                connection.extend_ping(self._listened)
            else:
                connection.abort(LossReason.PING_TIMEOUT.value)
