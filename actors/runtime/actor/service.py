"""Services: what the supervisor starts and stops, operators list and inspect, and NATS announces.

A service has an address, a life (`start`, `stop`), loops beside it (`spawn`), counts and an inspection. It has no
mailbox: that is what an `Actor` adds. The web server is a service and no actor, because its work comes over HTTP,
many requests at once, and not as messages one after the other.

    class WebServer(Service):
        kind = "web-server"

        def __init__(self, settings: Settings, bus: Bus) -> None:
            super().__init__("web-server.1", bus)  # with a bus it is announced while it runs

        async def on_start(self) -> None:
            self.spawn(self._tidy(), "tidy")
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, ClassVar

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.actor.mailbox import Mailbox, MailboxStatistics
from actors.runtime.actor.micro_service import MicroService
from actors.runtime.actor.registry import ACTORS
from actors.runtime.actor.tail import TailFeed
from actors.runtime.broker.connection import Bus, Respond
from actors.runtime.config.masking import masked
from actors.runtime.telemetry.metrics import FAILURES
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages.inspection import Inspection
from protocol.messages.operator_requests import Done, Request
from protocol.times import format_time

log = logging.getLogger("examwire.actor")

STOP_SECONDS = 10.0

NO_MAILBOX = MailboxStatistics(capacity=1, depth=0, peak=0, received=0, refused=0)
"""Inspection of the mailbox of a service that has none. The capacity is 1 because `examwire top` divides by it."""


class Service:
    """Base of everything that is supervised. Subclasses may override the hooks.

    With a `bus` it is announced as a NATS micro service after `on_start`, and withdrawn after `on_stop`.
    """

    kind: ClassVar[str] = "service"
    _serials: ClassVar[Iterator[int]] = itertools.count(1)

    mailbox: Mailbox[Any] | None = None
    """Of an `Actor`."""

    tail: TailFeed | None = None
    """Set while an operator tails this service. While nobody does, a message costs one look at this attribute."""

    # What most services never set is on the class. Thousands are sessions, and small as long as all of them have the
    # same attributes, set in `__init__`.
    failed = restarts = 0
    last_error: str | None = None
    last_error_at: float | None = None
    end_role: Callable[[], None] | None = None
    """Set by the supervisor: have the whole process end in good order."""
    _broker: Bus | None = None
    _announcement: MicroService | None = None
    _stopping = False
    _loops: set[asyncio.Task[None]] | None = None

    def __init__(self, address: str, bus: Bus | None = None) -> None:
        self.address = address
        self.serial = next(self._serials)
        """Grows with every service of this process: the order in which lists of them are paged through."""
        self.started_at: float | None = None
        self.handled = 0
        self._on_failure: Callable[[Service, BaseException], None] | None = None
        if bus is not None:
            self._broker, self._announcement = bus, MicroService(bus, self)

    # -- hooks ---------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Acquire what the service needs. It is announced, and messages are handled, after this has returned."""

    async def on_stop(self) -> None:
        """Release it. Called once, also after a failure."""

    def about(self) -> dict[str, str]:
        """Return the fields that log lines of this service carry (`actors.runtime.telemetry.logs.FIELDS`)."""
        return {}

    def details(self) -> dict[str, Any]:
        """Return what an inspection of this kind says besides the usual fields (JSON-ready).

        `consumers` names the durable consumers that it reads (`STREAM/consumer`): what waits there is its backlog.
        """
        return {}

    def endpoints(self) -> Mapping[str, tuple[str, Respond]]:
        """Return the requests that it answers besides the usual ones: a name, the subject and what answers."""
        return {}

    async def inspect(self, request: bytes) -> bytes:
        """Answer an inspection: the fields of `Inspection` as JSON."""
        return self.inspection().model_dump_json(by_alias=True).encode()

    def child(self, address: str) -> Service | None:
        """Return the actor at `address` that lives within this one and is on the bus only through it."""
        return None

    async def control(self, request: Request) -> Done:
        """Do what an operator asks (`protocol.messages.operator_requests`). Raises `ProtocolError` when this kind of
        service does not do it."""
        raise ProtocolError(ErrorCode.NOT_ALLOWED, f"a {self.kind} does not {request.type}", "type")

    # -- life ----------------------------------------------------------------------------------------

    async def start(self, on_failure: Callable[[Service, BaseException], None] | None = None) -> None:
        """Start the service. `on_failure` is called once, when a handler or a loop of it raises."""
        self._on_failure = on_failure
        await self.on_start()
        await self.announce_on_bus()
        self._has_started()

    def start_at_once(self, on_failure: Callable[[Service, BaseException], None] | None = None) -> None:
        """Start one of thousands without waiting: it has no `on_start`, and is on the bus only through another one."""
        self._on_failure = on_failure
        self._has_started()

    def _has_started(self) -> None:
        self.started_at = time.time()
        ACTORS.add(self)

    async def announce_on_bus(self) -> None:
        """Announce it on the bus. `start` does so; `on_start` calls it where that has to happen earlier."""
        if self._announcement is not None:
            await self._announcement.announce()

    async def stop(self) -> None:
        """Stop: loops are cancelled. Harmless when repeated."""
        if self._stopping:
            return
        self._stopping = True
        ACTORS.remove(self)
        current = asyncio.current_task()
        if not await cancel_tasks([task for task in self._tasks() if task is not current], STOP_SECONDS):
            log.error("%s: a task still runs after the stop", self.address)
        self._stopped(current)
        try:
            await self.on_stop()
        finally:
            if self._announcement is not None:
                await self._announcement.withdraw()

    def stop_at_once(self) -> bool:
        """Stop without waiting, one that was started so. False, without an effect: `stop` has to, as a task runs."""
        if self._tasks():
            return False
        if not self._stopping:
            self._stopping = True
            ACTORS.remove(self)
            self._stopped(None)
        return True

    def _tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks that `stop` cancels."""
        return list(self._loops or ())

    def _stopped(self, current: asyncio.Task[Any] | None) -> None:
        """Clean up after the tasks have ended, before `on_stop`. `current`: the task that called `stop`."""

    @property
    def running(self) -> bool:
        return self.started_at is not None and not self._stopping

    def spawn(self, loop: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a loop until the service stops; when it raises, the service has failed."""
        if self._loops is None:
            self._loops = set()
        task = asyncio.get_running_loop().create_task(loop, name=f"{self.address}:{name}")
        self._loops.add(task)
        task.add_done_callback(self._loop_ended)
        return task

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        assert self._loops is not None
        self._loops.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.record_failure(error)
        if self._stopping:
            return
        log.error("%s failed: %s", self.address, self.last_error, exc_info=error, extra=self.about())
        if self._on_failure is not None:
            self._on_failure(self, error)

    # -- counts and inspection -----------------------------------------------------------------------

    def record_failure(self, error: BaseException) -> None:
        """Count a failure and keep its text for inspections."""
        FAILURES.labels(self.kind).inc()
        self.failed += 1
        self.last_error, self.last_error_at = masked(f"{type(error).__name__}: {error}")[:500], time.time()

    def count_handled(self, message: object, began: float) -> None:
        """Count one message that did not go through a mailbox, and show it to tails. `began`: `time.perf_counter()`."""
        self.handled += 1
        if self.tail is not None:
            self.tail.handled(message, began)

    def _details(self) -> dict[str, Any]:
        return self.details()

    def inspection(self) -> Inspection:
        """Return what this service is, since when, and how it is doing."""
        mailbox = self.mailbox.statistics() if self.mailbox is not None else NO_MAILBOX
        return Inspection(
            address=self.address,
            kind=self.kind,
            since=format_time(self.started_at or time.time()),
            state="stopping" if self._stopping else "running" if self.started_at else "starting",
            mailbox_depth=mailbox.depth,
            mailbox_capacity=mailbox.capacity,
            mailbox_peak=mailbox.peak,
            mailbox_refused=mailbox.refused,
            handled=self.handled,
            failed=self.failed,
            restarts=self.restarts,
            last_error=self.last_error,
            last_error_at=format_time(self.last_error_at) if self.last_error_at is not None else None,
            details=self._details(),
        )
