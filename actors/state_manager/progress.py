"""What a state manager says each second: up to where the log is applied, and what it waits for
(`protocol.messages.progress`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.progress import ConsumerWatch
from actors.runtime.store.state_store import StateStore
from actors.state_manager.metrics import BEHIND
from protocol.broker import subjects
from protocol.broker.streams import LEASE_WATCH, STATUS, reconnect_watch
from protocol.errors import BrokerUnavailable, StateDamaged, StateUnavailable
from protocol.messages.codec import encode
from protocol.messages.progress import (
    REPORT_SECONDS,
    REPORT_SOON_SECONDS,
    Applied,
    Delay,
    HeldDeliveries,
    PartitionApplied,
    WaitingFor,
)

log = logging.getLogger("examwire.state_progress")

_OWN_WORDS: tuple[WaitingFor, ...] = ("redis", "nats", "state")


class Reading(NamedTuple):
    """A part of the log: its consumer, whether this state manager reads it now, and what it has in hand of it."""

    consumer: str
    reads: Callable[[], bool]
    in_hand: Callable[[], HeldDeliveries]


class StateProgress:
    """Speaks for the state manager `name` of the `parts` of the log.

    `waiting_for()`: what it waits for by its own word, if anything: the reason that is given when something has been
    waiting for long.
    """

    def __init__(
        self,
        bus: Bus,
        store: StateStore,
        name: str,
        parts: Mapping[str, Reading],
        waiting_for: Callable[[], str | None],
    ) -> None:
        self._bus = bus
        self._store = store
        self._name = name
        self._parts = parts
        self._waiting_for = waiting_for
        self._watches = {
            part: ConsumerWatch(bus, STATUS.name, reading.consumer, reading.in_hand) for part, reading in parts.items()
        }
        # Without these, servers that are lost and attempts that are used up are never told of.
        beside = (LEASE_WATCH, reconnect_watch(1, [1.0]))
        self._beside = [ConsumerWatch(bus, one.stream, one.name, HeldDeliveries) for one in beside]
        self._redis_asked_since: float | None = None
        self._not_whole_since: float | None = None

    async def run(self) -> None:
        """Look and speak until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._all_watches():
                group.create_task(watch.run(self._pause))
            group.create_task(self._look_at_redis())
            group.create_task(self._say())

    async def _look_at_redis(self) -> None:
        """Also while nothing happens: what could not be recorded now is no current view either."""
        while True:
            self._redis_asked_since = self._redis_asked_since or time.monotonic()
            try:
                whole = await self._store.mark.is_whole()
            except (StateUnavailable, StateDamaged) as error:
                log.debug("%s: %s", self._name, error)
                whole = False
            else:
                self._redis_asked_since = None
                self._not_whole_since = None if whole else self._not_whole_since or time.monotonic()
            await asyncio.sleep(REPORT_SECONDS if whole else REPORT_SOON_SECONDS)

    async def _say(self) -> None:
        """Each second, and sooner while something waits."""
        said_at, woke_at = -REPORT_SECONDS, time.monotonic()
        looks_first = 0.0
        while True:
            now = time.monotonic()
            if (late := now - woke_at - REPORT_SOON_SECONDS) > REPORT_SECONDS:
                self._stood_still(late)
                looks_first = now  # what it knows is of before
            known = now - looks_first > 2 * REPORT_SECONDS or all(
                one.as_of >= looks_first for one in self._all_watches()
            )
            if known and now - said_at >= self._pause():
                said_at = now
                await self._speak()
            woke_at = time.monotonic()
            await asyncio.sleep(REPORT_SOON_SECONDS)

    async def _speak(self) -> None:
        BEHIND.set(self._seconds())
        if not self._bus.connected:
            return  # what is said without a connection would be heard when it is no longer so
        try:
            await self._bus.publish_core(subjects.applied(self._name), encode(self.word()))
        except BrokerUnavailable as error:
            log.debug("%s: %s", self._name, error)

    def _stood_still(self, seconds: float) -> None:
        """This process was late by so much: answers may lie there unread, and are no silence of the engines."""
        for watch in self._all_watches():
            watch.stood_still(seconds)
        if self._redis_asked_since is not None:
            self._redis_asked_since += seconds

    def _pause(self) -> float:
        return REPORT_SOON_SECONDS if self._seconds() > REPORT_SECONDS else REPORT_SECONDS

    def word(self) -> Applied:
        """What is so now."""
        partitions = dict(self._progress())
        trouble = self._trouble()
        if trouble is not None and trouble.seconds > REPORT_SECONDS:
            return Applied(
                state_manager=self._name,
                partitions=partitions,
                waiting_for=trouble.waiting_for,
                waiting_seconds=round(trouble.seconds, 3),
            )
        own_word = self._waiting_for()
        waiting_for = next((one for one in _OWN_WORDS if one == own_word), None)
        return Applied(state_manager=self._name, partitions=partitions, waiting_for=waiting_for)

    def _progress(self) -> Iterator[tuple[str, PartitionApplied]]:
        """Also of what another one reads, or nobody, because there is nothing to do: this one stands by."""
        for part, watch in self._watches.items():
            missing = watch.missing_for()
            if missing is not None:
                yield part, PartitionApplied(up_to=0, still_seconds=round(missing, 3), waiting_for="consumer")
            else:
                yield part, watch.progress.model_copy(update={"reads": self._parts[part].reads()})

    def _trouble(self) -> Delay | None:
        """What it cannot go on without, longest waited for."""
        now = time.monotonic()
        troubles = [Delay("nats", age) for watch in self._all_watches() if (age := watch.unanswered_for()) is not None]
        troubles += [Delay("consumer", age) for watch in self._beside if (age := watch.missing_for()) is not None]
        redis = [since for since in (self._redis_asked_since, self._not_whole_since) if since is not None]
        if redis:
            unanswered = self._redis_asked_since is not None and now - self._redis_asked_since > REPORT_SECONDS
            away = unanswered or self._not_whole_since is None
            troubles.append(Delay("redis" if away else "state", now - min(redis)))
        return max(troubles, key=lambda one: one.seconds, default=None)

    def _seconds(self) -> float:
        """For how long the log, or what it takes to apply it, has been waited for."""
        trouble = self._trouble()
        progress = dict(self._progress()).values()
        ages = [seconds for one in progress for seconds in (one.oldest_seconds, one.still_seconds) if seconds]
        return max([trouble.seconds if trouble is not None else 0.0, *ages])

    def _all_watches(self) -> list[ConsumerWatch]:
        return [*self._watches.values(), *self._beside]
