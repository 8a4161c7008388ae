"""Repeat a step of the state manager until Redis and NATS answer, and repair Redis when it has lost its state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from actors.state_manager.recovery.repair import StateRepair
from actors.state_manager.recovery.restoration import Repair
from protocol.errors import BrokerUnavailable, ConsumerGone, StateDamaged, StateLost, StateUnavailable
from protocol.ids import RecordRef

log = logging.getLogger("examwire.state_manager")

T = TypeVar("T")

FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 1.0
REPAIR_DELAY_SECONDS = 0.2


class Spawn(Protocol):
    """Start a coroutine in the background; when it raises, the state manager fails."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str, /) -> object: ...


class EngineRetry:
    """Retries steps while an engine is away; every write compares versions, so a repetition has no second effect.

    While Redis is repaired, in the background, a step succeeds as soon as what it reads is whole. `waiting_for`:
    "redis", "nats", "state" (Redis is being repaired), or `None`. `name` stands in log lines.

    Example::

        decision = await retry.run(lambda: settle(items))
    """

    def __init__(self, repair: StateRepair, name: str, spawn: Spawn) -> None:
        self.waiting_for: str | None = None
        self._repair = repair
        self._name = name
        self._spawn = spawn
        self._started = False
        self._repairing = asyncio.Lock()

    async def run(self, step: Callable[[], Awaitable[T]]) -> T:
        """Return the step's result. Raises what is not the trouble of an engine."""
        delay = FIRST_DELAY_SECONDS
        rewritten: set[RecordRef] = set()
        while True:
            try:
                result = await step()
            except StateLost:
                if not self._started:
                    self._started = True
                    self._spawn(self.restore_state(), "repair")
                await asyncio.sleep(delay)
                delay = min(delay * 2, REPAIR_DELAY_SECONDS)
            except StateDamaged as damage:
                # Not of a record, which concerns one examinee: of the index, and so of everybody.
                if damage.record is None or damage.record in rewritten:
                    raise
                rewritten.add(damage.record)
                log.warning("%s: %s: writing it again from the log", self._name, damage)
                await self._repair.rewrite_index(damage.record)
            except (StateUnavailable, BrokerUnavailable) as error:
                engine = "Redis" if isinstance(error, StateUnavailable) else "NATS"
                if self.waiting_for is None:
                    log.warning("%s: waiting for %s: %s", self._name, engine, error)
                self.waiting_for = engine.lower()
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)
            else:
                if self.waiting_for in ("redis", "nats"):
                    log.warning("%s: %s is back", self._name, self.waiting_for)
                    self.waiting_for = None
                return result

    async def restore_state(self) -> None:
        """Bring a Redis that was emptied, replaced or set back up to the log; new facts wait for their plans."""
        async with self._repairing:
            self._started = True
            self.waiting_for = "state"
            while True:
                try:
                    repair = await self._repair.restore_state()
                except (BrokerUnavailable, ConsumerGone, StateUnavailable, StateDamaged) as error:
                    log.error("%s: Redis has lost state and cannot be repaired yet: %s", self._name, error)
                    await asyncio.sleep(LONGEST_DELAY_SECONDS)
                else:
                    break
            self.waiting_for, self._started = None, False
        if repair.messages or repair.records:
            self._log(repair)

    def _log(self, repair: Repair) -> None:
        log.log(
            logging.WARNING if repair.alarming else logging.INFO,
            "%s: Redis is repaired (it was %s): %d records written, %d events restated, %d messages of the log, %.2f s",
            self._name,
            repair.found,
            repair.records,
            repair.restated,
            repair.messages,
            repair.seconds,
        )
