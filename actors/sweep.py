"""One sweep over all sockets of a server instead of a timer for each: pings for the quiet, an end for the dead."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from actors.connection import Connection
from actors.runtime.settings import SocketSettings
from protocol.facts import LossReason

SLICE = 64


class Sweep:
    """`once` goes over all `connections` and takes about a second, or a quarter of the shorter of the two limits.

    A few connections at a time, spread over the period: nobody's loss waits behind four thousand pings.
    """

    def __init__(self, settings: SocketSettings, connections: Callable[[], Sequence[Connection]]) -> None:
        self._interval = settings.ping_interval_seconds
        self._limit = settings.ping_interval_seconds + settings.ping_timeout_seconds
        self._period = min(1.0, settings.ping_interval_seconds / 4, settings.ping_timeout_seconds / 4)
        self._looks = math.ceil(self._limit / self._period)
        self._connections = connections

    async def once(self) -> None:
        """Ping those that were quiet for the interval, end those that did not answer, or take nothing of what waits.

        Whoever takes what waits for it is there: a ping stands behind that, and cannot have been answered yet.
        """
        connections = self._connections()
        slices = max(1, -(-len(connections) // SLICE))
        for number in range(slices):
            await asyncio.sleep(self._period / slices)
            now = asyncio.get_running_loop().time()
            for connection in connections[number * SLICE : (number + 1) * SLICE]:
                connection.look(now)
                quiet = now - max(connection.last_heard, connection.last_taken)
                if connection.looks_without_taking >= self._looks:
                    connection.break_off(LossReason.SLOW_CLIENT.value)
                elif quiet >= self._limit:
                    connection.break_off(LossReason.PING_TIMEOUT.value)
                elif quiet >= self._interval and not connection.pinged:
                    connection.ping_now()
