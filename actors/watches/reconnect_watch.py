"""The reconnect watch: publishes the attempts of examinees who lost their connection. NATS counts them.

A loss stores one message on `reconnect.{planId}.{examineeId}`, and each delivery of it is one attempt. The consumer's
`max_deliver` is the limit of attempts and its `backoff` the time between them. After the last attempt NATS publishes an
advisory, which the stream ADVISORY stores: then the attempts are used up.
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
from protocol.broker.stream_codecs import Advisory, ReconnectWait, decode_advisory, decode_wait, encode_wait, parse_wait
from protocol.broker.streams import RECONNECT, RECONNECT_EXHAUSTED, attempt_seconds, reconnect_watch
from protocol.errors import StateDamaged, StateLost, StateUnavailable
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatusCode, ReconnectAttempt, ReconnectExhausted
from protocol.records import keys
from protocol.rules.connection_state import READMITTED, REMOVED
from protocol.times import format_time

log = logging.getLogger("examwire.reconnect_watch")

GRACE_SECONDS = 1.0
"""The first attempt waits so long at most: an examinee who is back by then is never shown as reconnecting."""


class Attempts(Batch[ReconnectWait]):
    """Lost examinees, one a delivery: the next attempt of each has begun, or the examinee is back."""


class ReconnectWatch(Actor):
    """Publishes attempts, and when they are used up. Several may run: they share the consumers.

    watch = ReconnectWatch(settings, bus, store, "rw1")
    await supervisor.start_child(ChildSpec("reconnect-watch", lambda: watch))
    """

    kind = "reconnect-watch"

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"reconnect-watch.{name}", bus)
        self._bus = bus
        self._store = store
        self._max_attempts = settings.reconnect.max_attempts
        self._attempt_seconds = attempt_seconds(self._max_attempts, settings.reconnect.backoff_seconds)
        self._actors = AddressBook(bus)
        self.receives = (
            Consumer(
                reconnect_watch(self._max_attempts, settings.reconnect.backoff_seconds),
                decode_wait,
                batch=Attempts,
                handler_acks=True,
                max_messages=1024,
                first_delay=min(GRACE_SECONDS, self._attempt_seconds[0] / 4),
            ),
            Consumer(RECONNECT_EXHAUSTED, decode_advisory),
        )
        self._redis_error: type[Exception] | None = None
        self.attempts = self.exhausted = 0

    def details(self) -> dict[str, Any]:
        return {"attempts": self.attempts, "exhausted": self.exhausted, "ladder": self._attempt_seconds}

    @on(Attempts)
    async def count_attempts(self, attempts: Attempts) -> None:
        """Publish the attempt that has begun for each examinee, and acknowledge those who are back.

        The others stay unacknowledged: after the next step of the backoff the broker delivers them again.
        """
        by_plan: dict[str, list[Message]] = {}
        now = self._bus.clock.now()
        waits = [(received.delivery, wait) for received in attempts.received for wait in received.messages]
        for (delivery, wait), is_over in zip(waits, await self._are_over(waits), strict=True):
            if is_over:
                await delivery.ack()
                continue
            self.attempts += 1
            ATTEMPTS.inc()
            next_attempt_at = None
            if delivery.attempt < self._max_attempts:
                next_attempt_at = format_time(now + self._attempt_seconds[delivery.attempt - 1])
            by_plan.setdefault(wait.plan_id, []).append(
                ReconnectAttempt(
                    plan_id=wait.plan_id,
                    examinee_id=wait.examinee_id,
                    loss_version=wait.loss_version,
                    attempt=delivery.attempt,
                    max_attempts=self._max_attempts,
                    next_attempt_at=next_attempt_at,
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

    async def _are_over(self, waits: list[tuple[Delivery, ReconnectWait]]) -> list[bool]:
        """Read from Redis which of these outages are over.

        While Redis is away none is: the attempt is published, and the rules ignore it if the examinee is back.
        """
        progress_keys = [keys.progress(wait.plan_id, wait.examinee_id) for _, wait in waits]
        try:
            records = await self._store.fields(progress_keys, ("connStatusCode", "lossVersion", "exhausted", "reason"))
        except (StateUnavailable, StateDamaged) as error:
            # A Redis that has lost its state is being repaired by a state manager: that is no warning.
            level = logging.INFO if isinstance(error, StateLost) else logging.WARNING
            if type(error) is not self._redis_error:  # log it once, not for each attempt
                log.log(level, "%s: attempts are not recorded: %s", self.address, error)
            self._redis_error = type(error)
            return [False] * len(waits)
        self._redis_error = None
        are_over: list[bool] = []
        newer_losses: list[Outgoing] = []
        for (delivery, wait), (status, current, exhausted, reason) in zip(waits, records, strict=True):
            away = status in (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)
            lost = away and exhausted != "1" and reason not in (READMITTED, REMOVED)
            loss = int(current) if current is not None and current.isascii() and current.isdigit() else 0
            if lost and loss > wait.loss_version:
                # Two state managers published two losses, the older one last, and it replaced the newer one here.
                newer_losses.append(Outgoing(delivery.subject, encode_wait(loss), f"again:{loss}"))
            are_over.append(not lost or loss != wait.loss_version)
        await self._bus.publish_until_stored(newer_losses)
        return are_over

    @on(Advisory)
    async def declare_exhausted(self, advisory: Advisory) -> None:
        """Publish that all attempts of an examinee are used up."""
        stored = await self._bus.message_at(RECONNECT.name, advisory.stream_seq)
        if stored is None or not stored.payload:
            return  # a newer loss has replaced it, and has its own attempts
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
