"""Actors: an address, a bounded mailbox, handlers declared by message type, an inspection.

An idle actor costs no task: its mailbox is drained by a callback that the first message schedules, and by a task
only while a handler awaits. Handlers of one actor never overlap.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, get_type_hints

from actors.runtime.actor.ending import end_tasks
from actors.runtime.actor.mailbox import Mailbox
from actors.runtime.actor.registry import ACTORS
from actors.runtime.actor.tail import TailFeed
from actors.runtime.config.masking import masked
from actors.runtime.telemetry.metrics import FAILURES
from protocol.errors import ErrorCode, ExamwireError, ProtocolError
from protocol.messages.inspection import Inspection
from protocol.messages.operator_requests import Done, Request
from protocol.times import format_time

log = logging.getLogger("examwire.actor")

STOP_SECONDS = 10.0

Handler = Callable[[Any, Any], Any]
H = TypeVar("H", bound=Handler)


class ActorStopped(ExamwireError):
    """The actor is not running (any more); what was asked of it has no answer."""


def on(message_type: type) -> Callable[[H], H]:
    """Declare a method as the handler of `message_type`. A second handler for a type fails at import."""

    def declare(handler: H) -> H:
        handler.__dict__["_handles"] = message_type
        return handler

    return declare


def _declared_type(method: object) -> type | None:
    declared = getattr(method, "_handles", None)
    return declared if isinstance(declared, type) else None


@dataclass(slots=True)
class _Envelope:
    message: Any
    reply: asyncio.Future[Any] | None = None
    work: Awaitable[Any] | None = None
    began: float = 0.0


class Actor:
    """Base of all actors. Subclasses declare handlers with `@on(Type)` and may override the three hooks."""

    kind: ClassVar[str] = "actor"
    mailbox_capacity: ClassVar[int] = 1024
    _handlers: ClassVar[dict[type, Handler]] = {}
    _serials: ClassVar[Iterator[int]] = itertools.count(1)

    tap: TailFeed | None = None
    """While somebody tails this actor (`Presence` sets it); else it costs one look at this attribute a message."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        handlers = dict(cls._handlers)
        declared: set[type] = set()
        for name, method in vars(cls).items():
            message_type = _declared_type(method)
            if message_type is None:
                continue
            if message_type in declared:
                raise TypeError(f"{cls.__name__}.{name}: a second handler for {message_type.__name__}")
            parameters = list(inspect.signature(method).parameters)
            if len(parameters) != 2:
                raise TypeError(f"{cls.__name__}.{name}: a handler takes self and one message")
            hint = get_type_hints(method).get(parameters[1])
            if hint != message_type:
                raise TypeError(f"{cls.__name__}.{name}: declared on {message_type.__name__}, annotated {hint}")
            declared.add(message_type)
            handlers[message_type] = method
        cls._handlers = handlers

    def __init__(self, address: str) -> None:
        self.address = address
        self.serial = next(self._serials)
        """Grows with every actor of this process: the order in which lists of actors are paged through."""
        self.mailbox: Mailbox[_Envelope] = Mailbox(self.mailbox_capacity)
        self.started_at: float | None = None
        self.handled = self.failed = self.restarts = 0
        self.last_error: str | None = None
        self.last_error_at: float | None = None
        self._draining = False
        self._stopping = False
        self._work: asyncio.Task[None] | None = None
        self._in_hand: _Envelope | None = None
        self._loops: set[asyncio.Task[None]] | None = None
        self._on_failure: Callable[[Actor, BaseException], None] | None = None
        self.end_role: Callable[[], None] | None = None
        """Set by the supervisor: have the whole process end in good order."""

    # -- hooks ---------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Acquire what the actor needs; messages are handled after it has returned."""

    async def on_stop(self) -> None:
        """Release it. Called once, also after a failure."""

    def about(self) -> dict[str, str]:
        """What log lines of this actor are about (`actors.runtime.telemetry.logs.FIELDS`)."""
        return {}

    def details(self) -> dict[str, Any]:
        """What an inspection of this kind of actor should say besides the usual (JSON-ready).

        `consumers` names the durable consumers that it reads (`STREAM/consumer`): what waits there is its backlog.
        """
        return {}

    def child(self, address: str) -> Actor | None:
        """The actor at `address` that lives within this one and is on the bus only through it."""
        return None

    async def control(self, request: Request) -> Done:
        """Do what an operator asks (`protocol.messages.operator_requests`). Raises `ProtocolError` for what this
        actor does not do."""
        raise ProtocolError(ErrorCode.NOT_ALLOWED, f"a {self.kind} does not {request.type}", "type")

    # -- life ----------------------------------------------------------------------------------------

    async def start(self, on_failure: Callable[[Actor, BaseException], None] | None = None) -> None:
        """Start the actor. `on_failure` is told once when a handler or a loop of the actor raises."""
        self._on_failure = on_failure
        await self.on_start()
        self.started_at = time.time()
        ACTORS.arrive(self)
        self._schedule()

    async def stop(self) -> None:
        """Stop: the handler at work is cancelled, pending asks fail with `ActorStopped`. Harmless when repeated."""
        if self._stopping:
            return
        self._stopping = True
        ACTORS.leave(self)
        current = asyncio.current_task()
        tasks = [task for task in (self._work, *(self._loops or ())) if task is not None and task is not current]
        if not await end_tasks(tasks, STOP_SECONDS):
            log.error("%s: something that it does goes on after a stop", self.address)
        unanswered = self.mailbox.drain()
        if self._in_hand is not None and self._work is not current:
            unanswered.append(self._in_hand)
            if inspect.iscoroutine(self._in_hand.work) and (self._work is None or self._work.done()):
                self._in_hand.work.close()  # cancelled before its first step, it would complain of never being awaited
        for envelope in unanswered:
            if envelope.reply is not None and not envelope.reply.done():
                envelope.reply.set_exception(ActorStopped(f"{self.address} has stopped"))
        await self.on_stop()

    @property
    def running(self) -> bool:
        return self.started_at is not None and not self._stopping

    def spawn(self, loop: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a loop beside the handlers until the actor stops; when it raises, the actor has failed."""
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
        self.remember(error)
        if self._stopping:
            return
        log.error("%s failed: %s", self.address, self.last_error, exc_info=error, extra=self.about())
        if self._on_failure is not None:
            self._on_failure(self, error)

    def remember(self, error: BaseException) -> None:
        """Count a failure and keep it for inspections."""
        FAILURES.labels(self.kind).inc()
        self.failed += 1
        self.last_error, self.last_error_at = masked(f"{type(error).__name__}: {error}")[:500], time.time()

    # -- messages ------------------------------------------------------------------------------------

    def tell(self, message: Any) -> None:
        """Put a message into the mailbox. Raises `MailboxFull`, or `ActorStopped`."""
        self._post(_Envelope(message))

    async def put(self, message: Any) -> None:
        """`tell`, waiting for room in the mailbox: backpressure for whoever produces messages."""
        await self.mailbox.wait_for_room()
        self.tell(message)

    async def ask(self, message: Any, timeout: float = 5.0) -> Any:
        """Put a message into the mailbox and wait for the handler's return value.

        Raises what the handler raised, `ActorStopped` when the actor stops first, `TimeoutError` after `timeout` s.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._post(_Envelope(message, reply))
        async with asyncio.timeout(timeout):
            return await reply

    def _post(self, envelope: _Envelope) -> None:
        if self._stopping:
            raise ActorStopped(f"{self.address} has stopped")
        if type(envelope.message) not in self._handlers:
            raise TypeError(f"{self.kind} has no handler for {type(envelope.message).__name__}")
        self.mailbox.put_nowait(envelope)
        self._schedule()

    def _schedule(self) -> None:
        if self.started_at is not None and not self._draining and len(self.mailbox):
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        while len(self.mailbox) and not self._stopping:
            envelope = self.mailbox.get_nowait()
            if self.tap is not None:
                envelope.began = time.perf_counter()
            try:
                result = self._handlers[type(envelope.message)](self, envelope.message)
            except Exception as error:
                self._settle_failure(envelope, error)
                continue
            if inspect.isawaitable(result):
                envelope.work, self._in_hand = result, envelope
                self._work = asyncio.get_running_loop().create_task(
                    self._finish(envelope, result), name=f"{self.address}:{type(envelope.message).__name__}"
                )
                return  # _finish comes back here: handlers of one actor never overlap
            self._settle(envelope, result)
        self._draining = False

    async def _finish(self, envelope: _Envelope, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except asyncio.CancelledError as cancelled:
            if self._stopping:
                raise  # `stop` answers whoever asked
            # Not we were cancelled but something that the handler waited for.
            self._settle_failure(envelope, RuntimeError(f"something the handler waited for was cancelled: {cancelled}"))
        except Exception as error:
            self._settle_failure(envelope, error)
        else:
            self._settle(envelope, value)
        self._work = self._in_hand = None
        self._drain()

    def _settle(self, envelope: _Envelope, value: Any) -> None:
        self.handled += 1
        if self.tap is not None:
            self.tap.handled(envelope.message, envelope.began)
        if envelope.reply is not None and not envelope.reply.done():
            envelope.reply.set_result(value)

    def _settle_failure(self, envelope: _Envelope, error: Exception) -> None:
        if self.tap is not None:
            self.tap.handled(envelope.message, envelope.began, error)
        if envelope.reply is not None and not envelope.reply.done():
            envelope.reply.set_exception(error)
        self._fail(error)

    def account_for(self, message: object, began: float, error: BaseException | None = None) -> None:
        """Count, and show to a tail, what was handled without the mailbox. `began` by `time.perf_counter()`."""
        self.handled += 1
        if self.tap is not None:
            self.tap.handled(message, began, error)

    # -- inspection ----------------------------------------------------------------------------------

    def inspection(self) -> Inspection:
        """What this actor is, since when, and how it is doing."""
        mailbox = self.mailbox.statistics()
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
            details=self.details(),
        )
