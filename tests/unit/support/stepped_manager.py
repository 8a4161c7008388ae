"""State manager processes on a log, a Redis and a broker in memory, driven step by step.

A process runs the real `OrderOfWork` with all its real parts; only the broker, Redis and the partitions are stand-ins.
Every access to them is a step, and between two steps anything can happen, a death of the process included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.store.record_cache import RecordCache
from actors.state_manager.connect_checks import ConnectChecks
from actors.state_manager.decisions import Decider
from actors.state_manager.effects import EffectPublisher
from actors.state_manager.engine_retry import EngineRetry
from actors.state_manager.order_of_work import Limits, OrderOfWork, Parts, Reach
from actors.state_manager.recovery.purge import PlanPurge
from actors.state_manager.recovery.repair import StateRepair
from actors.state_manager.recovery.restoration import Repair
from protocol.log.partitions import PARTS
from tests.unit.support.memory_broker import Broker, MemoryBus, MemoryLog
from tests.unit.support.memory_store import MemoryStore
from tests.unit.support.stepped_loop import SteppedLoop, current_job, pause

T = TypeVar("T")

MOST_STEPS = 5000


@dataclass(eq=False)
class Batch:
    """Messages of the log that a manager works on, and how far it is with them."""

    sequences: list[int]
    settled: bool = False
    published: bool = False
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether its messages are acknowledged, or left to another manager."""
        return all(task.done() for task in self.tasks)


class MemoryOwnership:
    """The partitions of the broker in memory: a delivery is its batch's until it is given to another one."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.term: int | None = 0
        """By default copies of records are trusted, also those from before the other manager had the partition."""

    async def ours(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        batch = current_job.get()
        assert isinstance(batch, Batch)
        batch.settled = True
        await pause()
        return [delivery for delivery in deliveries if self._broker.holders[delivery.sequence] is batch]

    def terms(self, deliveries: Sequence[Delivery]) -> dict[str, int | None]:
        return dict.fromkeys(PARTS, self.term)

    async def leave(self, delivery: Delivery, reason: str) -> None:
        await pause()
        self._broker.leave(delivery.sequence)


class Manager:
    """A process that works on one batch at a time, confirms earlier ones beside it, and may die at every step."""

    def __init__(self, broker: Broker, store: MemoryStore, limits: Limits | None = None) -> None:
        self._broker, self._store = broker, store
        self._limits = limits or Limits()
        self.batches: list[Batch] = []
        self.reach: Reach | None = None
        self._boot()

    def _boot(self) -> None:
        self.loop = SteppedLoop()  # type: ignore[abstract]  # what no task needs is not there
        self.bus = MemoryBus(self._broker)
        log, self.cache = MemoryLog(self._broker), RecordCache()
        self.decider = Decider(self._store, log, self.cache)
        self.ownership = MemoryOwnership(self._broker)
        self.repair = StateRepair(self.bus, self._store, MemoryLog(self._broker))
        parts = Parts(
            self.decider,
            ConnectChecks(self._store, log, self.cache),
            self.cache,
            EffectPublisher(self.bus, self._store),
            PlanPurge(self._store),
            self.repair,
            EngineRetry(self.repair, "state-manager.test", self._spawn),
            self.ownership,
            self._spawn,
            "state-manager.test",
        )
        self.order_of_work = OrderOfWork(parts, self._limits)
        self.learned = 0

    def _spawn(self, work: Coroutine[Any, Any, None], _name: str, /) -> None:
        batch = current_job.get()
        assert isinstance(batch, Batch)
        batch.tasks.append(self.loop.create_task(work))

    @property
    def idle(self) -> bool:
        """Whether the next batch may come: everything that follows from the earlier ones is on its way."""
        return all(batch.published for batch in self.batches)

    @property
    def in_hand(self) -> set[int]:
        return {sequence for batch in self.batches for sequence in batch.sequences}

    def take(self, sequences: list[int]) -> Batch:
        """Begin with a batch, up to the first access to the world."""
        assert self.idle
        batch = Batch(sequences)
        for sequence in sequences:
            self._broker.holders[sequence] = batch
        deliveries = [self._broker.delivery(sequence) for sequence in sequences]
        self.batches.append(batch)
        batch.tasks.append(self.loop.start(self.order_of_work.process(deliveries, self.reach), batch))
        self._look()
        return batch

    def step(self, steps: int = 1, which: int = -1, access: int = 0) -> None:
        """Let accesses to the world happen: `steps` of them, of one batch; `access` chooses among several at once."""
        for _ in range(steps):
            if not self.batches:
                return
            self.loop.step(self.batches[which % len(self.batches)], access)
            self._look()

    def step_any(self, which: int = -1, access: int = 0) -> None:
        """Let one access happen: of the batch `which`, or if that waits for another batch, of the first that can."""
        for batch in [self.batches[which], *self.batches]:
            if self.loop.step(batch, access):
                break
        else:
            raise AssertionError("everything waits for something else")
        self._look()

    def step_until(self, reached: Callable[[], bool], which: int = -1) -> None:
        """Go on with one batch until something is so."""
        for _ in range(MOST_STEPS):
            if reached():
                return
            self.step(which=which)
        raise AssertionError("it is never reached")

    def finish(self, access: int = 0) -> None:
        """Go on until everything in hand is acknowledged."""
        for _ in range(MOST_STEPS):
            if not self.batches:
                return
            self.step(which=0, access=access)  # the later ones wait for it
        raise AssertionError("a manager that never finishes")

    def _look(self) -> None:
        """Note how far the batches are; an error of one of them fails the test."""
        for batch in list(self.batches):
            for task in batch.tasks:
                if task.done():
                    task.result()
            batch.published = batch.tasks[0].done()
            if batch.over:
                self.batches.remove(batch)

    def begin(self, work: Coroutine[Any, Any, T]) -> Errand[T]:
        """Have this process do something beside its batches, up to the first access to the world."""
        return Errand(self.loop, work)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have this process do something beside its batches, from beginning to end."""
        return self.begin(work).finish()

    def repair_at_once(self) -> Repair:
        """Look at Redis while nothing happens, and repair it. One process never repairs twice at the same time."""
        self._store.fail_next = 0
        if self.repair.progress is not None:
            return Repair("whole")
        return self.run(self.repair.restore_state())

    def crash(self, *, arrives: bool = True) -> None:
        """Die and start anew, with an empty memory; what was not acknowledged comes again some time.

        `arrives`: whether the broker gets what was on its way.
        """
        self._broker.expired.update(self._broker.unacknowledged & self.in_hand)
        self.bus.disconnect(arrives=arrives)
        self.loop.die()
        self.batches = []
        self._boot()


class Errand(Generic[T]):
    """Something that a process does beside its batches, step by step."""

    def __init__(self, loop: SteppedLoop, work: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._task = loop.start(work, self)

    def step(self, steps: int) -> None:
        for _ in range(steps):
            self._loop.step(self)

    def finish(self) -> T:
        for _ in range(MOST_STEPS):
            if self._task.done():
                return self._task.result()
            self._loop.step(self)
        raise AssertionError("it never ends")
