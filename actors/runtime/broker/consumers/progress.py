"""Poll the progress of a durable consumer: how many messages wait, and for how long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from actors.runtime.broker.connection import Bus
from protocol.errors import BrokerUnavailable, NotPermitted
from protocol.messages.progress import HeldDeliveries, PartitionApplied, ProgressTracker

log = logging.getLogger("examwire.consumer_watch")


class ConsumerWatch:
    """Watches one consumer. `in_hand` returns the deliveries that its reader holds unacknowledged.

    Example::

        watch = ConsumerWatch(bus, "STATUS", "state-manager-0", reader.in_hand)
        await watch.look()
        watch.progress, watch.missing_for(), watch.unanswered_for()
    """

    def __init__(self, bus: Bus, stream: str, consumer: str, in_hand: Callable[[], HeldDeliveries]) -> None:
        self.consumer = consumer
        self._bus = bus
        self._stream = stream
        self._in_hand = in_hand
        self._tracker = ProgressTracker()
        self._asked_since: float | None = None
        self._missing_since: float | None = None
        self.progress = PartitionApplied(up_to=0)
        self.as_of = 0.0
        """When (`time.monotonic`) the request was sent that `progress` answers."""

    async def look(self) -> None:
        """Ask the broker once, and record its answer, a missing answer, or a missing consumer."""
        asked = time.monotonic()
        if self._asked_since is None:
            self._asked_since = asked
        try:
            progress = await self._bus.consumer_progress(self._stream, self.consumer)
        except (BrokerUnavailable, NotPermitted) as error:
            log.debug("%s/%s: %s", self._stream, self.consumer, error)
            return
        self._asked_since, self.as_of = None, asked
        if progress is None:
            self._missing_since = self._missing_since or time.monotonic()
            self._tracker = ProgressTracker()
            return
        self._missing_since = None
        self.progress = self._tracker.update(progress, self._in_hand())

    async def run(self, pause: Callable[[], float]) -> None:
        """Ask the broker every `pause()` seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(pause())

    def stood_still(self, seconds: float) -> None:
        """Do not count `seconds` in which this process was stalled: an answer may have arrived meanwhile."""
        if self._asked_since is not None:
            self._asked_since += seconds

    def unanswered_for(self) -> float | None:
        """Return for how many seconds the broker has not answered; `None`: it has answered."""
        return None if self._asked_since is None else time.monotonic() - self._asked_since

    def answered_since(self, moment: float) -> bool:
        """Return whether `progress` answers a request sent since then (`time.monotonic`)."""
        return self._asked_since is None and self._missing_since is None and self.as_of >= moment

    def missing_for(self) -> float | None:
        """Return for how many seconds the consumer has been missing; `None`: it exists."""
        return None if self._missing_since is None else time.monotonic() - self._missing_since
