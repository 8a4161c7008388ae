"""Deliveries for an actor: declared beside its handlers, and pulled, decoded and acknowledged by the runtime.

    class LeaseWatch(Actor):
        receives = (Consumer(LEASE_WATCH, decode_lease),)

        @on(Lease)
        async def renew(self, lease: Lease) -> None: ...

        @on(LeaseExpired)
        async def declare_lost(self, expired: LeaseExpired, delivery: Delivery) -> None:
            if delivery.attempt == 1:
                raise Retry(1.0)  # deliver it again in a second

Messages go through the mailbox of the actor, in the order of the consumer. A delivery is acknowledged when the
handlers of all its messages have returned. What is no message, or makes its handler raise, becomes one dead letter,
and the actor goes on. An error of an engine (`TRANSIENT_ERRORS`) or a `Retry` has the delivery come again later.
`NotPermitted` fails the actor: it is the fault of our user and concerns every message.

Where one message at a time is too slow, a consumer is declared with a `batch`, and its handler takes that:

    class Attempts(Batch[ReconnectWait]):
        pass

    receives = (Consumer(RECONNECT_WATCH, decode_wait, batch=Attempts),)

    @on(Attempts)
    async def count(self, attempts: Attempts) -> None: ...

A batch whose handler raises is handed over again in parts: each delivery, then each message, on its own. So a handler
of batches is repeatable, and only the message that fails becomes a dead letter.

Where consumers change hands between processes, and a delivery is acknowledged after the acks of what follows from it,
an actor receives undecoded deliveries, and its handler does the rest:

    self.receives = (Deliveries(STATE_MANAGERS, StatusBatch, partitions.arrived),)

An actor may answer requests of NATS, too. The handler's return value is the answer:

    receives = (Requests("queue-create", subjects.QUEUE_CREATE, QueueCreate),)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from actors.runtime.actor.mailbox import MailboxFull
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery, PullConsumer, acknowledge
from actors.runtime.broker.dead_letter import letter_of
from actors.runtime.telemetry.metrics import NEWER_MESSAGES
from actors.runtime.token_bucket import TokenBucket
from protocol.broker.stream_codecs import Decode
from protocol.broker.streams import ConsumerSpec
from protocol.errors import (
    BrokerUnavailable,
    ErrorCode,
    ExamwireError,
    NoResponders,
    NotPermitted,
    ProtocolError,
    StateUnavailable,
)
from protocol.messages.base import Message
from protocol.messages.codec import Codec, Malformed, encode, extract_element
from protocol.messages.frames import error_frame

if TYPE_CHECKING:
    from actors.runtime.actor.actor import Actor

log = logging.getLogger("examwire.receiver")

T = TypeVar("T")

RETRY_SECONDS = 1.0
"""After an error of an engine a delivery comes again so many seconds later."""

TRANSIENT_ERRORS = (BrokerUnavailable, StateUnavailable, NoResponders, OSError)
"""Errors of an engine, not of the message (a `TimeoutError` is an `OSError`)."""


class ActorStopped(ExamwireError):
    """The actor does not run, or has stopped before it answered."""


class Retry(Exception):
    """Raised by a handler: deliver this message again after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__(f"again in {delay:g} s")
        self.delay = delay


PASSED_ON = (ActorStopped, NotPermitted, Retry, *TRANSIENT_ERRORS)
"""Errors of a handler that say nothing about the message: it is no dead letter."""


