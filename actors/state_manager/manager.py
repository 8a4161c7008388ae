"""The state manager: from STATUS to Redis and to the socket servers. Any number of them may run.

Plans are spread over partitions, and one manager at a time works off a partition, in the log's order
(`actors.runtime.broker.consumers.pinned`). Order of work for a batch: read the records, decide by the pure rules,
write (compare and
set), tell, then ack. Whatever step it dies at, whoever takes over completes the rest: a fact whose place is taken is
not applied again, but what it asks for is done again under the same message ids.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import Counter, Histogram

from actors.runtime.actor.actor import Actor, on
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry import spans, tracing
from actors.runtime.telemetry.metrics import REGISTRY
from actors.runtime.token_bucket import TokenBucket
from actors.state_manager.decisions import Decided, Decisions
from actors.state_manager.effects import EffectPublisher, PublishResult
from actors.state_manager.metrics import count_superseded, count_told
from actors.state_manager.partitions import StatePartitions
from actors.state_manager.progress import StateProgress
from actors.state_manager.repair import StateRepair
from actors.state_manager.spans import record_settled
from actors.status_log.status_log import StatusLog
from protocol.broker.streams import STATUS
from protocol.errors import BrokerUnavailable, ConsumerGone, NotPermitted, StateDamaged, StateLost, StateUnavailable
from protocol.log import entries as log_entries
from protocol.log.version import version_of
from protocol.messages.codec import Malformed
from protocol.messages.facts import ExamineeFact, Restate
from protocol.records.placement import VersionedMessage

log = logging.getLogger("examwire.state_manager")

T = TypeVar("T")

BATCHES = Histogram(
    "examwire_state_batch_messages", "Messages handled together", registry=REGISTRY, buckets=(1, 4, 16, 64, 256, 1024)
)
STAGES = Histogram(
    "examwire_state_stage_seconds",
    "Time of each step of the order of work",
    ["stage"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
)
FACTS = Counter("examwire_state_facts_total", "Facts by what became of them", ["outcome"], registry=REGISTRY)

FLOOR_SECONDS = 1.0
POISON_ATTEMPTS = 3
POISON_SECONDS = 0.1
BATCHES_PER_SECOND = 200
PORTION_BYTES = 64 * 1024
IN_FLIGHT = 8
OVERLAP = 3


@dataclass(frozen=True, slots=True)
class StatusBatch:
    """What has arrived from the log, of any partition."""

    deliveries: list[Delivery]


@dataclass(slots=True)
class _Work:
    """Messages that are worked off together."""

    deliveries: list[Delivery]
    items: list[VersionedMessage] = field(default_factory=list)
    malformed: list[tuple[Delivery, Malformed]] = field(default_factory=list)
    about: set[tuple[str, str]] = field(default_factory=set)


class StateManager(Actor):
    """The one writer of state. `name` tells several of them apart in listings."""

    kind = "state-manager"
    mailbox_capacity = 2

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"state-manager.{name}", bus)
        self._bus = bus
        self._store = store
        self._status = StatusLog(bus)
        self._partitions = StatePartitions(bus)
        self._decisions = Decisions(store, self._status)
        self._telling = EffectPublisher(bus, store)
        self._repair = StateRepair(bus, store)
        self._repairing = asyncio.Lock()
        self._floor_wanted = asyncio.Event()
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._last: asyncio.Future[None] | None = None
        self._waiting_for: str | None = None
        self._progress = StateProgress(bus, store, name, self._partitions.parts(), lambda: self._waiting_for)

    async def on_start(self) -> None:
        self.spawn(self._progress.run(), "progress")
        await self._partitions.ready()
        for reader in self._partitions.readers:
            self.spawn(self._partitions.read(reader), f"read {reader.spec.name}")
        self.spawn(self._collect(), "collect")
        self.spawn(self._partitions.balance(), "balance")
        self.spawn(self._keep_whole(), "whole")

    async def on_stop(self) -> None:
        await self._partitions.release()

    def details(self) -> dict[str, Any]:
        consumers = [f"{reader.spec.stream}/{reader.spec.name}" for reader in self._partitions.readers]
        return {
            "consumers": consumers,
            "held": self._partitions.held,
            "floor": self._decisions.floor,
            "waitingFor": self._waiting_for,
        }

    async def _collect(self) -> None:
        pace = TokenBucket(BATCHES_PER_SECOND, burst=20)
        while True:
            await self.put(StatusBatch(await self._partitions.arrived()))
            await pace.wait()

    async def _keep_whole(self) -> None:
        """Learn up to where everything is acknowledged: records need not keep older facts, and Redis holds them.

        Looks for a Redis that lost its state, too, so that it is repaired also while nothing happens.
        """
        while True:
            try:
                if self._floor_wanted.is_set():
                    self._floor_wanted.clear()
                    floor = (await self._status.extent()).acknowledged
                    self._decisions.raise_floor(floor)
                    whole = await self._store.mark.advance(floor)
                else:
                    whole = await self._store.mark.is_whole()
                if not whole:
                    await self._make_whole()
            except (BrokerUnavailable, ConsumerGone, StateUnavailable, StateDamaged) as error:
                log.debug("%s: no floor: %s", self.address, error)
            await asyncio.sleep(FLOOR_SECONDS)

    async def _make_whole(self) -> None:
        """Bring a Redis that was emptied, replaced or set back up to the log; new facts wait meanwhile."""
        async with self._repairing:
            self._waiting_for = "state"
            while True:
                try:
                    repair = await self._repair.make_whole()
                except (BrokerUnavailable, ConsumerGone, StateUnavailable, StateDamaged) as error:
                    log.error("%s: Redis is not whole and cannot be repaired yet: %s", self.address, error)
                    await asyncio.sleep(FLOOR_SECONDS)
                else:
                    break
            self._waiting_for = None
        if repair.messages:
            log.log(
                logging.WARNING if repair.alarming else logging.INFO,
                "%s: Redis is whole again (it was %s): %d records written, %d restated, %d messages of the log, %.2f s",
                self.address,
                repair.found,
                repair.records,
                repair.restated,
                repair.messages,
                repair.seconds,
            )

    @on(StatusBatch)
    async def handle(self, batch: StatusBatch) -> None:
        await self._overlapping(_portions(batch.deliveries))
        self.handled -= 1  # its messages have been counted, one by one
        self._floor_wanted.set()

    async def _overlapping(self, portions: Iterable[_Work]) -> None:
        """While Redis is at one portion, the next is decided; what they tell goes out in order.

        Two portions that speak of the same examinee are never at work together: facts stay in order.
        """
        running: list[tuple[_Work, asyncio.Task[None]]] = []
        try:
            for work in portions:
                while running and (
                    len(running) >= OVERLAP or any(not work.about.isdisjoint(w.about) for w, _ in running)
                ):
                    await running.pop(0)[1]
                before = running[-1][1] if running else None
                running.append((work, asyncio.create_task(self._work_off(work, before))))
            for _, task in running:
                await task
        finally:
            for _, task in running:
                task.cancel()

    async def _work_off(self, work: _Work, before: asyncio.Task[None] | None, attempt: int = 1) -> None:
        started, since = time.perf_counter(), spans.now()
        BATCHES.observe(len(work.items))
        self.handled += len(work.items)
        for delivery, bad in work.malformed:
            await self._telling.dead_letter(delivery, bad.raw, str(bad.error), index=bad.index)
            FACTS.labels("malformed").inc()
        try:
            decided = await self._surely(lambda: self._decisions.settle(work.items))
            if decided.unreadable:
                await self._surely(lambda: self._put_back(decided.unreadable))
        except NotPermitted:
            raise  # our user's fault, not the message's
        except Exception:
            if len(work.deliveries) == 1:
                await self._give_up(work, before, attempt)
                return
            log.exception("%s: a batch of %d failed; each message on its own now", self.address, len(work.deliveries))
            for delivery in work.deliveries:
                await self._work_off(_decoded([delivery]), before)
            return
        if tracing.on():
            record_settled(work.items, decided, since)
        if before is not None:
            await before
        ours = await self._partitions.ours(work.deliveries)
        if len(ours) < len(work.deliveries):
            # What was decided is in the records; whoever reads that partition now tells it.
            log.info("%s: %d messages went to another one", self.address, len(work.deliveries) - len(ours))
            if ours:
                await self._work_off(_decoded(ours), before)
            return
        settled = time.perf_counter()
        told = await self._surely(lambda: self._telling.tell(decided))
        STAGES.labels("settle").observe(settled - started)
        STAGES.labels("tell").observe(time.perf_counter() - settled)
        self._count(decided)
        count_superseded(item.message for item in work.items)
        # The next batch need not wait for the broker's acks of this one; this one is acknowledged only after them.
        await self._in_flight.acquire()
        earlier, self._last = self._last, asyncio.get_running_loop().create_future()
        self.spawn(self._complete(told, work.deliveries, earlier, self._last), "complete")

    async def _put_back(self, asked: list[Restate]) -> None:
        repair = await self._repair.put_back(asked)
        log.warning("%s: %d records that nobody could read are written anew by the log", self.address, repair.records)

    async def _complete(
        self,
        told: PublishResult,
        deliveries: list[Delivery],
        earlier: asyncio.Future[None] | None,
        done: asyncio.Future[None],
    ) -> None:
        try:
            await self._telling.complete(told, earlier)
            done.set_result(None)
            for delivery in deliveries:
                await self._partitions.ack(delivery)
        finally:
            self._in_flight.release()

    async def _give_up(self, work: _Work, before: asyncio.Task[None] | None, attempt: int) -> None:
        """Try a message that fails on its own again, in its place; then put it among the dead letters."""
        (delivery,) = work.deliveries
        about = {"stream": STATUS.name, "sequence": delivery.sequence}
        if attempt < POISON_ATTEMPTS:
            log.exception("%s: message %d failed (try %d)", self.address, delivery.sequence, attempt, extra=about)
            await asyncio.sleep(POISON_SECONDS)
            await self._work_off(work, before, attempt + 1)
            return
        log.exception("%s: message %d goes to the dead letters", self.address, delivery.sequence, extra=about)
        await self._telling.dead_letter(delivery, delivery.payload, f"failed {attempt} times")
        await self._partitions.ack(delivery)
        FACTS.labels("dead").inc()

    async def _surely(self, step: Callable[[], Awaitable[T]]) -> T:
        """Repeat a step until the engines answer; every write compares versions, so a repetition is harmless."""
        delay = 0.05
        put_back: set[str] = set()
        while True:
            try:
                result = await step()
            except StateLost:
                await self._make_whole()
            except StateDamaged as damage:
                # Not of a record, which concerns one examinee: of what finds them, and so of everybody.
                if damage.key is None or damage.key in put_back:
                    raise
                put_back.add(damage.key)
                log.warning("%s: %s: written anew by the log", self.address, damage)
                await self._repair.put_back_index(damage.key)
            except (StateUnavailable, BrokerUnavailable) as error:
                engine = "Redis" if isinstance(error, StateUnavailable) else "NATS"
                if self._waiting_for is None:
                    log.warning("%s: waiting for %s: %s", self.address, engine, error)
                self._waiting_for = engine.lower()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
            else:
                if self._waiting_for is not None:
                    log.warning("%s: %s is back", self.address, self._waiting_for)
                self._waiting_for = None
                return result

    def _count(self, decided: Decided) -> None:
        FACTS.labels("applied").inc(decided.applied)
        FACTS.labels("repeated").inc(decided.repeated)
        FACTS.labels("late").inc(decided.late)
        count_told(decided.events)
        if decided.damaged:
            FACTS.labels("dead").inc(len(decided.damaged))


def _portions(deliveries: list[Delivery]) -> Iterator[_Work]:
    """Whole messages of together some 64 KiB: the first proctors are told while the rest is worked off."""
    some: list[Delivery] = []
    size = 0
    for delivery in sorted(deliveries, key=lambda one: one.sequence):  # redelivered ones come first, then in order
        some.append(delivery)
        size += len(delivery.payload)
        if size >= PORTION_BYTES:
            yield _decoded(some)
            some, size = [], 0
    if some:
        yield _decoded(some)


def _decoded(deliveries: list[Delivery]) -> _Work:
    work = _Work(deliveries)
    for delivery in deliveries:
        scheduled = log_entries.SCHEDULER in delivery.headers
        decoded = log_entries.decode_status(delivery.subject, delivery.payload, delivery.stored_at, scheduled=scheduled)
        for index, message in enumerate(decoded):
            if isinstance(message, Malformed):
                work.malformed.append((delivery, message))
            else:
                if delivery.headers and len(decoded) == 1:
                    spans.adopt(message, delivery.headers)
                work.items.append(VersionedMessage(version_of(delivery.sequence, index), message))
                if isinstance(message, ExamineeFact):
                    work.about.add((message.plan_id, message.examinee_id))
                else:
                    work.about.add(("", delivery.subject))
    return work
