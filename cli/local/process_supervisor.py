"""Keeps child processes running: watched, started again with backoff when they die, and stopped in order."""

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
    """How long, in seconds, a child stays down whose name another process has."""

    backoff: float = 60.0
    backoff_max: float = 600.0


SUPERSEDED_BACKOFF = SupersededBackoff()


class ProcessSupervisor:
    """Keeps children running. More than `intensity.restarts` within its period: `wait` raises `RoleFailed`.

    A child that has ended in good order (exit code 0) is started again as well; that is no failure and not counted.
    Nor is the end of one that was superseded (exit code 6): somebody else runs under its name. It stays down for
    `rivalry.backoff` seconds, each time twice as long up to `backoff_max`, and then starts only if the other is gone.
    `on_change` is told whenever there are other processes than before.
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
        """Start children at the same time, and keep them from then on. Raises the first `RoleFailed`."""
        self.children.extend(children)
        starting = [asyncio.create_task(self._start(child), name=f"start:{child.name}") for child in children]
        try:
            await asyncio.gather(*starting)
        finally:  # one has failed, or we are told to stop: the others need not go on
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
        down = self.rivalry.backoff
        how = await child.ended()
        while True:
            if how == GOOD_END:  # somebody drained it, or asked it to end: a restart, and no failure
                log.warning("%s ended in good order and is started again", child.name)
            elif how == SUPERSEDED_END:
                log.error("%s stays down for %g s: another process runs under its name. End one", child.name, down)
                child.give_way()
                await asyncio.sleep(down)
                down = min(down * 2, self.rivalry.backoff_max)
            else:
                delay = restarts.delay()
                if delay is None:
                    times, period = restarts.recent, self.intensity.period
                    self._give_up(f"{child.name} ended {times} times within {period:g} s, at last: {how}")
                    return
                log.warning("%s ended (%s) and is started again in %.1f s", child.name, how, delay)
                await asyncio.sleep(delay)
            try:
                await child.start()
            except RoleSuperseded:
                how = SUPERSEDED_END
                continue
            except RoleFailed as error:
                how = str(error)
                continue
            finally:
                self._on_change(self.children)
            log.warning("%s is ready again", child.name)
            down = self.rivalry.backoff
            how = await child.ended()

    def _give_up(self, reason: str) -> None:
        if not self._gave_up.done():
            self._gave_up.set_exception(RoleFailed(reason))

    async def wait(self) -> None:
        """Until a child cannot be kept; raises `RoleFailed` saying which."""
        await asyncio.shield(self._gave_up)

    async def stop(self, *order: Sequence[Child]) -> None:
        """Stop keeping, and stop the children group after group, those of a group together. Harmless when repeated."""
        await cancel_tasks(self._keeping.values(), END_SECONDS)
        for group in order:
            await _all(child.stop() for child in group)
        if not self._gave_up.done():
            self._gave_up.cancel()
        elif not self._gave_up.cancelled():
            self._gave_up.exception()  # told by `wait`, if anybody waited

    def kill(self) -> None:
        """SIGKILL for all, in no order."""
        for child in self.children:
            child.kill()


async def _all(work: Any) -> None:
    """Await all, and only then raise what the first of them raised."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