@dataclass(frozen=True, slots=True)
class Received(Generic[T]):
    """A delivery and the messages that it holds. `places`: their places in its array, which has `size` elements."""

    delivery: Delivery
    messages: Sequence[T]
    places: Sequence[int]
    size: int

    @property
    def whole(self) -> bool:
        """Whether these messages are all that the delivery holds."""
        return len(self.messages) == self.size


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Deliveries that an actor handles together. Each actor has a subclass of its own, which its handler takes."""

    received: Sequence[Received[T]]

    @property
    def deliveries(self) -> list[Delivery]:
        """The deliveries of the batch, in order."""
        return [received.delivery for received in self.received]

    @property
    def count(self) -> int:
        """The number of messages in the batch."""
        return sum(len(received.messages) for received in self.received)


@dataclass(frozen=True, slots=True)
class Consumer(Generic[T]):
    """A durable consumer that an actor reads, and how.

    `decode` is the codec of its stream. `batch`: hand over batches of this type instead of single messages, each of
    at most `batch_deliveries` deliveries (0: all that have arrived). `max_messages`: so many deliveries are on their
    way or wait here. `keep_alive`: seconds, see `PullConsumer`. `first_delay`: seconds that the first delivery of a
    message waits before it is handed over. With `handler_acks` the handler of the batch settles its deliveries,
    unless it raises.
    """

    spec: ConsumerSpec
    decode: Decode[T]
    batch: type[Batch[T]] | None = None
    batch_deliveries: int = 0
    max_messages: int = 256
    keep_alive: float | None = None
    first_delay: float = 0.0
    handler_acks: bool = False

    @property
    def name(self) -> str:
        """`STREAM/consumer`, as inspections show it."""
        return f"{self.spec.stream}/{self.spec.name}"

    def open(self, bus: Bus) -> AsyncGenerator[list[Delivery], None]:
        """Pull what arrives; the iteration goes on when the consumer has vanished and is made again."""
        return aiter(
            PullConsumer(
                bus,
                self.spec.stream,
                self.spec.name,
                max_messages=self.max_messages,
                keep_alive=self.keep_alive,
                made_again=True,
            )
        )


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Durable consumers whose deliveries a handler decodes, processes and acknowledges itself, in batches.

    `batch` makes the message for the handler of what `arrived` returns: it waits for deliveries of all these
    consumers. At most `batches_per_second` are handed over; deliveries that arrive meanwhile come in the next batch.

    Example::

        receives = (Deliveries(STATE_MANAGERS, StatusBatch, partitions.arrived),)
    """

    specs: Sequence[ConsumerSpec]
    batch: Callable[[list[Delivery]], object]
    arrived: Callable[[], Awaitable[list[Delivery]]]
    batches_per_second: float = 200.0

    async def run(self, actor: Actor) -> None:
        """Hand over what arrives until the actor stops. A batch waits until there is room in the mailbox."""
        throttle = TokenBucket(self.batches_per_second, burst=20)
        while True:
            await actor.put(self.batch(await self.arrived()))
            await throttle.wait()


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one type that an actor answers on a NATS subject, as the endpoint `name` of its micro service.

    The handler returns the answer, or a `ProtocolError`, which is answered as an error frame.
    """

    name: str
    subject: str
    message_type: type[Message]
    timeout: float = 10.0

    async def answer(self, actor: Actor, payload: bytes) -> bytes:
        """Decode a request, ask the actor, encode the answer."""
        answer: Message | ProtocolError
        try:
            request = Codec.of((self.message_type,)).decode_one(payload)
            answer = await actor.ask(request, self.timeout)
        except ProtocolError as error:
            answer = error
        except TimeoutError:
            answer = ProtocolError(ErrorCode.UNAVAILABLE, f"not done within {self.timeout:g} s; ask again")
        except (ActorStopped, MailboxFull) as error:
            answer = ProtocolError(ErrorCode.UNAVAILABLE, f"{error}; ask again")
        return encode(error_frame(answer, self.message_type.type) if isinstance(answer, ProtocolError) else answer)


class Receiver(Generic[T]):
    """Reads one consumer for an actor: decodes what it brings, hands it over, and settles it.

    `Actor` runs one for each `Consumer` in `receives`. An actor that gets its deliveries in another way takes them
    through a receiver of its own:

        receiver = Receiver(self, bus, Consumer(spec, decode_socket, batch=QueueBatch))
        async for deliveries in reader:
            await receiver.take(deliveries)
    """

    def __init__(self, actor: Actor, bus: Bus, consumer: Consumer[T]) -> None:
        self._actor = actor
        self._bus = bus
        self._consumer = consumer
        self._waits_for: type[Exception] | None = None
        self._skips_newer = False

    async def run(self) -> None:
        """Take everything that the consumer brings, until the actor stops. Raises `NotPermitted`."""
        async with contextlib.aclosing(self._consumer.open(self._bus)) as batches:
            async for deliveries in batches:
                if not self._consumer.first_delay:
                    await self.take(deliveries)
                    continue
                if repeated := [delivery for delivery in deliveries if delivery.attempt > 1]:
                    await self.take(repeated)
                if first := [delivery for delivery in deliveries if delivery.attempt == 1]:
                    self._actor.spawn(self._take_later(first), "first deliveries")

    async def _take_later(self, deliveries: Sequence[Delivery]) -> None:
        await asyncio.sleep(self._consumer.first_delay)
        await self.take(deliveries)

    async def take(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over these deliveries in order, and settle each. Returns when the handlers have returned."""
        try:
            if self._consumer.batch is None:
                for delivery in deliveries:
                    await self._settle([await self._read(delivery)], self._hand_over_messages)
                return
            most = self._consumer.batch_deliveries or len(deliveries) or 1
            for start in range(0, len(deliveries), most):
                await self._take_batch(deliveries[start : start + most])
        except ActorStopped:
            log.debug("%s: stopped before it handled all its deliveries", self._actor.address)

    # -- handing over --------------------------------------------------------------------------------

    async def _take_batch(self, deliveries: Sequence[Delivery]) -> None:
        batch: list[Received[T]] = []
        for delivery in deliveries:
            received = await self._read(delivery)
            if received.messages:
                batch.append(received)
            else:
                await delivery.ack()
        if batch:
            await self._settle(batch, self._hand_over_batch)

    async def _hand_over_messages(self, batch: Sequence[Received[T]]) -> None:
        """Have each message of one delivery handled on its own; what fails becomes a dead letter."""
        (received,) = batch
        for message, place in zip(received.messages, received.places, strict=True):
            try:
                await self._actor.process(message, received.delivery)
            except PASSED_ON:
                raise
            except Exception as error:
                await self._bury(received.delivery, place, error)

    async def _hand_over_batch(self, batch: Sequence[Received[T]]) -> None:
        """Have a batch handled. When that fails: each message of it on its own, if it is one delivery."""
        assert self._consumer.batch is not None
        try:
            await self._actor.process(self._consumer.batch(batch))
        except PASSED_ON:
            raise
        except Exception as error:
            if len(batch) > 1:
                raise
            (received,) = batch
            if len(received.messages) == 1:
                await self._bury(received.delivery, received.places[0], error)
                if self._consumer.handler_acks:
                    await received.delivery.ack()
                return
            log.exception(
                "%s: %s failed; its messages are handled one by one", self._actor.address, received.delivery.subject
            )
            for message, place in zip(received.messages, received.places, strict=True):
                await self._hand_over_batch([replace(received, messages=[message], places=[place])])

    async def _settle(self, batch: Sequence[Received[T]], hand_over: Callable[[Sequence[Received[T]]], Any]) -> None:
        """Hand over, then acknowledge; or have it delivered again later."""
        try:
            await hand_over(batch)
        except (ActorStopped, NotPermitted):
            raise
        except Retry as retry:
            await self._deliver_again(batch, retry.delay)
        except TRANSIENT_ERRORS as error:
            if type(error) is not self._waits_for:  # once, not for each message of each second
                log.warning("%s: %s is redelivered later: %s", self._actor.address, batch[0].delivery.subject, error)
            self._waits_for = type(error)
            await self._deliver_again(batch, RETRY_SECONDS)
        except Exception:  # of several deliveries; it is not known which
            log.exception("%s: %d deliveries failed; they are handled one by one", self._actor.address, len(batch))
            for received in batch:
                await self._settle([received], hand_over)
        else:
            self._waits_for = None
            if not self._consumer.handler_acks:
                await acknowledge([received.delivery for received in batch])

    async def _deliver_again(self, batch: Sequence[Received[T]], delay: float) -> None:
        for received in batch:
            await received.delivery.nak(delay)

    # -- decoding, and dead letters ------------------------------------------------------------------

    async def _read(self, delivery: Delivery) -> Received[T]:
        """Decode a delivery; what is no message goes to the dead letters. What only newer releases know is skipped."""
        messages: list[T] = []
        places: list[int] = []
        decoded = self._decode(delivery)
        for index, element in enumerate(decoded):
            if isinstance(element, Malformed) and element.newer:
                self._skip_newer(element)
            elif isinstance(element, Malformed):
                self._actor.show(delivery, element.error)
                await self._dead_letter(delivery, element.raw, str(element.error), element.index)
            else:
                messages.append(element)
                places.append(index)
        return Received(delivery, messages, places, len(decoded))

    def _skip_newer(self, element: Malformed) -> None:
        """Count a message of a newer release. Nobody else reads this consumer, so it is not left to anybody."""
        stream = self._consumer.spec.stream
        NEWER_MESSAGES.labels(stream).inc()
        if not self._skips_newer:  # once, not for each message of an upgrade
            self._skips_newer = True
            text = "%s: messages of %s that a newer release has written are skipped: %s"
            log.warning(text, self._actor.address, stream, element.error)

    def _decode(self, delivery: Delivery) -> Sequence[T | Malformed]:
        try:
            return self._consumer.decode(delivery.subject, delivery.payload, delivery.headers)
        except Exception as error:  # a fault of the codec: as a dead letter it holds up nobody, and is seen
            self._actor.record_failure(error)
            log.exception("%s: %s cannot be decoded", self._actor.address, delivery.subject)
            detail = f"the codec failed with {type(error).__name__}: {error}"
            return [Malformed(0, ProtocolError(ErrorCode.INVALID_MESSAGE, detail), delivery.payload)]

    async def _bury(self, delivery: Delivery, place: int, error: Exception) -> None:
        """Write a dead letter for the message at `place`, whose handler has raised."""
        self._actor.record_failure(error)
        log.error("%s: %s", self._actor.address, error, exc_info=error)
        reason = f"{self._actor.kind} failed with {type(error).__name__}: {error}"
        await self._dead_letter(delivery, extract_element(delivery.payload, place), reason, place)

    async def _dead_letter(self, delivery: Delivery, payload: bytes, reason: str, index: int) -> None:
        """Write one letter: its message id is the same for every reader of the message and for every delivery."""
        stream = self._consumer.spec.stream
        about = {**self._actor.about(), "stream": stream, "sequence": delivery.sequence}
        text = "%s: message %d of %s goes to the dead letters: %s"
        log.error(text, self._actor.address, delivery.sequence, stream, reason, extra=about)
        await self._bus.publish_until_stored([letter_of(delivery, stream, payload, reason, index)])
