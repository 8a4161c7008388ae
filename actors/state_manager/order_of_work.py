"""The order of work of a state manager: read, decide, write, publish, wait for the acks, acknowledge.

Whatever step a manager dies at, its messages are delivered again and the next manager completes the rest: a fact that
is in the record already is not applied again, but what follows from it is published again under the same message ids.
See `docs/architecture.md`, "Guarantees". The tests drive this very class, and let it die at every step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.runtime.broker.consumers.consumer import Delivery, acknowledge
from actors.runtime.store.record_cache import RecordCache
from actors.runtime.telemetry import spans, tracing
from actors.state_manager import metrics
from actors.state_manager.connect_checks import ConnectChecks
from actors.state_manager.decisions import Decider, Decision, Updates
from actors.state_manager.effects import EffectPublisher, PublishResult
from actors.state_manager.engine_retry import EngineRetry
from actors.state_manager.recovery.purge import PlanPurge, Purge
from actors.state_manager.recovery.repair import StateRepair
from protocol.broker.streams import STATUS
from protocol.errors import NotPermitted
from protocol.ids import ExamineeRef
from protocol.log import entries
from protocol.log.version import sequence_of, version_of
from protocol.messages.codec import Malformed
from protocol.messages.facts import ExamineeFact
from protocol.messages.plan_facts import PlanFact, PlanPurged
from protocol.records.placement import VersionedMessage

log = logging.getLogger("examwire.state_manager")


class Ownership(Protocol):
    """Check which deliveries are still this manager's (`actors.state_manager.partitions`)."""

    async def ours(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return the deliveries that no other manager has been given meanwhile."""

    def terms(self, deliveries: Sequence[Delivery]) -> Mapping[str, int | None]:
        """Return for each part of these deliveries the term in which this manager reads it; `None`: perhaps another."""

    async def leave(self, delivery: Delivery, reason: str) -> None:
        """Leave a message to a newer state manager; it comes again later."""


Reach = Callable[[], Awaitable[None]]


class Spawn(Protocol):
    """Start a coroutine that runs beside `OrderOfWork.process`; when it raises, the state manager fails."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a state manager that the order of work calls."""

    decider: Decider
    checks: ConnectChecks
    cache: RecordCache
    publisher: EffectPublisher
    purge: PlanPurge
    repair: StateRepair
    retry: EngineRetry
    ownership: Ownership
    spawn: Spawn
    name: str
    """The address of the state manager, for log lines."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of concurrent work, and of attempts for a message that fails."""

    portion_bytes: int = 65536
    """Bytes of a portion, which has whole messages: the first one is published while the next is processed."""
    records_at_once: int = 512
    """Facts that are read and written in one round trip to Redis."""
    portions_at_once: int = 3
    unconfirmed_portions: int = 8
    """Portions that may wait for the broker's acks."""
    poison_attempts: int = 3
    poison_seconds: float = 0.1


@dataclass(slots=True)
class Portion:
    """Messages that are worked on together.

    `newer`: why a message is left to a newer release, by its sequence. `about`: the examinees that their facts are
    about, or else the subjects. `plans`: the plans of these examinees; `whole_plans`: the plans that facts are about as
    a whole.
    """

    deliveries: Sequence[Delivery]
    items: list[VersionedMessage] = field(default_factory=list)
    malformed: list[tuple[Delivery, Malformed]] = field(default_factory=list)
    newer: dict[int, str] = field(default_factory=dict)
    about: set[ExamineeRef | str] = field(default_factory=set)
    plans: set[str] = field(default_factory=set)
    whole_plans: set[str] = field(default_factory=set)

    def depends_on(self, earlier: Portion) -> bool:
        """Return whether a fact here is about the same examinee or server as one of an earlier portion.

        A fact about a whole plan is about all of its examinees.
        """
        return not (
            self.about.isdisjoint(earlier.about)
            and self.whole_plans.isdisjoint(earlier.plans | earlier.whole_plans)
            and self.plans.isdisjoint(earlier.whole_plans)
        )


class OrderOfWork:
    """Works off batches of STATUS messages.

    Example::

        parts = Parts(decider, checks, cache, publisher, purge, repair, retry, partitions, self.spawn, self.address)
        order = OrderOfWork(parts, Limits())
        await order.process(deliveries, reach)  # published; acks are awaited and the messages acknowledged beside it
    """

    def __init__(self, parts: Parts, limits: Limits) -> None:
        self._decider = parts.decider
        self._checks = parts.checks
        self._cache = parts.cache
        self._publisher = parts.publisher
        self._purge = parts.purge
        self._repair = parts.repair
        self._retry = parts.retry
        self._ownership = parts.ownership
        self._spawn = parts.spawn
        self._name = parts.name
        self._limits = limits
        self._unconfirmed = asyncio.Semaphore(self._limits.unconfirmed_portions)
        self._last_confirmed: asyncio.Future[None] | None = None
        self._reach: Reach | None = None

    async def process(self, deliveries: Sequence[Delivery], reach: Reach | None = None) -> int:
        """Work off a batch and return the number of its facts, when everything that follows is on its way.

        `reach` notes in Redis how far the log is. A write of records does so first, in its own round trip
        (`LogMark.owe`); `reach` is for everything else, and raises why Redis cannot be told.

        While Redis is busy with one portion the next is decided; portions are published in order. Two portions about
        the same examinee are never worked on together, so that facts are applied in order.
        """
        running: list[tuple[Portion, asyncio.Task[None]]] = []
        facts = 0
        self._reach = reach
        try:
            for portion in portions(deliveries, self._limits.portion_bytes):
                while len(running) >= self._limits.portions_at_once or any(
                    portion.depends_on(earlier) for earlier, _ in running
                ):
                    await running.pop(0)[1]
                previous = running[-1][1] if running else None
                running.append((portion, asyncio.create_task(self._process_portion(portion, previous))))
                facts += len(portion.items)
            for _, task in running:
                await task
        finally:
            for _, task in running:
                task.cancel()
        return facts

    async def _process_portion(self, portion: Portion, previous: asyncio.Task[None] | None, attempt: int = 1) -> None:
        """Do the steps in their order. `previous`: the portion whose messages are published before this one's."""
        began, since = time.perf_counter(), spans.now()
        metrics.count_batch(portion.items)
        for delivery, malformed in portion.malformed:
            await self._publisher.dead_letter(delivery, malformed.raw, str(malformed.error), index=malformed.index)
            metrics.FACTS.labels("malformed").inc()
        try:
            decision = await self._retry.run(lambda: self._settle(portion))
            if decision.unreadable:
                await self._retry.run(lambda: self._rewrite(decision))
        except NotPermitted:
            raise  # the fault of our NATS user, not of the message
        except Exception:
            await self._reached()  # when that has failed, it is not the fault of the message
            await self._isolate_poison(portion, previous, attempt)
            return
        _record_settled(portion.items, decision, since)
        if previous is not None:
            await previous
        owned = await self._ownership.ours(portion.deliveries)
        if len(owned) < len(portion.deliveries):
            # What was decided is in the records; whoever reads that partition now publishes it.
            log.info(
                "%s: %d messages now belong to another state manager", self._name, len(portion.deliveries) - len(owned)
            )
            await self._process_portion(decode(owned), previous)
            return
        settled = time.perf_counter()
        result = await self._retry.run(lambda: self._publisher.publish(decision))
        metrics.count_published(portion.items, decision, settled - began, time.perf_counter() - settled)
        # The next portion need not wait for the broker's acks of this one; this one is acknowledged only after them.
        await self._unconfirmed.acquire()
        earlier, self._last_confirmed = self._last_confirmed, asyncio.get_running_loop().create_future()
        newer = {sequence_of(version): reason for version, reason in decision.newer.items()} | portion.newer
        self._spawn(self._confirm(result, portion.deliveries, newer, earlier, self._last_confirmed), "confirm")

    async def _settle(self, portion: Portion) -> Decision:
        """Bring the records up to these facts: read, decide, write; again where another manager was quicker."""
        decision = Decision()
        for facts in _rounds(portion.items, self._limits.records_at_once):
            self._cache.trust(self._ownership.terms(portion.deliveries))
            updates = Updates.of(facts)
            while updates.records:
                stored = await self._decider.read(updates)
                outcomes = await self._decider.decide(updates, stored, decision)
                updates = await self._decider.write(updates, stored, outcomes, decision)
            await self._reached()
            await self._checks.check(facts, decision)
            if isinstance(purged := facts[-1].message, PlanPurged):
                await self._purge.run(Purge.of(purged, facts[-1].version))
                self._cache.drop_plan(purged.plan_id)
                decision.purges.append((facts[-1].version, purged))
        return decision

    async def _reached(self) -> None:
        if self._reach is not None:
            await self._reach()

    async def _rewrite(self, decision: Decision) -> None:
        """Write records that cannot be read anew from the log."""
        repair = await self._repair.rewrite_records(decision.unreadable)
        log.warning("%s: %d unreadable records were written again from the log", self._name, repair.records)

    async def _confirm(
        self,
        result: PublishResult,
        deliveries: Sequence[Delivery],
        newer: Mapping[int, str],
        earlier: asyncio.Future[None] | None,
        confirmed: asyncio.Future[None],
    ) -> None:
        """Wait until all that follows is stored, here and for the `earlier` portion; then acknowledge.

        A message of which something is `newer` is left in the log: a newer release works it off, at its place.
        """
        try:
            await self._publisher.confirm(result, earlier)
            confirmed.set_result(None)
            await acknowledge([delivery for delivery in deliveries if delivery.sequence not in newer])
            for delivery in deliveries:
                if (reason := newer.get(delivery.sequence)) is not None:
                    await self._ownership.leave(delivery, reason)
        finally:
            self._unconfirmed.release()

    async def _isolate_poison(self, portion: Portion, previous: asyncio.Task[None] | None, attempt: int) -> None:
        """Try each message of a portion that fails on its own; the one that keeps failing becomes a dead letter."""
        if len(portion.deliveries) > 1:
            log.exception(
                "%s: a batch of %d failed; its messages are processed one by one", self._name, len(portion.deliveries)
            )
            for delivery in portion.deliveries:
                await self._process_portion(decode([delivery]), previous)
            return
        (delivery,) = portion.deliveries
        if attempt < self._limits.poison_attempts:
            log.exception(
                "%s: message %d failed (try %d)",
                self._name,
                delivery.sequence,
                attempt,
                extra={"stream": STATUS.name, "sequence": delivery.sequence},
            )
            await asyncio.sleep(self._limits.poison_seconds)
            await self._process_portion(portion, previous, attempt + 1)
            return
        log.exception(
            "%s: message %d becomes a dead letter",
            self._name,
            delivery.sequence,
            extra={"stream": STATUS.name, "sequence": delivery.sequence},
        )
        await self._publisher.dead_letter(delivery, delivery.payload, f"failed {attempt} times")
        await delivery.ack()
        metrics.FACTS.labels("dead").inc()


def _rounds(items: Sequence[VersionedMessage], most: int) -> Iterator[Sequence[VersionedMessage]]:
    """Cut facts into rounds. A purge ends one: it deletes what the facts before it have made, and nothing else."""
    start = 0
    for end, item in enumerate(items, 1):
        if end - start == most or end == len(items) or isinstance(item.message, PlanPurged):
            yield items[start:end]
            start = end


def portions(deliveries: Sequence[Delivery], size: int) -> Iterator[Portion]:
    """Cut a batch into portions of whole messages, each of at least `size` bytes, in the order of the log."""
    gathered: list[Delivery] = []
    gathered_bytes = 0
    for delivery in sorted(deliveries, key=lambda delivery: delivery.sequence):  # redelivered messages arrive first
        gathered.append(delivery)
        gathered_bytes += len(delivery.payload)
        if gathered_bytes >= size:
            yield decode(gathered)
            gathered, gathered_bytes = [], 0
    if gathered:
        yield decode(gathered)


def decode(deliveries: Sequence[Delivery]) -> Portion:
    """Read the facts of some messages; what is none goes into `malformed`, what a newer release knows into `newer`."""
    portion = Portion(deliveries)
    for delivery in deliveries:
        scheduled = entries.SCHEDULER in delivery.headers
        decoded = entries.decode_status(delivery.subject, delivery.payload, delivery.stored_at, scheduled=scheduled)
        newer = [message for message in decoded if isinstance(message, Malformed) and message.newer]
        if newer:
            portion.newer[delivery.sequence] = str(newer[0].error)
            if delivery.left_before:
                continue  # what else it holds was published before it was left
        for index, message in enumerate(decoded):
            if isinstance(message, Malformed):
                if not message.newer:
                    portion.malformed.append((delivery, message))
                continue
            if len(decoded) == 1:
                spans.adopt(message, delivery.headers)
            portion.items.append(VersionedMessage(version_of(delivery.sequence, index), message))
            if isinstance(message, ExamineeFact):
                portion.about.add(message.examinee)
                portion.plans.add(message.plan_id)
            elif isinstance(message, PlanFact):
                portion.whole_plans.add(message.plan_id)
            else:
                portion.about.add(delivery.subject)
    return portion


def _record_settled(items: Iterable[VersionedMessage], decision: Decision, since: float) -> None:
    """Record the span "state settled" of each traced fact, and put the events that follow into its trace.

    `since`: when the work on them began, by `spans.now`.
    """
    if not tracing.on():
        return
    traceparents: dict[int, str] = {}
    for item in items:
        fact = item.message
        if not isinstance(fact, ExamineeFact) or fact.traceparent is None:
            continue
        version = str(item.version)
        span = tracing.begin(
            "state settled",
            fact.traceparent,
            {**spans.fact_attributes(fact), "version": version},
            key=version,
            since=since,
        )
        if span is not None:
            span.end()
            traceparents[item.version] = span.traceparent
    for event in decision.events if traceparents else ():
        if event.version is not None and event.version in traceparents:
            event.traceparent = traceparents[event.version]
