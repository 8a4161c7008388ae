"""Running a role as a process: engines connected, actors supervised, signals obeyed, every step with a deadline."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

import uvloop

from actors.runtime.bus import Bus
from actors.runtime.metrics_server import MetricsServer
from actors.runtime.process_facts import raise_fd_limit
from actors.runtime.settings import Settings
from actors.runtime.state_store import StateStore
from actors.runtime.supervision import ChildSpec, Supervisor
from actors.runtime.vitals import Vitals

log = logging.getLogger("examwire.role")

DRAIN_SECONDS = 20.0

MakeChildren = Callable[[Bus, StateStore], Sequence[ChildSpec]]
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
    return uvloop.run(_run(name, settings, children, ready, metrics))


async def _run(name: str, settings: Settings, children: MakeChildren, ready: Ready, metrics: MetricsServer) -> int:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            print(f"{name}: forced to stop", file=sys.stderr)
            os._exit(1)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)

    supervisor = Supervisor(name)
    bus: Bus | None = None
    store: StateStore | None = None
    vitals: Vitals | None = None
    code = 0
    stopping = asyncio.create_task(stop.wait())
    try:
        await metrics.start(supervisor)  # before anything that may have to wait: it is alive, and says what is missing
        bus = await Bus.connect(settings, name)
        store = StateStore(settings.redis_url, settings.redis)
        metrics.watch(bus, store)
        vitals = Vitals(bus, store)
        vitals.start()
        starting = asyncio.create_task(_start(supervisor, children(bus, store), ready, metrics))
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=5)
        else:
            await starting
            running, cut_off = asyncio.create_task(supervisor.wait()), asyncio.create_task(bus.gone())
            await asyncio.wait({running, cut_off, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for ended in (running, cut_off):
                if ended.done():
                    await ended
                ended.cancel()
    finally:
        stopping.cancel()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await supervisor.stop()
        except TimeoutError:
            log.error("%s: did not stop within %g s", name, DRAIN_SECONDS)
            code = 1
        if vitals is not None:
            await vitals.stop()
        if bus is not None:
            await bus.close()
        if store is not None:
            await store.close()
        metrics.stop()
    return code


async def _start(supervisor: Supervisor, specs: Sequence[ChildSpec], ready: Ready, metrics: MetricsServer) -> None:
    for spec in specs:
        await supervisor.start_child(spec)
    metrics.started = True
    await ready(supervisor)
