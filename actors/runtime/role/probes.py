"""Probes of a process: the lag of its event loop, the round trips to NATS and Redis, and their clocks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.broker.connection import Bus
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import (
    CLOCK_OFFSET,
    ENGINE_UP,
    LOOP_LAG,
    LOOP_LAG_MAX,
    NATS_RECONNECTS,
    ROUND_TRIP_ERRORS,
    ROUND_TRIPS,
)
from protocol.errors import BrokerUnavailable, StateDamaged, StateUnavailable

log = logging.getLogger("examwire.probes")

TICK_SECONDS = 0.1
WINDOW_SECONDS = 60.0
PROBE_SECONDS = 3.0
STOP_SECONDS = 2.0


class Probes:
    """Measures from `start` to `stop`.

    Example::

        probes = Probes(bus, store)
        probes.start()
        await probes.stop()
    """

    def __init__(self, bus: Bus, store: StateStore) -> None:
        self._bus = bus
        self._store = store
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all probes. One that fails is logged, and the role goes on without it."""
        loop = asyncio.get_running_loop()
        self._bus.on_reconnected.append(self._reconnected)
        probes = (("lag", _lag()), ("nats", self._nats()), ("redis", self._redis()), ("clock", self._clock()))
        for name, work in probes:
            task = loop.create_task(work, name=f"probes:{name}")
            task.add_done_callback(_ended)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Stop all probes, within `STOP_SECONDS`. Harmless when repeated."""
        if not await cancel_tasks(self._tasks, STOP_SECONDS, repeat=0.1):
            log.error("a measurement does not end")
        self._tasks.clear()
        if self._reconnected in self._bus.on_reconnected:
            self._bus.on_reconnected.remove(self._reconnected)

    async def _reconnected(self) -> None:
        NATS_RECONNECTS.inc()

    async def _nats(self) -> None:
        up, took, errors = ENGINE_UP.labels("nats"), ROUND_TRIPS.labels("nats"), ROUND_TRIP_ERRORS.labels("nats")
        while True:
            began = time.perf_counter()  # uvloop's clock, which nats-py asks, counts whole milliseconds
            try:
                await self._bus.round_trip()
            except BrokerUnavailable:
                errors.inc()
                up.set(0)
            else:
                took.observe(time.perf_counter() - began)
                up.set(1)
            await asyncio.sleep(PROBE_SECONDS)

    async def _redis(self) -> None:
        up, took, errors = ENGINE_UP.labels("redis"), ROUND_TRIPS.labels("redis"), ROUND_TRIP_ERRORS.labels("redis")
        while True:
            began, wall = time.perf_counter(), time.time()
            try:
                theirs = await self._store.time()
            except (StateUnavailable, StateDamaged):
                errors.inc()
                up.set(0)
            else:
                seconds = time.perf_counter() - began
                took.observe(seconds)
                up.set(1)
                CLOCK_OFFSET.set(wall + seconds / 2 - theirs)
            await asyncio.sleep(PROBE_SECONDS)

    async def _clock(self) -> None:
        """Compare this machine's clock with the broker's; often, until the first stream exists."""
        while True:
            try:
                await self._bus.clock.measure()
            except BrokerUnavailable as error:
                log.debug("the broker's clock: %s", error)
            await asyncio.sleep(PROBE_SECONDS if self._bus.clock.known else TICK_SECONDS)


async def _lag() -> None:
    """Measure how late a timer fires, and the largest lag within the last minute."""
    recent: deque[tuple[float, float]] = deque()
    while True:
        due = time.perf_counter() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        late = max(0.0, now - due)
        LOOP_LAG.observe(late)
        while recent and recent[-1][1] <= late:  # kept falling: the first is the worst
            recent.pop()
        recent.append((now, late))
        while recent[0][0] < now - WINDOW_SECONDS:
            recent.popleft()
        LOOP_LAG_MAX.set(recent[0][1])


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s ended and no longer measures", task.get_name(), exc_info=error)
