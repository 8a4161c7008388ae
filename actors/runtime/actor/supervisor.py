"""Supervision as in Erlang/OTP: child specs, restarts with backoff, a limit of restarts in a period, escalation."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from actors.runtime.telemetry.metrics import RESTARTS
from protocol.errors import RoleFailed

if TYPE_CHECKING:  # a command that only supervises processes need not load nats-py
    from actors.runtime.actor.service import Service

log = logging.getLogger("examwire.supervisor")

S = TypeVar("S", bound="Service")
S_co = TypeVar("S_co", bound="Service", covariant=True)

Restart = Literal["permanent", "transient", "temporary"]


@dataclass(frozen=True, slots=True)
class ChildSpec(Generic[S_co]):
    """How to make an actor, and when to restart it.

    permanent: always restarted. transient: restarted unless the error is a `RoleFailed`. temporary: never.
    """

    name: str
    factory: Callable[[], S_co]
    restart: Restart = "permanent"


@dataclass(frozen=True, slots=True)
class Intensity:
    """The limit of restarts: with more than `restarts` within `period` seconds the supervisor gives up.

    `backoff` is the wait before the first restart; it doubles up to `backoff_max` (seconds).
    """

    restarts: int = 5
    period: float = 60.0
    backoff: float = 0.1
    backoff_max: float = 5.0


class Restarts:
    """Counts restarts within the period of an intensity. The wait before a restart doubles with each."""

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._recent: deque[float] = deque()

    @property
    def recent(self) -> int:
        """The number of restarts within the period."""
        return len(self._recent)

    def delay(self) -> float | None:
        """Count a restart and return the seconds to wait before it; `None` if there were too many."""
        now = time.monotonic()
        self._recent.append(now)
        while self._recent[0] < now - self._intensity.period:
            self._recent.popleft()
        if len(self._recent) > self._intensity.restarts:
            return None
        return min(self._intensity.backoff * 2.0 ** (len(self._recent) - 1), self._intensity.backoff_max)


class Supervisor:
    """Starts children in order, stops them in reverse, and restarts a child that failed; the others go on.

    supervisor = Supervisor("state-manager")
    await supervisor.start_child(ChildSpec("lease-watch", lambda: LeaseWatch(settings, bus, store, "lw1")))
    await supervisor.wait()  # raises `RoleFailed` when there were too many restarts
    await supervisor.stop()
    """

    def __init__(self, name: str, intensity: Intensity | None = None) -> None:
        self.name = name
        self.intensity = intensity or Intensity()
        self.children: dict[str, Service] = {}
        self._specs: dict[str, ChildSpec[Service]] = {}
        self._restarts = Restarts(self.intensity)
        self._counts: dict[str, int] = {}
        self._failed: set[Service] = set()
        self._restarting: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = False

    async def start_child(self, spec: ChildSpec[S]) -> S:
        """Start a child. An error of its first start is raised here; there is no restart then."""
        actor = spec.factory()
        previous = self.children.get(spec.name)
        if previous is not None:  # its first inspection already shows the failures of its predecessor
            actor.restarts = self._counts.get(spec.name, 0)
            actor.failed, actor.last_error, actor.last_error_at = (
                previous.failed,
                previous.last_error,
                previous.last_error_at,
            )
        self._specs[spec.name] = spec
        self.children[spec.name] = actor
        actor.end_role = self.end
        await actor.start(lambda failed, error: self._child_failed(spec, failed, error))
        return actor

    def _child_failed(self, spec: ChildSpec[Service], actor: Service, error: BaseException) -> None:
        if self._stopping or self.children.get(spec.name) is not actor or actor in self._failed:
            return
        self._failed.add(actor)  # it stays among the children until it is replaced: that keeps the order
        task = asyncio.get_running_loop().create_task(self._replace(spec, actor, error), name=f"restart:{spec.name}")
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)

    async def _replace(self, spec: ChildSpec[Service], failed: Service, error: BaseException) -> None:
        while True:
            await self._stop_child(spec.name, failed)
            self._failed.discard(failed)
            if spec.restart == "temporary":
                self.children.pop(spec.name, None)
                return
            if spec.restart == "transient" and isinstance(error, RoleFailed):
                self._escalate(error)
                return
            delay = self._restarts.delay()
            if delay is None:
                self._escalate(
                    RoleFailed(
                        f"{self.name}: {spec.name} failed {self._restarts.recent} times within "
                        f"{self.intensity.period:g} s, last with {type(error).__name__}: {error}"
                    )
                )
                return
            count = self._counts[spec.name] = self._counts.get(spec.name, 0) + 1
            RESTARTS.labels(failed.kind).inc()
            log.warning("%s: restarting %s in %.1f s (restart %d)", self.name, spec.name, delay, count)
            await asyncio.sleep(delay)
            if self._stopping:
                return
            try:
                await self.start_child(spec)
            except Exception as start_error:
                log.exception("%s: %s did not start", self.name, spec.name)
                failed, error = self.children[spec.name], start_error
                failed.record_failure(error)
                continue
            return

    async def _stop_child(self, name: str, actor: Service) -> None:
        try:
            await actor.stop()
        except Exception:
            log.exception("%s: %s did not stop cleanly", self.name, name)

    def _escalate(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def end(self) -> None:
        """Have `wait()` return, so that the process stops in good order. The children run until `stop()`."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self) -> None:
        """Wait until the supervisor is stopped or asked to end. Raises the error with which it gave up."""
        await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Stop the children in reverse order of their start. Harmless when repeated."""
        if self._stopping:
            return
        self._stopping = True
        for task in list(self._restarting):
            task.cancel()
        for name in reversed(list(self.children)):
            await self._stop_child(name, self.children[name])
        if not self._ended.done():
            self._ended.set_result(None)
        elif not self._ended.cancelled():
            self._ended.exception()  # retrieved, so that asyncio does not complain when nobody waits
