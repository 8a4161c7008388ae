"""Subscribers: hand deliveries to a function, for the socket server until it declares `receives`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from actors.runtime.actor.actor import Actor
from actors.runtime.actor.receiver import RETRY_SECONDS, TRANSIENT_ERRORS, Received, Retry
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.dead_letter import letter_of
from protocol.broker.stream_codecs import Decode
from protocol.errors import NotPermitted
from protocol.messages.codec import Malformed, extract_element

log = logging.getLogger("examwire.receiver")

T = TypeVar("T")

Handle = Callable[[Received[T]], Awaitable[None]]


class Subscriber(Generic[T]):
    """Decodes, hands over, settles.

    `handle` takes one delivery and returns when it is done with, or raises: `Retry`, an engine's error (then it is
    delivered again), or anything else (then it is a dead letter). Only `NotPermitted` is raised on: that is the fault
    of our user and concerns every message.
    """

    def __init__(
        self,
        actor: Actor,
        bus: Bus,
        stream: str,
        decode: Decode[T],
        handle: Handle[T],
    ) -> None:
        self._actor = actor
        self._bus = bus
        self._stream = stream
        self._decode = decode
        self._handle = handle
        self._waits_for: type[Exception] | None = None

    async def take(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over and settle each of these, in order."""
        for delivery in deliveries:
            try:
                received = await self._read(delivery)
                if received.messages:
                    await self._hand_over(received)
                await delivery.ack()
            except Retry as again:
                await delivery.nak(again.delay)
            except TRANSIENT_ERRORS as error:
                if type(error) is not self._waits_for:  # once, not at each message of each second
                    log.warning("%s: %s: later: %s", self._actor.address, delivery.subject, error)
                self._waits_for = type(error)
                await delivery.nak(RETRY_SECONDS)
            else:
                self._waits_for = None

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

    async def _hand_over(self, received: Received[T]) -> None:
        try:
            await self._handle(received)
        except (Retry, NotPermitted, *TRANSIENT_ERRORS):
            raise
        except Exception as error:
            if len(received.messages) == 1:
                await self._put_aside(received, error)
                return
            log.exception("%s: %s failed; each of it on its own", self._actor.address, received.delivery.subject)
            for message, place in zip(received.messages, received.places, strict=True):
                await self._hand_over(replace(received, messages=[message], places=[place]))

    async def _put_aside(self, received: Received[T], error: Exception) -> None:
        self._actor.record_failure(error)
        log.error("%s: %s", self._actor.address, error, exc_info=error)
        payload, (place,) = received.delivery.payload, received.places
        reason = f"{self._actor.kind} failed with {type(error).__name__}: {error}"
        await self._dead_letter(received.delivery, extract_element(payload, place), reason, place)

    async def _dead_letter(self, delivery: Delivery, payload: bytes, reason: str, index: int) -> None:
        """One letter, whoever else reads the same message, and however often it comes."""
        about = {**self._actor.about(), "stream": self._stream, "sequence": delivery.sequence}
        text = "%s: message %d of %s goes to the dead letters: %s"
        log.error(text, self._actor.address, delivery.sequence, self._stream, reason, extra=about)
        await self._bus.publish_until_stored([letter_of(delivery, self._stream, payload, reason, index)])
