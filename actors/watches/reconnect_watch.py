"""The reconnect watch: each delivery of an examinee's message is one attempt, the engine does the counting.

A loss puts one message on `reconnect.{planId}.{examineeId}`. The consumer's `max_deliver` is the attempt limit and
its `backoff` the spacing; a message that is not acknowledged comes again after the next step. Past the last one
NATS sends an advisory, which a stream keeps for us.
"""

from __future__ import annotations

import logging
from typing import Any

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.addresses import AddressBook
from actors.runtime.actor.receiver import Batch, Consumer
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.watches.metrics import ATTEMPTS, EXHAUSTED
from protocol.broker import subjects
from protocol.broker.stream_codecs import Advisory, ReconnectWait, decode_advisory, decode_wait, parse_wait
from protocol.broker.streams import RECONNECT, RECONNECT_EXHAUSTED, attempt_seconds, reconnect_watch
from protocol.errors import StateDamaged, StateLost, StateUnavailable
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatusCode, ReconnectAttempt, ReconnectExhausted
from protocol.records import keys
from protocol.rules.connection_state import READMITTED, REMOVED
from protocol.times import format_time

log = logging.getLogger("examwire.reconnect_watch")

GRACE_SECONDS = 1.0


class Attempts(Batch[ReconnectWait]):
    """Examinees whose next attempt has begun, or who are back."""


class ReconnectWatch(Actor):
    """Counts the attempts of lost examinees. Several may run: they share the consumers."""

    kind = "reconnect-watch"

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"reconnect-watch.{name}", bus)
        self._bus = bus
        self._store = store
        self._max_attempts = settings.reconnect.max_attempts
        self._ladder = attempt_seconds(self._max_attempts, settings.reconnect.backoff_seconds)
        self._actors = AddressBook(bus)
        self.receives = (
            Consumer(
                reconnect_watch(self._max_attempts, settings.reconnect.backoff_seconds),
                decode_wait,
                batch=Attempts,
                handler_acks=True,
                max_messages=1024,
                first_delay=min(GRACE_SECONDS, self._ladder[0] / 4),
            ),
            Consumer(RECONNECT_EXHAUSTED, decode_advisory),
        )
        self._unseen: type[Exception] | None = None
        self.attempts = self.exhausted = 0

    def details(self) -> dict[str, Any]:
        return {"attempts": self.attempts, "exhausted": self.exhausted, "ladder": self._ladder}

    @on(Attempts)
    async def count_attempts(self, attempts: Attempts) -> None:
        """Publish the attempt that has begun for each examinee, and acknowledge those who are back.

        The others stay unacknowledged: after the next step of the backoff the broker delivers them again.
        """
        by_plan: dict[str, list[Message]] = {}
        now = self._bus.clock.now()
        waited_for = [(received.delivery, wait) for received in attempts.received for wait in received.messages]
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
        await self._bus.publish_until_stored(
            [
                outgoing
                for plan_id, messages in by_plan.items()
                for outgoing in Outgoing.batches(subjects.status_plan(plan_id, subjects.WATCH), messages)
            ]
        )

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
        await self._bus.publish_until_stored(newer)
        return over

    @on(Advisory)
    async def declare_exhausted(self, advisory: Advisory) -> None:
        """Publish that all attempts of an examinee are used up."""
        stored = await self._bus.message_at(RECONNECT.name, advisory.stream_seq)
        if stored is None or not stored.payload:
            return  # gone: a newer loss has replaced it, and has its own attempts
        wait = parse_wait(stored.subject, stored.payload)
        message = ReconnectExhausted(
            plan_id=wait.plan_id,
            examinee_id=wait.examinee_id,
            loss_version=wait.loss_version,
            timestamp=format_time(self._bus.clock.now()),
        )
        address = subjects.status_plan(wait.plan_id, subjects.WATCH)
        await self._actors.tell(address, message, message_id=f"exhausted:{message.loss_version}")
        self.exhausted += 1
        about = {"plan": wait.plan_id, "examinee": wait.examinee_id, "version": message.loss_version}
        log.info("%s: all attempts of %s are used up", self.address, wait.examinee_id, extra=about)
        EXHAUSTED.inc()
