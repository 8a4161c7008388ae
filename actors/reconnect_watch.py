"""The reconnect watch: each delivery of an examinee's message is one attempt, the engine does the counting.

A loss puts one message on `reconnect.{planId}.{examineeId}`. The consumer's `max_deliver` is the attempt limit and
its `backoff` the spacing; a message that is not acknowledged comes again after the next step. Past the last one
NATS sends an advisory, which a stream keeps for us.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import pydantic_core

from actors.dead_letter import dead_letter
from actors.runtime.actor import Actor
from actors.runtime.bus import Bus, Outgoing
from actors.runtime.presence import Presence
from actors.runtime.pull import Delivery, PullConsumer
from actors.runtime.settings import Settings
from actors.runtime.state_store import StateStore
from actors.runtime.stream_admin import Stored
from actors.state_metrics import ATTEMPTS, EXHAUSTED
from protocol import keys, subjects
from protocol.codec import encode, encode_batches
from protocol.connection import READMITTED, REMOVED
from protocol.errors import ErrorCode, ProtocolError, StateDamaged, StateLost, StateUnavailable
from protocol.facts import ConnectionStatusCode, ReconnectAttempt, ReconnectExhausted
from protocol.ids import check_id
from protocol.streams import RECONNECT_EXHAUSTED, ladder_of, reconnect_watch
from protocol.times import format_time
from protocol.wire import Message

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
        self._presence = Presence(bus, self)
        self.attempts = self.exhausted = 0

    async def on_start(self) -> None:
        await self._bus.consumer_ready(self._consumer.stream, self._consumer.name)
        await self._bus.consumer_ready(RECONNECT_EXHAUSTED.stream, RECONNECT_EXHAUSTED.name)
        await self._presence.announce()
        self.spawn(self._count(), "attempts")
        self.spawn(self._give_up(), "exhausted")

    async def on_stop(self) -> None:
        await self._presence.withdraw()

    def details(self) -> dict[str, Any]:
        consumers = [f"{one.stream}/{one.name}" for one in (self._consumer, RECONNECT_EXHAUSTED)]
        return {"consumers": consumers, "attempts": self.attempts, "exhausted": self.exhausted, "ladder": self._ladder}

    async def _count(self) -> None:
        async for deliveries in PullConsumer(self._bus, self._consumer.stream, self._consumer.name, max_messages=1024):
            readable = await self._readable(deliveries)
            new = [delivery for delivery in readable if delivery.attempt == 1]
            again = [delivery for delivery in readable if delivery.attempt > 1]
            if again:
                await self._attempts(again)
            if new:
                self.spawn(self._after_grace(new), "grace")

    async def _readable(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those that say which loss they wait for; the others are put aside, or each would take its batch with it."""
        readable = []
        for delivery in deliveries:
            try:
                _loss_version(delivery)
            except ProtocolError as error:
                about = {"stream": self._consumer.stream, "sequence": delivery.sequence}
                log.error("%s: %s goes to the dead letters: %s", self.address, delivery.subject, error, extra=about)
                where = (self._consumer.stream, delivery.subject, delivery.sequence)
                letter = dead_letter(*where, delivery.payload, str(error), headers=delivery.headers)
                await self._bus.publish_surely([letter])
                await delivery.ack()
            else:
                readable.append(delivery)
        return readable

    async def _after_grace(self, deliveries: list[Delivery]) -> None:
        """Who is back at once was never away for anybody; and a hall's losses go before its attempts."""
        await asyncio.sleep(self._grace)
        await self._attempts(deliveries)

    async def _attempts(self, deliveries: list[Delivery]) -> None:
        began = time.perf_counter()
        by_plan: dict[str, list[Message]] = {}
        now = time.time()
        for delivery, over in zip(deliveries, await self._over(deliveries), strict=True):
            if over:
                await delivery.ack()
                continue
            self.attempts += 1
            ATTEMPTS.inc()
            plan_id, examinee_id = _examinee(delivery.subject)
            following = None
            if delivery.attempt < self._max_attempts:
                following = format_time(now + self._ladder[delivery.attempt - 1])
            by_plan.setdefault(plan_id, []).append(
                ReconnectAttempt(
                    plan_id=plan_id,
                    examinee_id=examinee_id,
                    loss_version=_loss_version(delivery),
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
        self.account_for(Attempts(deliveries), began)
        self.handled += len(deliveries) - 1  # a batch counts as its messages

    async def _over(self, deliveries: list[Delivery]) -> list[bool]:
        """Which of these outages are over. With Redis away: none, as far as we know; the rules fence the attempt."""
        wanted = [keys.progress(*_examinee(delivery.subject)) for delivery in deliveries]
        try:
            known = await self._store.fields(wanted, ("connStatusCode", "lossVersion", "exhausted", "reason"))
        except (StateUnavailable, StateDamaged) as error:
            # What has to be repaired first is being repaired, after every restart of Redis: nobody need look.
            level = logging.INFO if isinstance(error, StateLost) else logging.WARNING
            log.log(level, "%s: attempts go on unseen: %s", self.address, error)
            return [False] * len(deliveries)
        over: list[bool] = []
        newer: list[Outgoing] = []
        for delivery, (status, current, exhausted, reason) in zip(deliveries, known, strict=True):
            waited_for = _loss_version(delivery)
            away = status in (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)
            lost = away and exhausted != "1" and reason not in (READMITTED, REMOVED)
            if lost and int(current or 0) > waited_for:
                # Two state managers told of two losses, the older one last, and it took the newer one's place here.
                newer.append(Outgoing(delivery.subject, b'{"lossVersion":%d}' % int(current or 0), f"again:{current}"))
            over.append(not lost or current != str(waited_for))
        await self._bus.publish_surely(newer)
        return over

    async def _give_up(self) -> None:
        async for deliveries in PullConsumer(self._bus, RECONNECT_EXHAUSTED.stream, RECONNECT_EXHAUSTED.name):
            for delivery in deliveries:
                began = time.perf_counter()
                await self._exhausted(delivery)
                self.account_for(delivery, began)

    async def _exhausted(self, delivery: Delivery) -> None:
        advisory = pydantic_core.from_json(delivery.payload)
        stored = await self._bus.message_at(self._consumer.stream, advisory["stream_seq"])
        if stored is not None and stored.payload:  # gone: a newer loss has replaced it, and has its own attempts
            plan_id, examinee_id = _examinee(stored.subject)
            message = ReconnectExhausted(
                plan_id=plan_id,
                examinee_id=examinee_id,
                loss_version=_loss_version(stored),
                timestamp=format_time(time.time()),
            )
            address = subjects.status_plan(plan_id, subjects.WATCH)
            await self._bus.publish_surely([Outgoing(address, encode(message), f"exhausted:{message.loss_version}")])
            self.exhausted += 1
            about = {"plan": plan_id, "examinee": examinee_id, "version": message.loss_version}
            log.info("%s: all attempts of %s are used up", self.address, examinee_id, extra=about)
            EXHAUSTED.inc()
        await delivery.ack()


def _loss_version(waiting: Delivery | Stored) -> int:
    """The loss that is waited for. Raises `ProtocolError`: whatever lies there is none of the state manager's."""
    plan_id, examinee_id = _examinee(waiting.subject)
    check_id("planId", plan_id)
    check_id("examineeId", examinee_id)
    try:
        found = pydantic_core.from_json(waiting.payload)
    except ValueError as error:
        raise ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {error}") from error
    match found:
        case {"lossVersion": int(version)}:
            return version
    raise ProtocolError(ErrorCode.INVALID_MESSAGE, 'not {"lossVersion": a version}')


def _examinee(subject: str) -> tuple[str, str]:
    _, plan_id, examinee_id = subject.split(".")
    return plan_id, examinee_id
