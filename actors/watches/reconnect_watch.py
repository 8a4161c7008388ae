"""The reconnect watch: each delivery of an examinee's message is one attempt, the engine does the counting.

A loss puts one message on `reconnect.{planId}.{examineeId}`. The consumer's `max_deliver` is the attempt limit and
its `backoff` the spacing; a message that is not acknowledged comes again after the next step. Past the last one
NATS sends an advisory, which a stream keeps for us.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.runtime.actor.actor import Actor
from actors.runtime.actor.micro_service import MicroService
from actors.runtime.actor.subscriber import Received, Subscriber
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery, PullConsumer
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.watches.metrics import ATTEMPTS, EXHAUSTED
from protocol.broker import subjects
from protocol.broker.stream_codecs import Advisory, ReconnectWait, decode_advisory, decode_wait, wait_of
from protocol.broker.streams import RECONNECT_EXHAUSTED, ladder_of, reconnect_watch
from protocol.errors import StateDamaged, StateLost, StateUnavailable
from protocol.messages.base import Message
from protocol.messages.codec import encode, encode_batches
from protocol.messages.facts import ConnectionStatusCode, ReconnectAttempt, ReconnectExhausted
from protocol.records import keys
from protocol.rules.connection_state import READMITTED, REMOVED
from protocol.times import format_time

log = logging.getLogger("examwire.reconnect_watch")

GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Attempts:
    """Examinees whose next attempt has begun, or who were back."""

    deliveries: list[Delivery]


class ReconnectWatch(Actor):
    """Counts the attempts of lost examinees. Several may run: they share the consumers."""

    kind = "reconnect-watch"

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"reconnect-watch.{name}")
        self._bus = bus
        self._store = store
        self._max_attempts = settings.reconnect.max_attempts
        self._ladder = ladder_of(self._max_attempts, settings.reconnect.backoff_seconds)
        self._consumer = reconnect_watch(self._max_attempts, settings.reconnect.backoff_seconds)
        self._grace = min(GRACE_SECONDS, self._ladder[0] / 4)
        self._micro_service = MicroService(bus, self)
        self._unseen: type[Exception] | None = None
        self.attempts = self.exhausted = 0

    async def on_start(self) -> None:
        await self._bus.consumer_ready(self._consumer.stream, self._consumer.name)
        await self._bus.consumer_ready(RECONNECT_EXHAUSTED.stream, RECONNECT_EXHAUSTED.name)
        await self._micro_service.announce()
        self.spawn(self._count(), "attempts")
        self.spawn(self._give_up(), "exhausted")

    async def on_stop(self) -> None:
        await self._micro_service.withdraw()

    def details(self) -> dict[str, Any]:
        consumers = [f"{one.stream}/{one.name}" for one in (self._consumer, RECONNECT_EXHAUSTED)]
        return {"consumers": consumers, "attempts": self.attempts, "exhausted": self.exhausted, "ladder": self._ladder}

    async def _count(self) -> None:
        subscriber = Subscriber(self, self._bus, self._consumer.stream, decode_wait)
        consumer = PullConsumer(
            self._bus, self._consumer.stream, self._consumer.name, max_messages=1024, made_again=True
        )
        async for deliveries in consumer:
            readable = await subscriber.readable(deliveries)
            new = [received for received in readable if received.delivery.attempt == 1]
            again = [received for received in readable if received.delivery.attempt > 1]
            if again:
                await subscriber.together(again, self._attempts)
            if new:
                self.spawn(self._after_grace(subscriber, new), "grace")

    async def _after_grace(
        self, subscriber: Subscriber[ReconnectWait], received: list[Received[ReconnectWait]]
    ) -> None:
        """Who is back at once was never away for anybody; and a hall's losses go before its attempts."""
        await asyncio.sleep(self._grace)
        await subscriber.together(received, self._attempts)

    async def _attempts(self, received: Sequence[Received[ReconnectWait]]) -> None:
        """The next attempt of these has begun. Settled are those who were back; the others come again after it."""
        began = time.perf_counter()
        by_plan: dict[str, list[Message]] = {}
        now = self._bus.clock.now()
        waited_for = [(one.delivery, wait) for one in received for wait in one.messages]
        for (delivery, wait), over in zip(waited_for, await self._over(waited_for), strict=True):
            if over:
                await delivery.ack()
                continue
            self.attempts += 1
            ATTEMPTS.inc()
            following = None
            if delivery.attempt < self._max_attempts:
                following = format_time(now + self._ladder[delivery.attempt - 1])
            by_plan.setdefault(wait.plan_id, []).append(
                ReconnectAttempt(
                    plan_id=wait.plan_id,
                    examinee_id=wait.examinee_id,
                    loss_version=wait.loss_version,
                    attempt=delivery.attempt,
                    max_attempts=self._max_attempts,
                    next_attempt_at=following,
                    timestamp=format_time(now),
                )
            )
        await self._bus.publish_surely(
            [
                Outgoing(subjects.status_plan(plan_id, subjects.WATCH), payload)
                for plan_id, messages in by_plan.items()
                for payload in encode_batches(messages)
            ]
        )
        self.account_for(Attempts([one.delivery for one in received]), began)
        self.handled += len(received) - 1  # a batch counts as its messages

    async def _over(self, waited_for: list[tuple[Delivery, ReconnectWait]]) -> list[bool]:
        """Which of these outages are over. With Redis away: none, as far as we know; the rules fence the attempt."""
        wanted = [keys.progress(wait.plan_id, wait.examinee_id) for _, wait in waited_for]
        try:
            known = await self._store.fields(wanted, ("connStatusCode", "lossVersion", "exhausted", "reason"))
        except (StateUnavailable, StateDamaged) as error:
            # What has to be repaired first is being repaired, after every restart of Redis: nobody need look.
            level = logging.INFO if isinstance(error, StateLost) else logging.WARNING
            if type(error) is not self._unseen:  # once, not at each attempt of each examinee
                log.log(level, "%s: attempts go on unseen: %s", self.address, error)
            self._unseen = type(error)
            return [False] * len(waited_for)
        self._unseen = None
        over: list[bool] = []
        newer: list[Outgoing] = []
        for (delivery, wait), (status, current, exhausted, reason) in zip(waited_for, known, strict=True):
            away = status in (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)
            lost = away and exhausted != "1" and reason not in (READMITTED, REMOVED)
            loss = int(current) if current is not None and current.isascii() and current.isdigit() else 0
            if lost and loss > wait.loss_version:
                # Two state managers told of two losses, the older one last, and it took the newer one's place here.
                newer.append(Outgoing(delivery.subject, b'{"lossVersion":%d}' % loss, f"again:{loss}"))
            over.append(not lost or loss != wait.loss_version)
        await self._bus.publish_surely(newer)
        return over

    async def _give_up(self) -> None:
        consumer = PullConsumer(self._bus, RECONNECT_EXHAUSTED.stream, RECONNECT_EXHAUSTED.name, made_again=True)
        subscriber = Subscriber(self, self._bus, RECONNECT_EXHAUSTED.stream, decode_advisory, self._exhausted)
        await subscriber.follow(consumer)

    async def _exhausted(self, received: Received[Advisory]) -> None:
        (advisory,) = received.messages
        stored = await self._bus.message_at(self._consumer.stream, advisory.stream_seq)
        if stored is None or not stored.payload:
            return  # gone: a newer loss has replaced it, and has its own attempts
        wait = wait_of(stored.subject, stored.payload)
        message = ReconnectExhausted(
            plan_id=wait.plan_id,
            examinee_id=wait.examinee_id,
            loss_version=wait.loss_version,
            timestamp=format_time(self._bus.clock.now()),
        )
        address = subjects.status_plan(wait.plan_id, subjects.WATCH)
        await self._bus.publish_surely([Outgoing(address, encode(message), f"exhausted:{message.loss_version}")])
        self.exhausted += 1
        about = {"plan": wait.plan_id, "examinee": wait.examinee_id, "version": message.loss_version}
        log.info("%s: all attempts of %s are used up", self.address, wait.examinee_id, extra=about)
        EXHAUSTED.inc()
