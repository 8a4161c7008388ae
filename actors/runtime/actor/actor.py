"""Actors: an address, a bounded mailbox, handlers declared by message type, a supervisor.

    class Greeter(Actor):
        kind = "greeter"
        receives = (Consumer(GREETINGS, decode_greeting),)  # see `actors.runtime.actor.receiver`

        @on(Greeting)
        async def greet(self, greeting: Greeting) -> str: ...

    greeter = Greeter("greeter.1", bus)
    await greeter.start()
    greeter.tell(Greeting("hello"))  # into its mailbox; `actors.runtime.actor.addresses` reaches other processes
    answer = await greeter.ask(Greeting("hello"))

An idle actor costs no task: its mailbox is drained by a callback that the first message schedules, and by a task
only while a handler awaits. Handlers of one actor never overlap. An actor that `handles_at_once` uses its mailbox only
for what is told while a handler is at work.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

from actors.runtime.actor.mailbox import Mailbox
from actors.runtime.actor.receiver import ActorStopped, Batch, Consumer, Deliveries, Receiver, Requests
from actors.runtime.actor.service import Service
from actors.runtime.broker.connection import Bus, Respond
from actors.runtime.broker.consumers.consumer import Delivery
from protocol.broker.streams import ConsumerSpec

__all__ = ["Actor", "ActorStopped", "on"]

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)


def on(message_type: type) -> Callable[[H], H]:
    """Declare a method as the handler of `message_type`. A second handler for a type fails at import.

    A handler takes the message and, where it wants it, the `Delivery` that has brought the message.
    """

    def declare(handler: H) -> H:
        handler.__dict__["_handles"] = message_type
        return handler

    return declare


class _Handler(NamedTuple):
    method: Handler
    takes_delivery: bool


def _declared_type(method: object) -> type | None:
    declared = getattr(method, "_handles", None)
    return declared if isinstance(declared, type) else None


def _checked(name: str, method: Handler, message_type: type) -> _Handler:
    """The handler, if its signature fits what it is declared for. Raises `TypeError`."""
    parameters = list(inspect.signature(method).parameters)
    if len(parameters) not in (2, 3):
        raise TypeError(f"{name}: a handler takes self, one message, and optionally its delivery")
    hints = get_type_hints(method)
    if (hint := hints.get(parameters[1])) != message_type:
        raise TypeError(f"{name}: declared on {message_type.__name__}, annotated {hint}")
    if len(parameters) == 3 and (hint := hints.get(parameters[2])) != Delivery:
        raise TypeError(f"{name}: the second parameter of a handler is the Delivery, annotated {hint}")
    return _Handler(method, takes_delivery=len(parameters) == 3)


@dataclass(slots=True)
class _Envelope:
    message: Any
    reply: asyncio.Future[Any] | None = None
    delivery: Delivery | None = None
    fails_actor: bool = True
    work: Awaitable[Any] | None = None
    began: float = 0.0


class Actor(Service):
    """Base of all actors. Subclasses declare handlers with `@on(Type)`, and in `receives` what is pulled for them.

    `receives` is on the class, or set in `__init__` where it depends on settings.
    """

    kind: ClassVar[str] = "actor"
    mailbox_capacity: ClassVar[int] = 1024
    handles_at_once: ClassVar[bool] = False
    """Whether a message is handled while it is told, if none is at work or waits: it takes no callback of its own."""
    receives: tuple[Consumer[Any] | Deliveries | Requests, ...] = ()
    _handlers: ClassVar[dict[type, _Handler]] = {}

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
            declared.add(message_type)
            handlers[message_type] = _checked(f"{cls.__name__}.{name}", method, message_type)
        cls._handlers = handlers

    def __init__(self, address: str, bus: Bus | None = None) -> None:
        super().__init__(address, bus)
        self.mailbox: Mailbox[_Envelope] = Mailbox(self.mailbox_capacity)
        self._draining = False
        self._work: asyncio.Task[None] | None = None
        self._in_hand: _Envelope | None = None

    # -- life ----------------------------------------------------------------------------------------

    async def start(self, on_failure: Callable[[Service, BaseException], None] | None = None) -> None:
        """Start the actor: when it is ready and its consumers exist, it is announced and its messages are handled."""
        await super().start(on_failure)
        for consumer in self._consumers():
            assert self._broker is not None, f"{self.kind} receives {consumer.name} and has no bus"
            self.spawn(Receiver(self, self._broker, consumer).run(), f"receive {consumer.name}")
        for declared in self.receives:
            if isinstance(declared, Deliveries):
                self.spawn(declared.run(self), "receive deliveries")

    def _has_started(self) -> None:
        super()._has_started()
        self._schedule()

    async def announce_on_bus(self) -> None:
        """Wait until the consumers exist (the queue server makes them), and announce the actor on the bus."""
        for spec in self._consumer_specs():
            assert self._broker is not None, f"{self.kind} receives {spec.stream}/{spec.name} and has no bus"
            await self._broker.consumer_ready(spec.stream, spec.name)
        await super().announce_on_bus()

    async def stop(self) -> None:
        """Stop: the handler at work is cancelled, pending asks fail with `ActorStopped`. Harmless when repeated.

        What a consumer has brought and no handler has finished is not acknowledged, so it is delivered again.
        """
        await super().stop()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [*super()._tasks(), self._work] if self._work is not None else super()._tasks()

    def _stopped(self, current: asyncio.Task[Any] | None) -> None:
        unanswered = self.mailbox.drain()
        if self._in_hand is not None and self._work is not current:
            unanswered.append(self._in_hand)
            if inspect.iscoroutine(self._in_hand.work) and (self._work is None or self._work.done()):
                self._in_hand.work.close()  # cancelled before its first step, it would complain of never being awaited
        if self._work is not current:
            # A task that was cancelled keeps its traceback, and with it this actor.
            self._work = self._in_hand = None
        for envelope in unanswered:
            if envelope.reply is not None and not envelope.reply.done():
                envelope.reply.set_exception(ActorStopped(f"{self.address} has stopped"))

    def _consumers(self) -> list[Consumer[Any]]:
        return [declared for declared in self.receives if isinstance(declared, Consumer)]

    def _consumer_specs(self) -> list[ConsumerSpec]:
        """Return the specs of all consumers that `receives` names."""
        specs = [consumer.spec for consumer in self._consumers()]
        specs += [spec for declared in self.receives if isinstance(declared, Deliveries) for spec in declared.specs]
        return specs

    def endpoints(self) -> Mapping[str, tuple[str, Respond]]:
        """The requests that `receives` declares."""
        return {
            requests.name: (requests.subject, partial(requests.answer, self))
            for requests in self.receives
            if isinstance(requests, Requests)
        }

    # -- messages ------------------------------------------------------------------------------------

    def tell(self, message: Any) -> None:
        """Put a message into the mailbox. Raises `MailboxFull`, or `ActorStopped`."""
        self._post(_Envelope(message))

    async def put(self, message: Any) -> None:
        """Put a message into the mailbox when there is room: backpressure for the sender, which must not be an actor
        that others wait for."""
        await self.mailbox.wait_for_room()
        self.tell(message)

    async def ask(self, message: Any, timeout: float = 5.0) -> Any:
        """Put a message into the mailbox and wait for the handler's return value.

        Raises what the handler raised, `ActorStopped` when the actor stops first, `TimeoutError` after `timeout` s.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._post(_Envelope(message, reply))
        try:
            async with asyncio.timeout(timeout):
                return await reply
        finally:
            del reply  # else the traceback of its error and this frame keep one another

    async def process(self, message: Any, delivery: Delivery | None = None) -> Any:
        """Have a message handled that a consumer has brought: wait for room, then for the handler.

        Raises what the handler raised, which does not fail the actor (`Receiver` decides), or `ActorStopped`.
        """
        await self.mailbox.wait_for_room()
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._post(_Envelope(message, reply, delivery, fails_actor=False))
        try:
            return await reply
        finally:
            del reply  # as in `ask`

    def _post(self, envelope: _Envelope) -> None:
        if self._stopping:
            raise ActorStopped(f"{self.address} has stopped")
        handler = self._handlers.get(type(envelope.message))
        if handler is None:
            raise TypeError(f"{self.kind} has no handler for {type(envelope.message).__name__}")
        if handler.takes_delivery and envelope.delivery is None:
            raise TypeError(f"{self.kind} handles {type(envelope.message).__name__} only with its delivery")
        if self.handles_at_once and not self._draining and self.started_at is not None and not len(self.mailbox):
            self._draining = True
            if self._handle(envelope):
                self._drain()
        else:
            self.mailbox.put_nowait(envelope)
            self._schedule()

    def _schedule(self) -> None:
        if self.started_at is not None and not self._draining and len(self.mailbox):
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        while len(self.mailbox) and not self._stopping:
            if not self._handle(self.mailbox.get_nowait()):
                return
        self._draining = False

    def _handle(self, envelope: _Envelope) -> bool:
        """Have a message handled. False: its handler waits, and a task goes on with it and then with the mailbox."""
        if self.tail is not None:
            envelope.began = time.perf_counter()
        method, takes_delivery = self._handlers[type(envelope.message)]
        try:
            result = (
                method(self, envelope.message, envelope.delivery) if takes_delivery else method(self, envelope.message)
            )
        except Exception as error:
            self._settle_failure(envelope, error)
            return True
        if result is not None and inspect.isawaitable(result):
            envelope.work, self._in_hand = result, envelope
            self._work = asyncio.get_running_loop().create_task(
                self._finish(envelope, result), name=f"{self.address}:{type(envelope.message).__name__}"
            )
            return False  # _finish goes on: handlers of one actor never overlap
        self._settle(envelope, result)
        return True

    async def _finish(self, envelope: _Envelope, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except asyncio.CancelledError as cancelled:
            if self._stopping:
                raise  # `stop` answers whoever asked
            # Not we were cancelled but something that the handler waited for.
            self._settle_failure(
                envelope, RuntimeError(f"a task that the handler waited for was cancelled: {cancelled}")
            )
        except Exception as error:
            self._settle_failure(envelope, error)
        else:
            self._settle(envelope, value)
        self._work = self._in_hand = None
        self._drain()

    def _settle(self, envelope: _Envelope, value: Any) -> None:
        message = envelope.message
        self.handled += self.count_of(message)
        if self.tail is not None:
            self.tail.handled(message, envelope.began)
        if envelope.reply is not None and not envelope.reply.done():
            envelope.reply.set_result(value)

    def _settle_failure(self, envelope: _Envelope, error: Exception) -> None:
        self.show(envelope.message, error, envelope.began)
        reply, envelope.reply = envelope.reply, None  # the traceback of the error keeps the envelope
        if reply is not None and not reply.done():
            reply.set_exception(error)
        if envelope.fails_actor:
            self._fail(error)

    def show(self, message: object, error: Exception, began: float | None = None) -> None:
        """Show a message that failed to those who tail the actor. `began`: `time.perf_counter()`, by default now."""
        if self.tail is not None:
            self.tail.handled(message, time.perf_counter() if began is None else began, error)

    def count_of(self, message: Any) -> int:
        """Return how many messages `message` counts as, after it was handled: a batch counts as its messages."""
        return message.count if isinstance(message, Batch) else 1

    # -- inspection ----------------------------------------------------------------------------------

    def _details(self) -> dict[str, Any]:
        consumers = [f"{spec.stream}/{spec.name}" for spec in self._consumer_specs()]
        return {"consumers": consumers, **self.details()} if consumers else self.details()
