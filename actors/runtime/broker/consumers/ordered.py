"""Reading a durable consumer that has one reader in the stream's order, whatever is lost on the way.

What a broken connection has swallowed would be delivered again only after the ack wait, behind newer messages. So a
reader that connects again, or sees that a delivery is missing, resets the consumer (NATS ADR-60): everything that is
not acknowledged comes again, from the ack floor on and in order. Until then it takes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from actors.runtime.broker.consumers.consumer import Delivery, PullConsumer
from protocol.errors import BrokerUnavailable, ConsumerGone, NotPermitted

log = logging.getLogger("examwire.pull")

AGAIN_SECONDS = 0.2


class OrderedConsumer(PullConsumer):
    """A `PullConsumer` whose messages never overtake each other. What was handed out before may come again.

    Example::

        async for deliveries in OrderedConsumer(bus, "SOCKET", "SOCK001_Q", keep_alive=1.25):
            ...
    """

    _following: int | None = None  # the consumer's next delivery; None: not in step with it
    _newest = 0  # the newest message that was handed out

    async def _pulled(self) -> AsyncGenerator[list[Delivery], None]:
        self._reset_wanted = asyncio.Event()
        resets = asyncio.get_running_loop().create_task(self._reset_when_wanted(), name=f"reset:{self._consumer}")
        self._bus.on_reconnected.append(self._read_again)
        try:
            async for batch in super()._pulled():
                yield batch
        finally:
            self._bus.on_reconnected.remove(self._read_again)
            resets.cancel()

    def _takes(self, delivery: Delivery, consumer_sequence: int) -> bool:
        if consumer_sequence == 1:  # the first of all, or the first after a reset
            self._following = 1
            self._reset_wanted.clear()
        if consumer_sequence != self._following:
            if self._following is not None:
                log.info("%s/%s: a delivery is missing, reading again", self._stream, self._consumer)
            self._want_reset()
            return False
        self._following += 1
        if delivery.sequence <= self._newest:
            in_hand = any(held.sequence == delivery.sequence for held in self._unsettled)
            return not in_hand and self._takes_settled(delivery)
        self._newest = delivery.sequence
        return True

    def _takes_settled(self, delivery: Delivery) -> bool:
        """Return whether to hand over a delivery that was settled before: its ack was lost, or it is due again."""
        return True

    async def _read_again(self) -> None:
        self._want_reset()

    def _want_reset(self) -> None:
        self._following = None
        self._reset_wanted.set()

    async def _reset_when_wanted(self) -> None:
        while True:
            await self._reset_wanted.wait()
            self._reset_wanted.clear()
            try:
                await self._bus.reset_consumer(self._stream, self._consumer)
            except ConsumerGone as gone:
                log.debug("%s", gone)  # the next pull finds out
            except NotPermitted as refusal:
                self._refused(refusal)
                return
            except BrokerUnavailable as error:
                log.debug("%s", error)
                await asyncio.sleep(AGAIN_SECONDS)
                if self._following is None:
                    self._want_reset()
