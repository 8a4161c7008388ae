"""Reading a durable consumer: one long pull stays open, and whatever has arrived is handled as one batch."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.wire import Arrival
from actors.runtime.telemetry.metrics import DELIVERY_AGE, REDELIVERIES
from protocol.errors import BrokerUnavailable, ConsumerGone, NotPermitted
from protocol.messages.progress import HeldDeliveries

log = logging.getLogger("examwire.pull")

PULL_SECONDS = 30.0
HEARTBEAT_SECONDS = 2.0  # a pull that died with its leader is noticed after two of them
_TERMINAL = frozenset({"404", "408", "409", "503"})


@dataclass(slots=True, eq=False)
class Delivery:
    """One delivered message. `attempt` counts its deliveries from 1; `pending` messages wait behind it."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    sequence: int
    attempt: int
    pending: int
    stored_at: float
    _reply: str
    _publish: Callable[[Sequence[str], bytes], Awaitable[None]]
    _unsettled: set[Delivery]
    epoch: int = 0
    """The `epoch` of its consumer when it came."""
    left_before: bool = False
    """This reader has had it before and left it for later (`PinnedConsumer.leave`)."""

    async def ack(self) -> None:
        """Done: it will not come again. Lost acks lead to a redelivery, which has no second effect."""
        await acknowledge([self])

    async def nak(self, delay: float) -> None:
        """Deliver it again after `delay` seconds."""
        self._unsettled.discard(self)
        await _settle([self], b'-NAK {"delay": %d}' % int(delay * 1e9))


async def acknowledge(deliveries: Sequence[Delivery]) -> None:
    """Acknowledge deliveries of one connection: together they cost far less than one by one (`Delivery.ack`)."""
    for delivery in deliveries:
        delivery._unsettled.discard(delivery)
    await _settle(deliveries, b"+ACK")


async def _settle(deliveries: Sequence[Delivery], verdict: bytes) -> None:
    if not deliveries:
        return
    try:
        await deliveries[0]._publish([delivery._reply for delivery in deliveries], verdict)
    except BrokerUnavailable as error:
        log.debug("%d messages not settled, the first on %s: %s", len(deliveries), deliveries[0].subject, error)


