"""Publish batches at the same time, and have them stored in the order in which they were sent.

Normally a batch is sent before the acks of the previous one have arrived. When a batch fails (the stream has no leader,
the connection broke), later batches are held back until it is stored. Otherwise its retry would be stored behind them,
and readers of the stream would drop it as outdated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.runtime.broker.publisher import Outgoing, Publishing, Sent

OVERDUE_SECONDS = 1.0
"""An ack that takes longer may never arrive: the server that took the message may have died with it."""


@dataclass(slots=True)
class Parcel:
    """A batch that was passed to `send`; `sent` is `None` while it is held back."""

    messages: Sequence[Outgoing]
    sent: Sent | None
    before: Parcel | None
    at: float
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def in_trouble(self) -> bool:
        """Return whether this batch or an earlier one has failed and has to be published again."""
        if self.over.is_set():
            return False
        if self.sent is None or (self.before is not None and self.before.in_trouble()):
            return True
        return self.sent.failed or (self.sent.missing > 0 and time.monotonic() - self.at > OVERDUE_SECONDS)


class OrderedPublisher:
    """Publishes batches in order. Each batch that is sent has to be confirmed.

    Example::

        parcel = await publisher.send([Outgoing("socket.SOCK001", payload)])
        await publisher.confirm(parcel)
    """

    def __init__(self, bus: Publishing) -> None:
        self._bus = bus
        self._last: Parcel | None = None

    async def send(self, messages: Sequence[Outgoing]) -> Parcel:
        """Send a batch, or hold it back while an earlier one has failed."""
        before = self._last if self._last is not None and not self._last.over.is_set() else None
        parcel = self._last = Parcel(messages, None, before, time.monotonic())
        if before is None or not before.in_trouble():
            parcel.sent = await self._bus.send(messages)
        return parcel

    async def confirm(self, parcel: Parcel) -> None:
        """Wait until the batch is stored, however long the broker is away. Raises `NotPermitted`."""
        try:
            missing = parcel.messages if parcel.sent is None else await self._bus.settle(parcel.sent)
            if missing:
                if parcel.before is not None:
                    await parcel.before.over.wait()
                await self._bus.publish_until_stored(missing)
        finally:
            parcel.before = None
            parcel.over.set()
