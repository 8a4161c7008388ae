"""Notice a log that is behind Redis, and decide nothing from it before it is mended.

The broker was restored from an older copy, or has lost the end of the log. New facts would get versions that Redis and
the screens have passed, so they would have no effect, and nobody would be told anything. `KnownLog` says what Redis may
hold; the log is behind when it does not reach so far, or has another message in that place: a restored log may have
grown past its old end before anybody looks.

It is compared at the start, after each connection to the broker, and when the end of the log goes back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from prometheus_client import Counter, Gauge

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.stream_state import StreamState
from actors.runtime.store.log_mark import CLAIM_SECONDS, KnownLog
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.state_manager.recovery.log_mending import LogMending
from actors.status_log.status_log import StatusLog
from protocol.broker.streams import CHECKPOINT, STATUS
from protocol.errors import NotPermitted, StateLost, StateUnavailable
from protocol.times import format_time

log = logging.getLogger("examwire.log_guard")

LOG_BEHIND = Gauge(
    "examwire_log_behind_messages",
    "Messages of the log that Redis knows and the broker has lost, until the log is mended",
    registry=REGISTRY,
)
FOREIGN_REDIS = Gauge(
    "examwire_redis_of_another_installation",
    "Whether Redis holds the records of another installation, so that nothing is read or written there",
    registry=REGISTRY,
)
LOG_GAPS = Counter("examwire_log_gaps_total", "Times that the log was behind Redis, and was mended", registry=REGISTRY)

WAIT_SECONDS = 0.2
"""How often a manager looks whether another one has mended the log."""
CLOCK_SECONDS = 0.001
"""Times of one message, as different answers of the broker write them, differ by less."""
STEPS_BACK = 100
MOST_MISSING = 20_000_000
"""A gap of more messages is not filled: it would take hours."""


class LogGuard:
    """Compares the log with what Redis knows of it. `name`: that of the state manager.

    Example::

        guard = LogGuard(bus, store, status, "state-manager.sm1")
        await guard.confirm()  # returns when the log may be followed
        deliveries = await guard.valid(deliveries)
        guard.owe(deliveries)  # before they have any effect
    """

    def __init__(self, bus: Bus, store: StateStore, status: StatusLog, name: str) -> None:
        self._bus = bus
        self._store = store
        self._status = status
        self._name = name
        self._mending = LogMending(bus, store, status)
        self._known = KnownLog()
        self._end: StreamState | None = None
        self.doubtful = True
        """Whether the log is to be compared before anything is decided from it."""
        self._checking = asyncio.Lock()
        self._moved: tuple[int, int] | None = None
        """The messages between these sequences were moved behind the newest gap."""
        self._reported = False
        bus.on_reconnected.append(self._doubt)

    async def _doubt(self) -> None:
        self.doubtful = True

    async def look(self) -> bool:
        """Return whether the log is to be compared: its end has gone back, or it is another one."""
        state = await self._bus.stream_state(STATUS.name)
        if self._end is not None and (state.last < self._end.last or state.created != self._end.created):
            self.doubtful = True
        self._end = state
        return self.doubtful

    def owe(self, deliveries: Sequence[Delivery]) -> None:
        """Have the newest of these messages noted in Redis, in the round trip of the next write and before it."""
        newest = max(deliveries, key=lambda delivery: delivery.sequence, default=None)
        self._known = self._known.or_newer(self._store.log_mark.noted)
        if newest is not None and newest.sequence > self._known.reached:
            self._store.log_mark.owe(KnownLog(newest.sequence, newest.stored_at))

    async def reach(self) -> None:
        """Note in Redis what is owed, if no write has done so."""
        await self._store.log_mark.settle()

    async def valid(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return the deliveries that are in the log. Those that were moved behind a gap come again from there."""
        if self._moved is None:
            return list(deliveries)
        first, end = self._moved
        moved = [delivery for delivery in deliveries if first <= delivery.sequence < end]
        for delivery in moved:
            await delivery.ack()
        return [delivery for delivery in deliveries if delivery not in moved] if moved else list(deliveries)

    async def confirm(self) -> None:
        """Return when the log may be followed. One manager mends it, the others wait.

        Raises `StateUnavailable`, also when Redis is that of another installation, `StateLost` when Redis is to be
        repaired first, `BrokerUnavailable`.
        """
        while self.doubtful:
            async with self._checking:
                if self.doubtful and not await self._follow():
                    await asyncio.sleep(WAIT_SECONDS)

    async def _follow(self) -> bool:
        """Compare the log, and mend it if that is for this manager to do. Return whether it may be followed now."""
        state = await self._bus.stream_state(STATUS.name)
        stored = await self._store.log_mark.read()
        known = stored.or_newer(self._known).or_newer(self._store.log_mark.noted)
        installation = await self._installation()
        foreign = stored.is_of_another_installation(state.created, installation)
        FOREIGN_REDIS.set(foreign)
        if foreign:
            # Perhaps somebody else uses it: nothing there is changed.
            since = format_time(stored.created)
            raise StateUnavailable(
                f"Redis holds the records of another installation, whose log was created at {since}: correct "
                "redis_url, or empty this Redis, so that it is written from the log"
            )
        if await self._is_behind(known, state):
            missing = max(1, known.reached - state.last)
            LOG_BEHIND.set(missing)
            self._report(known, state, missing)
            if missing > MOST_MISSING or not await self._store.log_mark.claim(self._name):
                return False
            if not await self._store.mark.is_whole():
                raise StateLost("Redis is to be repaired before the log is mended")
            await self._mend(known)
        newest = await self._status.newest_gap()
        self._moved = (newest[0].after + 1, newest[1]) if newest is not None else None
        if (known.created, known.installation) != (state.created, installation):
            await self._store.log_mark.follow(state.created, installation)
        LOG_BEHIND.set(0)
        self._known = known
        self.doubtful = self._reported = False
        self._end = None
        return True

    async def _mend(self, known: KnownLog) -> None:
        renewal = asyncio.create_task(self._renew_claim(), name="claim of the log")
        try:
            await self._mending.mend(known)
        finally:
            await cancel_tasks([renewal], CLAIM_SECONDS)
        LOG_GAPS.inc()

    async def _renew_claim(self) -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 4)
            try:
                await self._store.log_mark.claim(self._name)
            except StateUnavailable as error:
                log.debug("the claim is not renewed: %s", error)

    async def _is_behind(self, known: KnownLog, state: StreamState) -> bool:
        if known.mending:
            return True
        if state.first > known.reached:
            return False  # it was made again and begins above, or everything has aged out
        if state.last < known.reached:
            return True
        for sequence in range(known.reached, max(state.first, known.reached - STEPS_BACK) - 1, -1):
            stored = await self._bus.message_at(STATUS.name, sequence)
            if stored is not None:  # else it was deleted, as facts of a plan that is purged
                return stored.time > known.time + CLOCK_SECONDS
        return False

    async def _installation(self) -> float:
        """Return when the stream CHECKPOINT was created, which nobody makes again; 0: it is not known."""
        try:
            return (await self._bus.stream_state(CHECKPOINT.name)).created
        except NotPermitted as error:
            log.debug("the permissions are of an earlier release: %s", error)
            return 0.0

    def _report(self, known: KnownLog, state: StreamState, missing: int) -> None:
        if self._reported:
            return
        self._reported = True
        log.error(
            "the log is behind Redis, which knows message %d; the log ends at %d, so %d or more are missing. Was the "
            "broker restored from an older copy? No fact is processed until the log is mended",
            known.reached,
            state.last,
            missing,
        )