class AckSubject(NamedTuple):
    """What the ack subject of a delivery says about it."""

    attempt: int
    sequence: int
    consumer_sequence: int
    stored_at: float
    """When the broker stored it (epoch seconds), as `parse_time` reads the same moment in an answer of the broker: a
    deadline made from either is the same."""
    pending: int

    @classmethod
    def of(cls, subject: str) -> AckSubject:
        """Read an ack subject.

        It has `$JS.ACK`, perhaps a domain and an account, stream, consumer, deliveries, the sequences in the stream and
        for the consumer, the time in ns, pending, and perhaps a random token.
        """
        tokens = subject.split(".")
        start = 4 if len(tokens) == 9 else 6
        attempt, sequence, consumer_sequence, nanoseconds, pending = map(int, tokens[start : start + 5])
        return cls(attempt or 1, sequence, consumer_sequence, nanoseconds // 1000 / 1e6, pending)


class PullConsumer:
    """An async iterator of batches (never empty) from a durable consumer.

    At most `max_messages` are on their way or waiting here: that is the backpressure. The iteration survives
    reconnects and broker restarts; it ends with `ConsumerGone` when the consumer no longer exists, or is another one
    of the same name: one without this `metadata`; with `NotPermitted` when the broker does not let this user read it.

    With `made_again` the queue server makes a consumer that has vanished again
    (`actors.queue_server.topology_watch`): the
    iteration waits for that and goes on.

    With `keep_alive` (seconds, well below the consumer's ack wait) everything that was delivered and is not settled
    yet is reported as in progress: a short ack wait then means "this process is gone", not "this takes long".
    """

    epoch = 0
    """Of a pinned consumer: which of this client's terms as its reader this is."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumer: str,
        *,
        max_messages: int = 256,
        metadata: Mapping[str, str] | None = None,
        keep_alive: float | None = None,
        made_again: bool = False,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._consumer = consumer
        self._max = max_messages
        self._metadata = metadata or {}
        self._keep_alive = keep_alive
        self._made_again = made_again
        self._missing = False
        self._unsettled: set[Delivery] = set()
        self._age, self._redelivered = DELIVERY_AGE.labels(consumer), REDELIVERIES.labels(consumer)
        self._buffer: deque[Delivery] = deque()
        self._settled_before: list[Delivery] = []
        """Deliveries whose acks were lost."""
        self._wake = asyncio.Event()
        self._outstanding = 0
        self._pull_no = 0
        self._last_heard = 0.0
        self._complaints = 0
        self._inbox = ""
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._gone: ConsumerGone | NotPermitted | None = None
        self.pending = 0

    def __aiter__(self) -> AsyncGenerator[list[Delivery], None]:
        return self._batches()

    def in_hand(self) -> HeldDeliveries:
        """Return the deliveries that are not settled yet; they are counted with `keep_alive` only."""
        oldest = min((one.stored_at for one in self._unsettled), default=None)
        return HeldDeliveries(len(self._unsettled), oldest)

    def _refused(self, refusal: NotPermitted) -> None:
        self._gone = refusal
        self._wake.set()

    async def _batches(self) -> AsyncGenerator[list[Delivery], None]:
        with self._bus.refusals.watch(self._next, self._refused):
            async for batch in self._pulled():
                yield batch

    async def _pulled(self) -> AsyncGenerator[list[Delivery], None]:
        loop = asyncio.get_running_loop()
        self._inbox = self._bus.new_inbox()
        self._outstanding = 0  # pulls of an earlier iteration have ended with it
        handle = self._bus.subscribe_direct(f"{self._inbox}.*", self._received)
        self._last_heard = loop.time()
        watch = loop.create_task(self._watch_pulls())
        self._bus.on_reconnected.append(self._pull_anew)
        keeper = loop.create_task(self._keep_alive_loop(self._keep_alive)) if self._keep_alive is not None else None
        try:
            while True:
                self._wake.clear()
                if self._settled_before:
                    settled, self._settled_before = self._settled_before, []
                    await acknowledge(settled)
                if self._complaints:
                    await self._check()  # before the next pull: it might take what is somebody else's
                if self._gone is not None:
                    raise self._gone
                if not self._buffer:
                    if self._outstanding <= 0:
                        await self._pull()
                    if not self._buffer:
                        await self._wake.wait()
                    continue
                batch = list(self._buffer)
                self._buffer.clear()
                self.pending = batch[-1].pending
                if self._outstanding <= 0:
                    await self._pull()
                yield batch
        finally:
            watch.cancel()
            if keeper is not None:
                keeper.cancel()
            self._bus.on_reconnected.remove(self._pull_anew)
            self._bus.unsubscribe_direct(handle)

    async def _watch_pulls(self) -> None:
        """Pull anew when a pull has died silently."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if asyncio.get_running_loop().time() - self._last_heard > HEARTBEAT_SECONDS * 2:
                await self._pull_anew()

    async def _keep_alive_loop(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await _settle(list(self._unsettled), b"+WPI")

    async def _pull(self) -> None:
        self._pull_no += 1
        self._outstanding = self._max
        body = self._request()
        self._last_heard = asyncio.get_running_loop().time()
        try:
            await self._bus.publish_core(self._next, json.dumps(body).encode(), reply=f"{self._inbox}.{self._pull_no}")
        except BrokerUnavailable as error:
            log.debug("%s/%s: %s", self._stream, self._consumer, error)
            self._outstanding = 0
            await asyncio.sleep(0.25)

    def _request(self) -> dict[str, Any]:
        """Return the body of a pull request."""
        return {
            "batch": self._max,
            "expires": int(PULL_SECONDS * 1e9),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
        }

    def _takes(self, delivery: Delivery, consumer_sequence: int) -> bool:
        """Return whether to hand a delivery over. One that is not handed over stays unacknowledged."""
        return True

    async def _pull_anew(self) -> None:
        self._outstanding = 0
        self._wake.set()

    def _received(self, arrival: Arrival) -> None:
        self._last_heard = asyncio.get_running_loop().time()
        if not arrival.reply.startswith("$JS.ACK"):
            headers = arrival.headers or {}
            status = headers.get("Status")
            if status in _TERMINAL and arrival.subject.endswith(f".{self._pull_no}"):
                self._outstanding = 0
                description = headers.get("Description", "")
                if status == "503" or "Deleted" in description or "No Responders" in description:
                    self._complaints += 1
                self._wake.set()
            return
        about = AckSubject.of(arrival.reply)
        self._complaints = 0
        delivery = Delivery(
            arrival.subject,
            arrival.data,
            arrival.headers or {},
            about.sequence,
            about.attempt,
            about.pending,
            about.stored_at,
            arrival.reply,
            self._bus.publish_to_each,
            self._unsettled,
            self.epoch,
        )
        if self._outstanding > 0:
            self._outstanding -= 1
        if delivery.attempt > 1:
            self._redelivered.inc()
        if not self._takes(delivery, about.consumer_sequence):
            self._wake.set()
            return
        if self._keep_alive is not None:
            self._unsettled.add(delivery)
        if delivery.attempt == 1 and not self._buffer:  # the oldest of its batch
            self._age.observe(max(0.0, self._bus.clock.now() - delivery.stored_at))
        self._buffer.append(delivery)
        self._wake.set()

    async def _check(self) -> None:
        """The server refused a pull: is the consumer gone, or is JetStream not up yet?"""
        await asyncio.sleep(min(0.1 * self._complaints, 1.0))
        try:
            config = await self._bus.consumer_config(self._stream, self._consumer)
            if config is None and self._made_again:
                if not self._missing:
                    log.error("%s/%s does not exist: waiting for a queue server", self._stream, self._consumer)
                self._missing = True
            elif config is None:
                self._gone = ConsumerGone(f"consumer {self._stream}/{self._consumer} does not exist")
            elif not self._metadata.items() <= (config.get("metadata") or {}).items():
                self._gone = ConsumerGone(f"consumer {self._stream}/{self._consumer} is somebody else's now")
            else:
                if self._missing:
                    log.warning("%s/%s is there again", self._stream, self._consumer)
                self._missing, self._complaints = False, 0
        except BrokerUnavailable as error:
            log.debug("%s/%s: %s", self._stream, self._consumer, error)
