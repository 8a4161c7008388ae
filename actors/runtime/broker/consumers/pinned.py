"""Reading a durable consumer in the stream's order, by one client at a time (a pinned priority group, NATS ADR-42).

The broker gives a consumer's messages to one client, the pinned one, until that one has not asked for so long. What
the former reader had in hand would be delivered again only later, behind newer messages. So whoever takes over is out
of step, and resets the consumer as `OrderedConsumer` does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.consumers.ordered import OrderedConsumer
from actors.runtime.broker.stream_state import PinnedState
from actors.runtime.broker.wire import Arrival
from protocol.broker.streams import PIN_GROUP, ConsumerSpec
from protocol.errors import BrokerUnavailable, ConsumerGone, NotPermitted
from protocol.messages.progress import HeldDeliveries

log = logging.getLogger("examwire.pull")

PULL_SECONDS = 0.75
"""How long a pinned client's pull lasts: each new one tells the broker that this client is alive."""
CHECK_SECONDS = 0.75
MOST_IN_HAND = 512
"""With more deliveries in hand a client asks for single messages only, so that it stays pinned and its memory flat."""
RELEASED_SECONDS = 2.0
"""For so long a client that has released a consumer leaves it to the others."""
_WRONG_PIN = "423"


class PinnedConsumer(OrderedConsumer):
    """An async iterator of batches in the stream's order while this client is pinned; otherwise it waits.

    `owned` says whether this client is the pinned one as far as it knows; `confirm_owned` asks the broker. What was
    delivered before the pin was lost must have no lasting effect: compare `Delivery.epoch` with `epoch`.

    Example::

        async for deliveries in (consumer := PinnedConsumer(bus, spec)):
            if await consumer.confirm_owned(deliveries[0].epoch):
                ...
    """

    def __init__(self, bus: Bus, spec: ConsumerSpec, *, max_messages: int = 64) -> None:
        super().__init__(
            bus, spec.stream, spec.name, max_messages=max_messages, keep_alive=spec.ack_wait / 4, made_again=True
        )
        assert spec.pin_seconds is not None
        self.spec = spec
        self.state: PinnedState | None = None
        """What the broker said last, while this client was the pinned one."""
        self._pin_seconds = spec.pin_seconds
        self._pin: str | None = None
        self._pulled_at = 0.0  # when this client asked for messages under its pin, which lasts so long from then on
        self._confirmed = 0.0  # the same, of a pull that the broker has surely had
        self._check_now = asyncio.Event()
        self._checked = asyncio.Event()
        self._released_until = 0.0
        self._left: str | None = None  # the pin that this client had when its iteration ended
        # Sequences of the messages that were left for later, and of those that have come again since.
        self._due_again: set[int] = set()
        self._come_again: set[int] = set()

    @property
    def owned(self) -> bool:
        """Whether this client is the pinned one: it has asked for messages lately, and the broker has said so since."""
        return self._pin is not None and asyncio.get_running_loop().time() - self._confirmed < self._pin_seconds

    async def confirm_owned(self, epoch: int) -> bool:
        """Wait until the broker confirms that this client still has the pin of `epoch`; False: another client reads."""
        while epoch == self.epoch:
            if self.owned:
                return True
            self._checked.clear()
            self._check_now.set()
            await self._checked.wait()
        return False

    async def release(self) -> None:
        """Leave the consumer to another client, also after the iteration has ended. Harmless when it is not pinned."""
        pin = self._pin or self._left
        if pin is None or not self._bus.connected:
            return
        self._released_until = asyncio.get_running_loop().time() + RELEASED_SECONDS
        self._lose("released")
        try:
            if (await self._bus.pinned_state(self._stream, self._consumer)).pin == pin:
                await self._bus.unpin_consumer(self._stream, self._consumer)
        except (BrokerUnavailable, ConsumerGone) as error:
            log.debug("%s/%s: %s", self._stream, self._consumer, error)

    async def leave(self, delivery: Delivery, delay: float) -> None:
        """Have a message come again after `delay` seconds. Newer messages do not wait for it."""
        if delivery.epoch == self.epoch:
            self._due_again.add(delivery.sequence)
            self._come_again.discard(delivery.sequence)
            await delivery.nak(delay)

    def in_hand(self) -> HeldDeliveries:
        """Return the deliveries that are not settled yet. What was left for later is counted as such."""
        self._come_again &= {delivery.sequence for delivery in self._unsettled}
        held = [delivery.stored_at for delivery in self._unsettled if delivery.sequence not in self._come_again]
        left = len(self._due_again) + len(self._come_again)
        return HeldDeliveries(len(held), min(held, default=None), left)

    # -- pulling ---------------------------------------------------------------------------------------

    async def _pulled(self) -> AsyncGenerator[list[Delivery], None]:
        checks = asyncio.get_running_loop().create_task(self._check_pin(), name=f"pin:{self._consumer}")
        try:
            async for batch in super()._pulled():
                # A pin may have been lost while the batch waited here.
                if current := [delivery for delivery in batch if delivery.epoch == self.epoch]:
                    yield current
        finally:
            checks.cancel()
            self._left = self._pin
            self._forget()

    def _request(self) -> dict[str, Any]:
        body = super()._request() | {"group": PIN_GROUP}
        if self._pin is not None:
            body |= {"id": self._pin, "expires": int(PULL_SECONDS * 1e9)}
            if self._crowded:
                body["batch"] = 1
            del body["idle_heartbeat"]
        return body

    async def _pull(self) -> None:
        pause = self._released_until - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)
        if self._crowded:
            await asyncio.sleep(PULL_SECONDS)
        pin, now = self._pin, asyncio.get_running_loop().time()
        crowded = self._crowded
        await super()._pull()
        if crowded:
            self._outstanding = min(self._outstanding, 1)
        if pin is not None and pin == self._pin:
            self._pulled_at = now

    def _received(self, arrival: Arrival) -> None:
        headers = arrival.headers or {}
        if headers.get("Status") == _WRONG_PIN:
            if arrival.subject.endswith(f".{self._pull_no}"):
                self._lose("another client reads it now")
                self._outstanding = 0
                self._wake.set()
            return
        pin = headers.get("Nats-Pin-Id")
        if pin is not None and pin != self._pin:
            self._take(pin)
        super()._received(arrival)

    @property
    def _crowded(self) -> bool:
        return self._pin is not None and len(self._unsettled) >= MOST_IN_HAND

    def _takes_settled(self, delivery: Delivery) -> bool:
        if delivery.sequence in self._due_again:
            self._due_again.discard(delivery.sequence)
            self._come_again.add(delivery.sequence)
            delivery.left_before = True
            return True
        self._settled_before.append(delivery)
        return False

    def _want_reset(self) -> None:
        super()._want_reset()
        if self._pin is None:
            self._reset_wanted.clear()  # somebody else reads it

    # -- the pin ---------------------------------------------------------------------------------------

    def _take(self, pin: str) -> None:
        self._forget()
        self._pin = pin
        self._outstanding = 0  # the next pull names the pin
        self._check_now.set()

    def _lose(self, why: str) -> None:
        if self._pin is not None:
            log.info("%s/%s: %s", self._stream, self._consumer, why)
        self._forget()

    def _forget(self) -> None:
        self.epoch += 1
        self.state = None
        self._pin = self._following = None
        self._pulled_at = self._confirmed = 0.0
        self._newest = 0
        self._unsettled.clear()
        self._due_again.clear()
        self._come_again.clear()
        self._buffer.clear()
        self._settled_before.clear()
        self._checked.set()

    async def _check_pin(self) -> None:
        """Ask the broker whose consumer it is, each second while it is ours and when somebody wants to know."""
        while True:
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._check_now.wait()
            except TimeoutError:
                pass
            self._check_now.clear()
            if self._pin is None:
                self._checked.set()
                continue
            pin, pulled_at = self._pin, self._pulled_at
            try:
                state = await self._bus.pinned_state(self._stream, self._consumer)
            except (BrokerUnavailable, ConsumerGone) as error:
                log.debug("%s/%s: %s", self._stream, self._consumer, error)
                await asyncio.sleep(0.1)
                continue
            except NotPermitted as refusal:
                self._refused(refusal)
                return
            if pin != self._pin:
                continue
            if state.pin == pin:
                self._confirmed = pulled_at
                self.state = state
                self._checked.set()
            else:
                self._lose("the broker has given it to another client")
                await self._pull_anew()
