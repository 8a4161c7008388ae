"""State managers driven step by step and by hand, on a log, a Redis and a broker in memory.

They are the real thing (`Decisions` and `EffectPublisher`, in the state manager's order of work); every access to the
store and to the broker is a step, and between two steps anything can happen, a crash included.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.state_manager.decisions import Decisions
from actors.state_manager.effects import EffectPublisher
from actors.state_manager.repair import StateRepair
from protocol.errors import StateLost
from protocol.records.placement import VersionedMessage
from tests.unit.support.memory_broker import Broker, MemoryLog, facts_of
from tests.unit.support.memory_store import MemoryStore, pause

T = TypeVar("T")


class After:
    """Awaitable: the end of earlier batches of the same process."""

    def __init__(self, manager: Manager, earlier: list[Batch]) -> None:
        self._manager, self._earlier = manager, earlier

    def __await__(self) -> Generator[Any, None, None]:
        while any(batch in self._manager.batches for batch in self._earlier):
            yield from pause().__await__()


class Manager:
    """A process that works on one batch at a time, completes earlier ones beside it, and may die at every step."""

    def __init__(self, broker: Broker, store: MemoryStore) -> None:
        self._broker, self._store = broker, store
        self.batches: list[Batch] = []
        self.crash()

    @property
    def idle(self) -> bool:
        """Whether the next batch may come: all that were taken are on their way."""
        return all(batch.told for batch in self.batches)

    @property
    def in_hand(self) -> set[int]:
        return {sequence for batch in self.batches for sequence in batch.sequences}

    def take(self, sequences: list[int]) -> Batch:
        """Begin with a batch, up to the first access to the world."""
        assert self.idle
        batch = Batch(sequences)
        batch.work = self._order_of_work(batch)
        self.batches.append(batch)
        self._send(batch)
        return batch

    async def _order_of_work(self, batch: Batch) -> None:
        items = [
            VersionedMessage(version, fact) for one in batch.sequences for version, fact in facts_of(self._broker, one)
        ]
        decided = await self._surely(lambda: self.decisions.settle(items))
        batch.settled = True
        told = await self._surely(lambda: self.telling.tell(decided))
        batch.told = True
        earlier = self.batches[: self.batches.index(batch)]
        await self.telling.complete(told, After(self, earlier))
        for sequence in batch.sequences:
            await pause()
            self._broker.acknowledge(sequence)

    async def _surely(self, step: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await step()
            except StateLost:
                await self.repair.make_whole()

    def repair_at_once(self) -> None:
        """Have Redis looked at while nothing happens, and repaired."""
        work = self.repair.make_whole()
        with suppress(StopIteration):
            for _ in range(1000):
                work.send(None)
            raise AssertionError("a repair that never ends")

    def step(self, steps: int = 1, which: int = -1) -> None:
        """Go on with a batch up to the next access to the world, `steps` times."""
        for _ in range(steps):
            if not self.batches:
                return
            self._send(self.batches[which % len(self.batches)])

    def _send(self, batch: Batch) -> None:
        assert batch.work is not None
        try:
            batch.work.send(None)
        except StopIteration:
            self.batches.remove(batch)

    def finish(self) -> None:
        """Go on until everything in hand is acknowledged."""
        for _ in range(1000):
            if not self.batches:
                return
            self.step(which=0)  # the later ones wait for it
        raise AssertionError("a manager that never finishes")

    def crash(self) -> None:
        """Die and start anew, with an empty memory; what was not acknowledged comes again some time."""
        self._broker.expired.update(self._broker.unacknowledged & self.in_hand)
        for batch in self.batches:
            if batch.work is not None:
                batch.work.close()
        self.batches = []
        self.decisions = Decisions(self._store, MemoryLog(self._broker))
        self.telling = EffectPublisher(self._broker, self._store)
        self.repair = StateRepair(self._broker, self._store, MemoryLog(self._broker))
        self.learned = 0


@dataclass(eq=False)
class Batch:
    """Messages of the log that a manager has in hand, and how far it is with them."""

    sequences: list[int]
    settled: bool = False
    told: bool = False
    work: Coroutine[Any, Any, None] | None = None
