"""Supervise child processes: restart them with backoff when they end, and stop them in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.actor.supervisor import Intensity, Restarts
from cli.local.processes import GOOD_END, SUPERSEDED_END, Child
from protocol.errors import RoleFailed, RoleSuperseded

log = logging.getLogger("examwire.children")

END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SupersededBackoff:
    """Seconds before a child is restarted after another process took over its name; doubled up to `backoff_max`."""

    backoff: float = 60.0
    backoff_max: float = 600.0


SUPERSEDED_BACKOFF = SupersededBackoff()


class ProcessSupervisor:
    """Restarts child processes. After more than `intensity.restarts` within a period, `wait` raises `RoleFailed`.

    A child that ends with exit code 0 is restarted without counting as a failure. A child that was superseded (exit
    code 6: another process runs with its name) stays down for `rivalry.backoff` seconds, each time twice as long up to
    `backoff_max`; then it starts only if the other process is gone. `on_change` is called after each start.

    Example::

        supervisor = ProcessSupervisor(intensity, lock.record)
        await supervisor.start(nats, redis)
        await supervisor.wait()
        await supervisor.stop([nats, redis])
    """

    def __init__(
        self,
        intensity: Intensity,
        on_change: Callable[[list[Child]], None],
        rivalry: SupersededBackoff = SUPERSEDED_BACKOFF,
    ) -> None:
        self.intensity = intensity
        self.rivalry = rivalry
        self.children: list[Child] = []
        self._on_change = on_change
        self._keeping: dict[Child, asyncio.Task[None]] = {}
        self._gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, *children: Child) -> None:
        """Start children together, and supervise them from then on. Raises the first `RoleFailed`."""
        self.children.extend(children)
        starting = [asyncio.create_task(self._start(child), name=f"start:{child.name}") for child in children]
        try:
            await asyncio.gather(*starting)
        finally:  # after a failure or a cancellation, the other starts are not needed
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)

    async def _start(self, child: Child) -> None:
        try:
            await child.start()
        finally:
            self._on_change(self.children)
        self._keeping[child] = asyncio.create_task(self._keep(child), name=f"keep:{child.name}")

    async def _keep(self, child: Child) -> None:
        restarts = Restarts(self.intensity)
        backoff = self.rivalry.backoff
        end = await child.ended()
        while True:
            if end == GOOD_END:  # drained or stopped on request: not a failure
                log.warning("%s ended cleanly and is started again", child.name)
            elif end == SUPERSEDED_END:
                log.error("%s stays down for %g s: another process runs under its name. End one", child.name, backoff)
                child.give_way()
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, self.rivalry.backoff_max)
            else:
                delay = restarts.delay()
                if delay is None:
                    times, period = restarts.recent, self.intensity.period
                    self._give_up(f"{child.name} ended {times} times within {period:g} s, at last: {end}")
                    return
                log.warning("%s ended (%s) and is started again in %.1f s", child.name, end, delay)
                await asyncio.sleep(delay)
            try:
                await child.start()
            except RoleSuperseded:
                end = SUPERSEDED_END
                continue
            except RoleFailed as error:
                end = str(error)
                continue
            finally:
                self._on_change(self.children)
            log.warning("%s is ready again", child.name)
            backoff = self.rivalry.backoff
            end = await child.ended()

    def _give_up(self, reason: str) -> None:
        if not self._gave_up.done():
            self._gave_up.set_exception(RoleFailed(reason))

    async def wait(self) -> None:
        """Wait until a child fails too often; raises `RoleFailed` naming it."""
        await asyncio.shield(self._gave_up)

    async def stop(self, *order: Sequence[Child]) -> None:
        """Stop the children, one group after the other, each group together. Can be repeated."""
        await cancel_tasks(self._keeping.values(), END_SECONDS)
        for group in order:
            await _all(child.stop() for child in group)
        if not self._gave_up.done():
            self._gave_up.cancel()
        elif not self._gave_up.cancelled():
            self._gave_up.exception()  # mark it as retrieved, in case nobody called `wait`

    def kill(self) -> None:
        """Send SIGKILL to all children."""
        for child in self.children:
            child.kill()


async def _all(work: Any) -> None:
    """Await all, then raise the first error."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
