"""Run a role as a process: connect to NATS and Redis, supervise actors, handle signals; each step has a deadline."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import uvloop

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.actor.process_facts import raise_fd_limit
from actors.runtime.actor.service import Service
from actors.runtime.actor.supervisor import ChildSpec, Supervisor
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.role.metrics_server import MetricsServer
from actors.runtime.role.probes import Probes
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.logs import log_last_words
from actors.runtime.telemetry.metrics import ENGINE_UP
from protocol.errors import BrokerAbsent

log = logging.getLogger("examwire.role")

CONNECT_SECONDS = 15.0
ABSENT_SECONDS = 600.0
"""A role that has found nobody where NATS should be for so long ends."""
DRAIN_SECONDS = 20.0
WORK_SECONDS = 5.0
CLOSE_SECONDS = 5.0
GUARD_SECONDS = 45.0
"""More than all deadlines together; then the process is ended."""

MakeChildren = Callable[[Bus, StateStore], Sequence[ChildSpec[Service]]]
Ready = Callable[[Supervisor], Awaitable[None]]


def run_role(name: str, settings: Settings, children: MakeChildren, ready: Ready, metrics: MetricsServer) -> int:
    """Run a role until SIGINT or SIGTERM (drain; a second one forces) or until it has to give up.

    `ready` is awaited when all children have started; `metrics` is served from the first moment to the last. Returns
    0 when drained, 1 when something did not stop in time; raises what the role had to give up with (an
    `ExamwireError`), after everything has been stopped.
    """
    raise_fd_limit()
    # What a role holds lives long: thousands of sessions are not to be walked through again and again while more of
    # them arrive. Measured: full collections of 140 to 290 ms while a hall connects. The youngest are looked at often
    # all the same: 50,000 of them, when connections come and go by the hundred, took 60 ms at once, 10,000 take 7.
    gc.set_threshold(10_000, 100, 1000)
    guard = _guard(name)
    try:
        return uvloop.run(_run(name, settings, children, ready, metrics, guard))
    finally:
        guard.cancel()


async def _run(
    name: str,
    settings: Settings,
    children: MakeChildren,
    ready: Ready,
    metrics: MetricsServer,
    guard: threading.Timer,
) -> int:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            log.error("%s: forced to stop", name)
            os._exit(1)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)

    role = _Role(name, settings, children, ready, metrics)
    working, stopping = asyncio.create_task(role.work()), asyncio.create_task(stop.wait())
    code = 0
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        guard.start()
        await cancel_tasks([working, stopping], WORK_SECONDS)
        if not await role.stop():
            code = 1
    return code


class _Role:
    """The connections and actors of a role, from start to stop."""

    def __init__(
        self, name: str, settings: Settings, children: MakeChildren, ready: Ready, metrics: MetricsServer
    ) -> None:
        self._name = name
        self._settings = settings
        self._children = children
        self._ready = ready
        self._metrics = metrics
        self._supervisor = Supervisor(name)
        self._bus: Bus | None = None
        self._store: StateStore | None = None
        self._probes: Probes | None = None

    async def work(self) -> None:
        """Connect, start the actors, and wait until they end by themselves."""
        for engine in ("nats", "redis"):
            ENGINE_UP.labels(engine).set(0)  # not reached yet; alerts need a value
        await self._metrics.start(self._supervisor)  # first: /readyz says what the role waits for
        self._bus = bus = await self._connect()
        self._store = store = StateStore(self._settings.redis_url, self._settings.redis)
        self._metrics.watch(bus, store)
        self._probes = Probes(bus, store)
        self._probes.start()
        for spec in self._children(bus, store):
            await self._supervisor.start_child(spec)
        self._metrics.started = True
        await self._ready(self._supervisor)
        running, cut_off = asyncio.create_task(self._supervisor.wait()), asyncio.create_task(bus.gone())
        try:
            await asyncio.wait({running, cut_off}, return_when=asyncio.FIRST_COMPLETED)
            for ended in (running, cut_off):
                if ended.done():
                    await ended
        finally:
            running.cancel()
            cut_off.cancel()

    async def _connect(self) -> Bus:
        """Connect to NATS. A server with a long log listens only when it has read it, which takes minutes."""
        began = time.monotonic()
        while True:
            try:
                return await Bus.connect(self._settings, self._name, wait=CONNECT_SECONDS)
            except BrokerAbsent as absent:
                if time.monotonic() - began > ABSENT_SECONDS:
                    raise
                log.warning("%s: still waiting for NATS: %s", self._name, absent)

    async def stop(self) -> bool:
        """Stop actors, connections and metrics, each with a deadline; return False when one did not stop in time."""
        stops: list[tuple[str, Coroutine[Any, Any, None], float]] = [
            ("the actors", self._supervisor.stop(), DRAIN_SECONDS)
        ]
        if self._probes is not None:
            stops.append(("the probes", self._probes.stop(), CLOSE_SECONDS))
        if self._bus is not None:
            stops.append(("the connection to NATS", self._bus.close(), CLOSE_SECONDS))
        if self._store is not None:
            stops.append(("the connection to Redis", self._store.close(), CLOSE_SECONDS))
        stops.append(("the metrics", self._metrics.stop(), CLOSE_SECONDS))
        in_time = True
        for what, stopping, seconds in stops:
            task = asyncio.create_task(stopping)
            # Not `asyncio.timeout`: a task that hangs may ignore its cancellation.
            if not (await asyncio.wait({task}, timeout=seconds))[0]:
                log.error("%s: %s did not stop within %g s", self._name, what, seconds)
                task.cancel()
                in_time = False
            elif not task.cancelled() and (error := task.exception()) is not None:
                log.error("%s: %s did not stop cleanly", self._name, what, exc_info=error)
        return in_time


def _guard(name: str) -> threading.Timer:
    """End the process when stopping takes longer than all deadlines, even if the event loop hangs."""

    def give_up() -> None:
        log_last_words(f"{name}: did not stop within {GUARD_SECONDS:g} s and is ended")
        os._exit(1)

    timer = threading.Timer(GUARD_SECONDS, give_up)
    timer.daemon = True
    return timer
