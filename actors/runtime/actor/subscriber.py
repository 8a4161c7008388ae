"""Subscribers: what a durable consumer brings, decoded by the codec of its stream and handed to an actor.

    leases = Subscriber(self, bus, LEASE.name, decode_lease, self._lease)
    self.spawn(leases.follow(PullConsumer(bus, LEASE.name, "lease-watch")), "follow")

Whatever arrives, the actor goes on: what is no message, or makes the handler raise, becomes one dead letter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from actors.runtime.actor.actor import Actor
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.dead_letter import letter_of
from protocol.broker.stream_codecs import Decode
from protocol.errors import BrokerUnavailable, NoResponders, NotPermitted, StateUnavailable
from protocol.messages.codec import Malformed, element_of

log = logging.getLogger("examwire.subscriber")

T = TypeVar("T")

AGAIN_SECONDS = 1.0
PASSING = (BrokerUnavailable, StateUnavailable, NoResponders, OSError)
"""Trouble of an engine, not of the message (a `TimeoutError` is an `OSError`)."""


class Again(Exception):
    """Raised by a handler: this message is to be delivered again after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__(f"again in {delay:g} s")
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Received(Generic[T]):
    """A delivery and what it holds: `messages`, at these `places` of its array of `size`."""

    delivery: Delivery
    messages: Sequence[T]
    places: Sequence[int]
    size: int

    @property
    def whole(self) -> bool:
        """Whether these messages are all that it holds."""
        return len(self.messages) == self.size


Handle = Callable[[Received[T]], Awaitable[None]]
HandleTogether = Callable[[Sequence[Received[T]]], Awaitable[None]]


class Subscriber(Generic[T]):
    """Decodes, hands over, settles.

    `handle` takes one delivery and returns when it is done with, or raises: `Again`, an engine's error (then it is
    delivered again), or anything else (then it is a dead letter). Only `NotPermitted` is raised on: that is the fault
    of our user and concerns every message. Without `counted` the actor counts, and shows to tails, what it handles.
    """

    def __init__(
        self,
        actor: Actor,
        bus: Bus,
        stream: str,
        decode: Decode[T],
        handle: Handle[T] | None = None,
        *,
        counted: bool = True,
    ) -> None:
        self._actor = actor
        self._bus = bus
        self._stream = stream
        self._decode = decode
        self._handle = handle
        self._counted = counted
        self._waits_for: type[Exception] | None = None

    async def follow(self, deliveries: AsyncIterable[list[Delivery]]) -> None:
        """Take whatever a consumer brings, one after the other."""
        async for batch in deliveries:
            await self.take(batch)

    async def take(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over and settle each of these, in order."""
        for delivery in deliveries:
            began = time.perf_counter()
            failed: BaseException | None = None
            try:
                received = await self._read(delivery)
                if received.messages:
                    failed = await self._hand_over(received)
                await delivery.ack()
            except Again as again:
                await delivery.nak(again.delay)
            except PASSING as error:
                failed = error
                if type(error) is not self._waits_for:  # once, not at each message of each second
                    log.warning("%s: %s: later: %s", self._actor.address, delivery.subject, error)
                self._waits_for = type(error)
                await delivery.nak(AGAIN_SECONDS)
            else:
                self._waits_for = None
            if self._counted:
                self._actor.account_for(delivery, began, failed)

    async def readable(self, deliveries: Sequence[Delivery]) -> list[Received[T]]:
        """Those that hold something; the others are settled. For handlers of many at once (`together`)."""
        readable = []
        for delivery in deliveries:
            received = await self._read(delivery)
            if received.messages:
                readable.append(received)
            else:
                await delivery.ack()
        return readable

    async def together(self, received: Sequence[Received[T]], handle: HandleTogether[T]) -> None:
        """Hand over many at once; `handle` settles them. Those that make it raise do not take the others with them."""
        try:
            await handle(received)
        except (NotPermitted, *PASSING):
            raise
        except Exception as error:
            if len(received) == 1:
                await self._put_aside(received[0], error)
                await received[0].delivery.ack()
                return
            log.exception("%s: %d messages failed; each on its own now", self._actor.address, len(received))
            for one in received:
                await self.together([one], handle)

    async def _read(self, delivery: Delivery) -> Received[T]:
        """What a delivery holds; what is none of it goes to the dead letters."""
        messages: list[T] = []
        places: list[int] = []
        decoded = self._decode(delivery.subject, delivery.payload, delivery.headers)
        for index, one in enumerate(decoded):
            if isinstance(one, Malformed):
                await self._dead_letter(delivery, one.raw, str(one.error), one.index)
            else:
                messages.append(one)
                places.append(index)
        return Received(delivery, messages, places, len(decoded))

    async def _hand_over(self, received: Received[T]) -> BaseException | None:
        """What the handler has failed with, if it has."""
        assert self._handle is not None
        try:
            await self._handle(received)
        except (Again, NotPermitted, *PASSING):
            raise
        except Exception as error:
            if len(received.messages) == 1:
                await self._put_aside(received, error)
                return error
            log.exception("%s: %s failed; each of it on its own", self._actor.address, received.delivery.subject)
            failed: BaseException | None = None
            for message, place in zip(received.messages, received.places, strict=True):
                failed = await self._hand_over(replace(received, messages=[message], places=[place])) or failed
            return failed
        return None

    async def _put_aside(self, received: Received[T], error: Exception) -> None:
        self._actor.remember(error)
        log.error("%s: %s", self._actor.address, error, exc_info=error)
        payload, (place,) = received.delivery.payload, received.places
        reason = f"{self._actor.kind} failed with {type(error).__name__}: {error}"
        await self._dead_letter(received.delivery, element_of(payload, place), reason, place)

    async def _dead_letter(self, delivery: Delivery, payload: bytes, reason: str, index: int) -> None:
        """One letter, whoever else reads the same message, and however often it comes."""
        about = {**self._actor.about(), "stream": self._stream, "sequence": delivery.sequence}
        text = "%s: message %d of %s goes to the dead letters: %s"
        log.error(text, self._actor.address, delivery.sequence, self._stream, reason, extra=about)
        await self._bus.publish_surely([letter_of(delivery, self._stream, payload, reason, index)])
