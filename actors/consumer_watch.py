"""How far a durable consumer is, asked of the broker time and again: what waits, and for how long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from actors.runtime.bus import Bus
from protocol.applied import Behind, InHand, Lag, PartitionApplied
from protocol.errors import BrokerUnavailable, NotPermitted

log = logging.getLogger("examwire.consumer_watch")


class ConsumerWatch:
    """Watches one consumer whose reader has `in_hand()` of it.

    watch = ConsumerWatch(bus, "STATUS", "state-manager", reader.in_hand)
    await watch.look()
    watch.progress  # up to where it is acknowledged, what waits, for how long
    watch.trouble()  # None, or that it is missing, or that the broker does not answer
    """

    def __init__(self, bus: Bus, stream: str, consumer: str, in_hand: Callable[[], InHand]) -> None:
        self.consumer = consumer
        self._bus = bus
        self._stream = stream
        self._in_hand = in_hand
        self._lag = Lag()
        self._asked_since: float | None = None
        self._missing_since: float | None = None
        self.progress = PartitionApplied(up_to=0)

    async def look(self) -> None:
        """Ask the broker once; what it does not answer is `trouble`."""
        if self._asked_since is None:
            self._asked_since = time.monotonic()
        try:
            seen = await self._bus.consumer_progress(self._stream, self.consumer)
        except (BrokerUnavailable, NotPermitted) as error:
            log.debug("%s/%s: %s", self._stream, self.consumer, error)
            return
        self._asked_since = None
        if seen is None:
            self._missing_since = self._missing_since or time.monotonic()
            self._lag = Lag()
            return
        self._missing_since = None
        self.progress = self._lag.look(seen, self._in_hand())

    def stood_still(self, seconds: float) -> None:
        """This process was late by so much: an answer may lie there unread."""
        if self._asked_since is not None:
            self._asked_since += seconds

    def trouble(self) -> Behind | None:
        """What keeps the consumer from being read at all, since how many seconds."""
        now = time.monotonic()
        if self._asked_since is not None:
            return Behind("nats", now - self._asked_since)
        if self._missing_since is not None:
            return Behind("consumer", now - self._missing_since)
        return None
