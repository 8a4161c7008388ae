"""What a state manager says each second: up to where the log is applied, and what it waits for (`protocol.applied`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from actors.consumer_watch import ConsumerWatch
from actors.runtime.bus import Bus
from actors.runtime.state_store import StateStore
from actors.state_metrics import BEHIND
from protocol import subjects
from protocol.applied import SAY_SECONDS, SAY_SOON_SECONDS, Applied, Behind, InHand, WaitingFor
from protocol.codec import encode
from protocol.errors import BrokerUnavailable, StateDamaged, StateUnavailable
from protocol.streams import LEASE_WATCH, STATUS, reconnect_watch

log = logging.getLogger("examwire.state_progress")

_OWN_WORDS: tuple[WaitingFor, ...] = ("redis", "nats", "state")


class Reading(NamedTuple):
    """The consumer of a partition, and what its reader has in hand."""

    consumer: str
    in_hand: Callable[[], InHand]


class StateProgress:
    """Speaks for the state manager `name`, whose `partitions()` are those that it works off now.

    `waiting_for()`: what it waits for by its own word ("redis", "nats", "state"), if anything: the reason that is given
    when something has been waiting for long.
    """

    def __init__(
        self,
        bus: Bus,
        store: StateStore,
        name: str,
        partitions: Callable[[], Mapping[int, Reading]],
        waiting_for: Callable[[], str | None],
    ) -> None:
        self._bus = bus
        self._store = store
        self._name = name
        self._partitions = partitions
        self._waiting_for = waiting_for
        self._watches: dict[int, ConsumerWatch] = {}
        # Without these, servers that are lost and attempts that are used up are never told of.
        beside = (LEASE_WATCH, reconnect_watch(1, [1.0]))
        self._beside = [ConsumerWatch(bus, one.stream, one.name, InHand) for one in beside]
        self._redis_asked_since: float | None = None
        self._not_whole_since: float | None = None

    async def run(self) -> None:
        """Look and speak until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_consumers())
            group.create_task(self._look_at_redis())
            group.create_task(self._say())

    async def _look_at_consumers(self) -> None:
        while True:
            self._follow_partitions()
            await asyncio.gather(*(watch.look() for watch in (*self._watches.values(), *self._beside)))
            await asyncio.sleep(self._pause_seconds())

    def _follow_partitions(self) -> None:
        partitions = self._partitions()
        for partition in self._watches.keys() - partitions.keys():
            del self._watches[partition]
        for partition, reading in partitions.items():
            known = self._watches.get(partition)
            if known is None or known.consumer != reading.consumer:
                watch = ConsumerWatch(self._bus, STATUS.name, reading.consumer, reading.in_hand)
                self._watches[partition] = watch

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
            await asyncio.sleep(SAY_SECONDS if whole else SAY_SOON_SECONDS)

    async def _say(self) -> None:
        paused, pause = time.monotonic(), 0.0
        while True:
            if (late := time.monotonic() - paused - pause) > SAY_SECONDS:
                self._stood_still(late)
            if self._bus.connected:  # what is said without a connection would be heard when it is no longer so
                try:
                    await self._bus.publish_core(subjects.applied(self._name), encode(self.word()))
                except BrokerUnavailable as error:
                    log.debug("%s: %s", self._name, error)
            BEHIND.set(self._seconds())
            paused, pause = time.monotonic(), self._pause_seconds()
            await asyncio.sleep(pause)

    def _stood_still(self, seconds: float) -> None:
        """This process was late by so much: answers may lie there unread, and are no silence of the engines."""
        for watch in (*self._watches.values(), *self._beside):
            watch.stood_still(seconds)
        if self._redis_asked_since is not None:
            self._redis_asked_since += seconds

    def _pause_seconds(self) -> float:
        return SAY_SOON_SECONDS if self._seconds() > SAY_SECONDS else SAY_SECONDS

    def word(self) -> Applied:
        """What is so now."""
        partitions = {str(number): watch.progress for number, watch in sorted(self._watches.items())}
        trouble = self._trouble()
        if trouble is not None and trouble.seconds > SAY_SECONDS:
            return Applied(
                state_manager=self._name,
                partitions=partitions,
                waiting_for=trouble.waiting_for,
                waiting_seconds=round(trouble.seconds, 3),
            )
        own_word = self._waiting_for()
        waiting_for = next((one for one in _OWN_WORDS if one == own_word), None)
        return Applied(state_manager=self._name, partitions=partitions, waiting_for=waiting_for)

    def _trouble(self) -> Behind | None:
        """What it cannot go on without, longest waited for."""
        now = time.monotonic()
        watches = (*self._watches.values(), *self._beside)
        troubles = [trouble for watch in watches if (trouble := watch.trouble()) is not None]
        redis = [since for since in (self._redis_asked_since, self._not_whole_since) if since is not None]
        if redis:
            unanswered = self._redis_asked_since is not None and now - self._redis_asked_since > SAY_SECONDS
            away = unanswered or self._not_whole_since is None
            troubles.append(Behind("redis" if away else "state", now - min(redis)))
        return max(troubles, key=lambda one: one.seconds, default=None)

    def _seconds(self) -> float:
        """For how long the log, or what it takes to apply it, has been waited for."""
        trouble = self._trouble()
        progress = [watch.progress for watch in self._watches.values()]
        ages = [seconds for one in progress for seconds in (one.oldest_seconds, one.still_seconds) if seconds]
        return max([trouble.seconds if trouble is not None else 0.0, *ages])
