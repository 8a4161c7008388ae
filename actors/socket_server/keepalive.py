"""One sweep over all sockets of a server instead of a timer for each: pings for the quiet, an end for the dead."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from actors.runtime.config.sections import SocketSettings
from actors.sessions.websocket import WebSocketConnection
from protocol.messages.facts import LossReason

SLICE = 64
TURNS = 8
"""At least so many turns of the event loop lie between a ping and the end of a connection that did not answer it."""


class Keepalive:
    """`once` goes over all `connections` and takes half a second, or an eighth of the shorter of the two limits.

    A few connections at a time, spread over the period: nobody's loss waits behind four thousand pings.

    Silence is counted in the time that this loop has lived through. While it is busy or the process stands still,
    answers wait unread in the sockets: that is no silence of the peers. So one turn of the loop counts as an eighth of
    the ping timeout at most, however long it took.
    """

    def __init__(self, settings: SocketSettings, connections: Callable[[], Sequence[WebSocketConnection]]) -> None:
        self._interval = settings.ping_interval_seconds
        self._timeout = settings.ping_timeout_seconds
        self._period = min(0.5, settings.ping_interval_seconds / 8, settings.ping_timeout_seconds / 8)
        limit = settings.ping_interval_seconds + settings.ping_timeout_seconds
        self._looks = math.ceil(limit / self._period)
        self._turn = settings.ping_timeout_seconds / TURNS
        self._connections = connections
        self._lived = 0.0
        self._looked: float | None = None

    async def once(self) -> None:
        """Ping those that were quiet for the interval, end those that did not answer, or take nothing of what waits.

        Whoever takes what waits for it is there: a ping stands behind that, and cannot have been answered yet.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        connections = self._connections()
        slices = max(1, -(-len(connections) // SLICE))
        for number in range(slices):
            # By the clock, not slice by slice: what the timers are late does not add up with the number of slices.
            await asyncio.sleep(max(0.0, began + self._period * (number + 1) / slices - loop.time()))
            now = loop.time()
            self._lived += min(now - self._looked, self._turn) if self._looked is not None else 0.0
            self._looked = now
            for connection in connections[number * SLICE : (number + 1) * SLICE]:
                if not connection.is_over:
                    self._look_at(connection, now)

    def _look_at(self, connection: WebSocketConnection, now: float) -> None:
        connection.look(now)
        if connection.last_taken == now:
            connection.pinged_at = None
        if connection.looks_without_taking >= self._looks:
            connection.break_off(LossReason.SLOW_CLIENT.value)
        elif connection.pinged_at is None:
            if now - max(connection.last_heard, connection.last_taken) >= self._interval:
                connection.ping_now(self._lived)
        elif self._lived - connection.pinged_at >= self._timeout:
            if connection.held:
                connection.pinged_at = self._lived  # its answer would wait in the socket, unread
            else:
                connection.break_off(LossReason.PING_TIMEOUT.value)
