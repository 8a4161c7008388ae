"""Publishing several batches beside each other that are stored in their order, whatever becomes of one of them.

While all goes well, nobody waits: a batch goes out without the acks of the one before. When one fails (the stream has
no leader, the connection broke) the later ones are held back until it is stored; else a retry would stand behind what
came after it, and whoever reads the stream drops what a newer version has overtaken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.runtime.broker.publisher import Outgoing, Publishing, Sent

OVERDUE_SECONDS = 1.0
"""An ack that takes so long may never come: a broker that died has taken its message with it."""


@dataclass(slots=True)
class Parcel:
    """A batch: `sent` is `None` when it was held back."""

    messages: Sequence[Outgoing]
    sent: Sent | None
    before: Parcel | None
    at: float
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def in_trouble(self) -> bool:
        """Whether this or an earlier one is not stored and will not be without another try."""
        if self.over.is_set():
            return False
        if self.sent is None or (self.before is not None and self.before.in_trouble()):
            return True
        late = time.monotonic() - self.at > OVERDUE_SECONDS
        return any(_failed(future) if future.done() else late for future in self.sent.waiting)


class OrderedPublisher:
    """`send` batches, then `confirm` each; one that is sent must be confirmed."""

    def __init__(self, bus: Publishing) -> None:
        self._bus = bus
        self._last: Parcel | None = None

    async def send(self, messages: Sequence[Outgoing]) -> Parcel:
        """Put a batch on its way behind the ones before."""
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


def _failed(future: asyncio.Future[bytes]) -> bool:
    return future.cancelled() or future.exception() is not None or future.result().startswith(b'{"error"')
