"""The state manager: from STATUS to Redis and to the socket servers. Any number of them may run.

Plans are spread over partitions, and one manager at a time processes a partition, in the log's order
(`actors.runtime.broker.consumers.pinned`). `actors.state_manager.order_of_work` says what is done for a batch.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.receiver import Deliveries
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.settings import Settings
from actors.runtime.store.record_cache import RecordCache
from actors.runtime.store.state_store import StateStore
from actors.state_manager.connect_checks import ConnectChecks
from actors.state_manager.decisions import Decider
from actors.state_manager.effects import EffectPublisher
from actors.state_manager.engine_retry import EngineRetry
from actors.state_manager.order_of_work import Limits, OrderOfWork, Parts
from actors.state_manager.partitions import StatePartitions
from actors.state_manager.progress import StateProgress
from actors.state_manager.recovery.checkpointer import Checkpointer
from actors.state_manager.recovery.log_guard import LogGuard
from actors.state_manager.recovery.purge import PlanPurge
from actors.state_manager.recovery.repair import StateRepair
from actors.status_log.record_checkpoints import RecordCheckpoints
from actors.status_log.status_log import StatusLog
from protocol.broker.streams import STATE_MANAGERS
from protocol.errors import BrokerUnavailable, ConsumerGone, StateDamaged, StateUnavailable
from protocol.log.partitions import PARTS

log = logging.getLogger("examwire.state_manager")

FLOOR_SECONDS = 1.0


@dataclass(slots=True)
class StatusBatch:
    """Messages of STATUS that have arrived, of any partition. `facts`: how many facts they held, once processed."""

    deliveries: list[Delivery]
    facts: int = 0


class StateManager(Actor):
    """The one writer of state. `name` tells several of them apart in listings."""

    kind = "state-manager"
    handles_at_once = True
    mailbox_capacity = 2

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"state-manager.{name}", bus)
        self._store = store
        self._status = StatusLog(bus)
        self._partitions = StatePartitions(bus)
        cache = RecordCache()
        self._decider = Decider(store, self._status, cache)
        self._publisher = EffectPublisher(bus, store)
        self._repair = StateRepair(bus, store, checkpoints=RecordCheckpoints(bus), turns=self._partitions)
        self._repair.changed = self._partitions.look_again
        self._retry = EngineRetry(self._repair, self.address, self.spawn)
        self._guard = LogGuard(bus, store, self._status, self.address)
        parts = Parts(
            self._decider,
            ConnectChecks(store, self._status, cache),
            cache,
            self._publisher,
            PlanPurge(store),
            self._repair,
            self._retry,
            self._partitions,
            self.spawn,
            self.address,
        )
        self._order_of_work = OrderOfWork(parts, Limits())
        self.receives = (Deliveries(STATE_MANAGERS, StatusBatch, self._partitions.arrived),)
        self._floor_wanted = asyncio.Event()
        self._checkpointer = Checkpointer(bus, store, settings.checkpoints, lambda: self._partitions.held_parts)
        self._progress = StateProgress(bus, store, name, self._partitions.parts(), lambda: self._retry.waiting_for)

    async def on_start(self) -> None:
        self.spawn(self._progress.run(), "progress")
        await self.announce_on_bus()
        for reader in self._partitions.readers:
            self.spawn(self._partitions.read(reader), f"read {reader.spec.name}")
        self.spawn(self._partitions.balance(), "balance")
        self.spawn(self._keep_whole(), "whole")
        self.spawn(self._checkpointer.run(), "checkpoints")
        self.spawn(self._watch_log(), "log")

    async def on_stop(self) -> None:
        await self._partitions.release()

    def details(self) -> dict[str, Any]:
        return {
            "held": self._partitions.held,
            "givesWay": self._partitions.gives_way,
            "floors": {part: self._decider.floor_of(part) for part in PARTS},
            "newer": self._partitions.left,
            "waitingFor": self._retry.waiting_for,
            "repair": self._repair.progress.details() if self._repair.progress is not None else None,
        }

    async def _keep_whole(self) -> None:
        """Learn up to where everything is acknowledged: records need not keep older facts, and Redis holds them.

        Looks for a Redis that lost its state, too, so that it is repaired also while nothing happens.
        """
        while True:
            try:
                if self._floor_wanted.is_set():
                    self._floor_wanted.clear()
                    extent = await self._status.extent()
                    self._checkpointer.note(extent)
                    self._decider.raise_floors(extent)
                    whole = await self._store.mark.advance(extent.acknowledged)
                else:
                    whole = await self._store.mark.is_whole()
                self._guard.doubtful |= not whole  # perhaps it is another one
                if not whole and not self._partitions.gives_way:
                    await self._retry.restore_state()
            except (BrokerUnavailable, ConsumerGone, StateUnavailable, StateDamaged) as error:
                log.debug("%s: the acknowledged sequence cannot be read: %s", self.address, error)
            await asyncio.sleep(FLOOR_SECONDS)

    async def _watch_log(self) -> None:
        """Compare the log with what Redis knows of it, also while nothing happens."""
        while True:
            try:
                if await self._guard.look():
                    await self._retry.run(self._guard.confirm)
            except (BrokerUnavailable, StateUnavailable, StateDamaged) as error:
                log.debug("%s: the log cannot be compared: %s", self.address, error)
            await asyncio.sleep(FLOOR_SECONDS)

    @on(StatusBatch)
    async def handle(self, batch: StatusBatch) -> None:
        deliveries = batch.deliveries
        if self._guard.doubtful:
            await self._retry.run(self._guard.confirm)
            deliveries = await self._partitions.ours(deliveries)  # of a broker that has the same log
        deliveries = await self._guard.valid(deliveries)
        self._guard.owe(deliveries)
        batch.facts = await self._order_of_work.process(deliveries, lambda: self._retry.run(self._guard.reach))
        self._floor_wanted.set()

    def count_of(self, message: Any) -> int:
        return message.facts if isinstance(message, StatusBatch) else super().count_of(message)
