"""The reconnect watch: publishes the attempts of examinees who lost their connection. NATS counts them.

A loss stores one message on `reconnect.{planId}.{examineeId}`, and each delivery of it is one attempt. The watch
answers each delivery with the time of the next one, by the ladder of the plan. At the delivery after the last attempt
the attempts are used up.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.receiver import Batch, Consumer
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery, acknowledge
from actors.runtime.config.ladder import Ladder
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.watches.metrics import ATTEMPTS, EXHAUSTED
from protocol.broker import subjects
from protocol.broker.stream_codecs import ReconnectWait, decode_wait, encode_wait
from protocol.broker.streams import RECONNECT_WATCH, REDELIVERY_SECONDS
from protocol.errors import StateDamaged, StateLost, StateUnavailable
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatusCode, ReconnectAttempt, ReconnectExhausted
from protocol.records import keys, kinds
from protocol.records.writes import StoredRecord
from protocol.rules.connection_state import READMITTED, REMOVED, RESUMED
from protocol.rules.history import fold
from protocol.rules.plan_state import Phase, PlanState
from protocol.times import format_time

log = logging.getLogger("examwire.reconnect_watch")

GRACE_SECONDS = 1.0
"""The first attempt waits so long at most: an examinee who is back by then is never shown as reconnecting."""

_UNCOUNTED = (READMITTED, REMOVED, RESUMED)


class Attempts(Batch[ReconnectWait]):
    """Lost examinees, one a delivery: the next attempt of each has begun, or the examinee is back."""


class Progress(NamedTuple):
    """The part of a connection record that says whether an outage goes on."""

    status: str | None
    loss_version: str | None
    exhausted: str | None
    reason: str | None

    @property
    def lost(self) -> bool:
        away = self.status in (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)
        return away and self.exhausted != "1" and self.reason not in _UNCOUNTED

    @property
    def loss(self) -> int:
        loss = self.loss_version or ""
        return int(loss) if loss.isascii() and loss.isdigit() else 0


@dataclass(slots=True)
class Work:
    """What follows from a batch: facts by plan, newer losses to wait for, and what to answer to the broker."""

    facts: dict[str, list[Message]] = field(default_factory=dict)
    exhausted: list[ReconnectExhausted] = field(default_factory=list)
    newer_losses: list[Outgoing] = field(default_factory=list)
    over: list[Delivery] = field(default_factory=list)
    again: list[tuple[Delivery, float]] = field(default_factory=list)


class ReconnectWatch(Actor):
    """Publishes attempts, and when they are used up. Several may run: they share the consumer.

    watch = ReconnectWatch(settings, bus, store, "rw1")
    await supervisor.start_child(ChildSpec("reconnect-watch", lambda: watch))
    """

    kind = "reconnect-watch"

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"reconnect-watch.{name}", bus)
        self._bus = bus
        self._store = store
        self._settings = settings.reconnect
        self._ladder = Ladder.of(settings.reconnect)
        self.receives = (
            Consumer(
                RECONNECT_WATCH,
                decode_wait,
                batch=Attempts,
                handler_acks=True,
                max_messages=1024,
                # An attempt that is being published is not delivered again: that would count as the next one.
                keep_alive=REDELIVERY_SECONDS / 2,
                first_delay=min(GRACE_SECONDS, self._ladder.backoff_seconds[0] / 4),
            ),
        )
        self._redis_error: type[Exception] | None = None
        self.attempts = self.exhausted = 0

    def details(self) -> dict[str, Any]:
        ladder = self._ladder.backoff_seconds
        return {"attempts": self.attempts, "exhausted": self.exhausted, "ladder": ladder}

    @on(Attempts)
    async def count_attempts(self, attempts: Attempts) -> None:
        """Publish the attempt that has begun for each examinee, or that the attempts are used up.

        Who is back is acknowledged; for everybody else the broker is told when the next attempt begins.
        """
        waits = [(received.delivery, wait) for received in attempts.received for wait in received.messages]
        work = Work()
        try:
            records = await self._records(waits)
            plans = await self._plans({wait.plan_id for _, wait in waits})
        except (StateUnavailable, StateDamaged) as error:
            self._redis_failed(error)
            for delivery, wait in waits:
                self._count_without_redis(delivery, wait, work)
        else:
            self._redis_error = None
            for (delivery, wait), progress in zip(waits, records, strict=True):
                self._count(delivery, wait, progress, plans[wait.plan_id], work)
        await self._publish(work)
        await acknowledge(work.over)
        for delivery, seconds in work.again:
            await delivery.nak(seconds)

    # -- reading -------------------------------------------------------------------------------------

    async def _records(self, waits: list[tuple[Delivery, ReconnectWait]]) -> list[Progress]:
        progress_keys = [keys.progress(wait.plan_id, wait.examinee_id) for _, wait in waits]
        rows = await self._store.fields(progress_keys, ("connStatusCode", "lossVersion", "exhausted", "reason"))
        return [Progress(*row) for row in rows]

    async def _plans(self, plan_ids: set[str]) -> dict[str, PlanState]:
        """Read the plans. One whose record cannot be read counts as one that nobody has set up."""
        names = sorted(plan_ids)
        plans: dict[str, PlanState] = {}
        for plan_id, stored in zip(names, await self._store.load([keys.plan(name) for name in names]), strict=True):
            try:
                if not isinstance(stored, StoredRecord):
                    raise stored
                plans[plan_id] = fold(kinds.PLAN.read(stored.history), kinds.PLAN.rule)
            except (StateDamaged, ValueError) as error:
                log.error("%s: %s: %s", self.address, keys.plan(plan_id), error, extra={"plan": plan_id})
                plans[plan_id] = PlanState(plan_id)
        return plans

    def _redis_failed(self, error: StateUnavailable | StateDamaged) -> None:
        # A Redis that has lost its state is being repaired by a state manager: that is no warning.
        level = logging.INFO if isinstance(error, StateLost) else logging.WARNING
        if type(error) is not self._redis_error:  # log it once, not for each attempt
            log.log(level, "%s: attempts are not recorded: %s", self.address, error)
        self._redis_error = type(error)

    # -- deciding ------------------------------------------------------------------------------------

    def _count(self, delivery: Delivery, wait: ReconnectWait, progress: Progress, plan: PlanState, work: Work) -> None:
        """Decide about one delivery: an attempt has begun, all are used up, or nobody needs to wait."""
        if progress.lost and progress.loss > wait.loss_version:
            # Two state managers published two losses, the older one last, and it replaced the newer one here.
            again = Outgoing(delivery.subject, encode_wait(progress.loss), f"again:{progress.loss}")
            work.newer_losses.append(again)
        ladder = Ladder.of(self._settings, plan.policy)
        now = self._bus.clock.now()
        phase = plan.phase_of(wait.examinee_id, now)
        # Who does not arrive at another server is told to be lost by an attempt, also before the exam.
        arriving = phase is Phase.BEFORE and progress.status == ConnectionStatusCode.MIGRATING
        counts = phase is Phase.RUNNING or arriving
        used_up = delivery.attempt > ladder.max_attempts
        if not progress.lost or progress.loss != wait.loss_version or not counts:
            work.over.append(delivery)
        elif not used_up:
            self._add_attempt(delivery, wait, ladder, work, goes_on=phase is Phase.RUNNING)
        else:
            work.over.append(delivery)
            if ladder.shut_out and phase is Phase.RUNNING:
                work.exhausted.append(
                    ReconnectExhausted(
                        plan_id=wait.plan_id,
                        examinee_id=wait.examinee_id,
                        loss_version=wait.loss_version,
                        timestamp=format_time(now),
                    )
                )

    def _count_without_redis(self, delivery: Delivery, wait: ReconnectWait, work: Work) -> None:
        """Count by the settings while Redis is away; the rules ignore an attempt of an examinee who is back.

        Nobody is shut out before the plan's own ladder is known.
        """
        if delivery.attempt <= self._ladder.max_attempts:
            self._add_attempt(delivery, wait, self._ladder, work, goes_on=True)
        else:
            work.again.append((delivery, self._ladder.backoff_seconds[-1]))

    def _add_attempt(
        self, delivery: Delivery, wait: ReconnectWait, ladder: Ladder, work: Work, *, goes_on: bool
    ) -> None:
        """Add the attempt of a delivery; `goes_on`: others follow until all are used up."""
        now = self._bus.clock.now()
        seconds = ladder.backoff_seconds[delivery.attempt - 1]
        is_last = delivery.attempt == ladder.max_attempts or not goes_on
        work.facts.setdefault(wait.plan_id, []).append(
            ReconnectAttempt(
                plan_id=wait.plan_id,
                examinee_id=wait.examinee_id,
                loss_version=wait.loss_version,
                attempt=delivery.attempt,
                max_attempts=ladder.max_attempts,
                next_attempt_at=None if is_last else format_time(now + seconds),
                timestamp=format_time(now),
            )
        )
        work.again.append((delivery, seconds))

    # -- publishing ----------------------------------------------------------------------------------

    async def _publish(self, work: Work) -> None:
        """Publish what was decided, and return when the broker has stored it."""
        outgoing = list(work.newer_losses)
        for plan_id, facts in work.facts.items():
            outgoing += Outgoing.batches(subjects.status_plan(plan_id, subjects.WATCH), facts)
            self.attempts += len(facts)
            ATTEMPTS.inc(len(facts))
        for fact in work.exhausted:
            address = subjects.status_plan(fact.plan_id, subjects.WATCH)
            outgoing.append(Outgoing.of(address, fact, message_id=f"exhausted:{fact.loss_version}"))
        await self._bus.publish_until_stored(outgoing)
        for fact in work.exhausted:
            self.exhausted += 1
            about = {"plan": fact.plan_id, "examinee": fact.examinee_id, "version": fact.loss_version}
            log.info("%s: all attempts of %s are used up", self.address, fact.examinee_id, extra=about)
            EXHAUSTED.inc()
