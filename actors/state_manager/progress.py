"""Report each second up to where STATUS is applied, and what a state manager waits for
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
from protocol.broker.streams import LEASE_WATCH, RECONNECT_WATCH, STATUS
from protocol.errors import BrokerUnavailable, StateDamaged, StateUnavailable
from protocol.messages.base import FORMAT
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

_REPORTED_REASONS: tuple[WaitingFor, ...] = ("redis", "nats", "state")


class LogPart(NamedTuple):
    """A part of the log: its consumer, whether this state manager reads it now, and the deliveries it holds."""

    consumer: str
    reads: Callable[[], bool]
    in_hand: Callable[[], HeldDeliveries]


class StateProgress:
    """Publishes reports of the state manager `name` about the `parts` of the log.

    `waiting_for()`: the engine that the order of work waits for, or `None`.

    Example::

        progress = StateProgress(bus, store, "sm-1", partitions.parts(), lambda: retry.waiting_for)
        await progress.run()  # until cancelled
        progress.report()  # the current report
    """

    def __init__(
        self,
        bus: Bus,
        store: StateStore,
        name: str,
        parts: Mapping[str, LogPart],
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
        # Without these consumers, lost servers and used up reconnect attempts are never reported.
        specs = (LEASE_WATCH, RECONNECT_WATCH)
        self._loss_watches = [ConsumerWatch(bus, spec.stream, spec.name, HeldDeliveries) for spec in specs]
        self._redis_silent_since: float | None = None
        self._not_whole_since: float | None = None

    async def run(self) -> None:
        """Ask the engines and report, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._all_watches():
                group.create_task(watch.run(self._pause))
            group.create_task(self._check_redis())
            group.create_task(self._report_regularly())

    async def _check_redis(self) -> None:
        """Ask for the mark of Redis, also while nothing happens: without Redis no view is current."""
        while True:
            self._redis_silent_since = self._redis_silent_since or time.monotonic()
            try:
                whole = await self._store.mark.is_whole()
            except (StateUnavailable, StateDamaged) as error:
                log.debug("%s: %s", self._name, error)
                whole = False
            else:
                self._redis_silent_since = None
                self._not_whole_since = None if whole else self._not_whole_since or time.monotonic()
            await asyncio.sleep(REPORT_SECONDS if whole else REPORT_SOON_SECONDS)

    async def _report_regularly(self) -> None:
        """Report each second, and more often while something waits."""
        reported_at, woke_at = -REPORT_SECONDS, time.monotonic()
        valid_from = 0.0
        while True:
            now = time.monotonic()
            if (late := now - woke_at - REPORT_SOON_SECONDS) > REPORT_SECONDS:
                self._exclude_stall(late)
                valid_from = now  # answers from before the stall are outdated
            up_to_date = now - valid_from > 2 * REPORT_SECONDS or all(
                watch.as_of >= valid_from for watch in self._all_watches()
            )
            if up_to_date and now - reported_at >= self._pause():
                reported_at = now
                await self._publish_report()
            woke_at = time.monotonic()
            await asyncio.sleep(REPORT_SOON_SECONDS)

    async def _publish_report(self) -> None:
        BEHIND.set(self._waiting_seconds())
        if not self._bus.connected:
            return  # a buffered report would be outdated when it is sent
        try:
            await self._bus.publish_core(subjects.applied(self._name), encode(self.report()))
        except BrokerUnavailable as error:
            log.debug("%s: %s", self._name, error)

    def _exclude_stall(self, seconds: float) -> None:
        """Do not count `seconds` in which this process stood still: the answers may have arrived unread."""
        for watch in self._all_watches():
            watch.stood_still(seconds)
        if self._redis_silent_since is not None:
            self._redis_silent_since += seconds

    def _pause(self) -> float:
        return REPORT_SOON_SECONDS if self._waiting_seconds() > REPORT_SECONDS else REPORT_SECONDS

    def report(self) -> Applied:
        """Return the current report."""
        partitions = dict(self._progress())
        delay = self._longest_wait()
        if delay is not None and delay.seconds > REPORT_SECONDS:
            return Applied(
                state_manager=self._name,
                partitions=partitions,
                waiting_for=delay.waiting_for,
                waiting_seconds=round(delay.seconds, 3),
                understood_format=FORMAT,
            )
        engine = self._waiting_for()
        waiting_for = next((reason for reason in _REPORTED_REASONS if reason == engine), None)
        return Applied(
            state_manager=self._name, partitions=partitions, waiting_for=waiting_for, understood_format=FORMAT
        )

    def _progress(self) -> Iterator[tuple[str, PartitionApplied]]:
        """Yield the progress of each part, also of parts that another state manager reads or that are idle."""
        for part, watch in self._watches.items():
            missing = watch.missing_for()
            if missing is not None:
                yield part, PartitionApplied(up_to=0, still_seconds=round(missing, 3), waiting_for="consumer")
            else:
                yield part, watch.progress.model_copy(update={"reads": self._parts[part].reads()})

    def _longest_wait(self) -> Delay | None:
        """Return what has been waited for the longest."""
        now = time.monotonic()
        delays = [Delay("nats", age) for watch in self._all_watches() if (age := watch.unanswered_for()) is not None]
        delays += [Delay("consumer", age) for watch in self._loss_watches if (age := watch.missing_for()) is not None]
        redis = [since for since in (self._redis_silent_since, self._not_whole_since) if since is not None]
        if redis:
            unanswered = self._redis_silent_since is not None and now - self._redis_silent_since > REPORT_SECONDS
            unreachable = unanswered or self._not_whole_since is None
            delays.append(Delay("redis" if unreachable else "state", now - min(redis)))
        return max(delays, key=lambda delay: delay.seconds, default=None)

    def _waiting_seconds(self) -> float:
        """Return for how many seconds the log, or an engine needed to apply it, has been waited for."""
        delay = self._longest_wait()
        progress = dict(self._progress()).values()
        ages = [seconds for part in progress for seconds in (part.oldest_seconds, part.still_seconds) if seconds]
        return max([delay.seconds if delay is not None else 0.0, *ages])

    def _all_watches(self) -> list[ConsumerWatch]:
        return [*self._watches.values(), *self._loss_watches]
