"""The client of nats-py, extended: it notices a dead connection within seconds and connects again.

This is the one module that uses private attributes of nats-py. `PRIVATE` lists them; nats-py is pinned to a minor
version, and tests/unit/runtime/broker/test_nats_client.py checks that it has every one of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import nats.errors
import nats.js.errors
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from actors.runtime.broker.refusals import Refusals
from actors.runtime.broker.wire import Arrival, FallbackParser, Intake, OnArrival, Publication, command

log = logging.getLogger("examwire.bus")

T = TypeVar("T")

PING_SECONDS = 0.5
"""The interval of pings; there is at most one without an answer."""
DEAD_SECONDS = 3.5
"""A connection is lost when a ping has had no answer for this long, on an event loop that was not late."""
STALL_SECONDS = 0.5
"""A longer answer, or a longer pause of the event loop, is a stall (`stalled_at`)."""
BACKLOG_BYTES = 64 * 1024
"""More data than this within a ping interval, in either direction, delays the answer and proves the connection."""
MOST_UNSENT = 1024 * 1024
"""With more bytes than this unsent, nats-py's way of publishing is used, which waits."""
_HEADER = re.compile(r"^[ \t]*([!-9;-~]+)[ \t]*:[ \t]*([^\r\n]*)", re.MULTILINE)
_NO_STATUS = b"NATS/1.0\r\n"
NOT_READ, NOT_WRITTEN = "nobody reads from the connection any more", "nobody writes to the connection any more"

PRIVATE = {
    "nats.aio.client.Client": (
        # overridden
        *("_process_pong", "_parse_header_lines", "_read_loop", "_flusher", "_ping_interval", "_connect_to_server"),
        *("_process_msg", "_process_headers"),
        # called or read
        *("_process_op_err", "_send_ping", "_send_command", "_flush_pending"),
        *("_reading_task", "_ping_interval_task", "_flusher_task", "_transport", "_server_info"),
        *("_pongs", "_pings_outstanding", "_pending", "_pending_data_size", "_subs", "_sid", "_ps", "_max_payload"),
    ),
    "nats.aio.transport.TcpTransport": ("_io_reader", "_io_writer"),
}
"""Private attributes of nats-py that this module needs, by the class that has them."""


def retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Mark a future's exception as retrieved, for `add_done_callback`: asyncio logs one that nobody has read."""
    if not future.cancelled():
        future.exception()


def _result(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    work.close()
    raise RuntimeError("it waits for something")


class ConnectionBroke(nats.errors.TimeoutError):
    """The connection broke before the answer to a request came."""

    def __str__(self) -> str:
        return "the connection to NATS broke before the answer"


class DirectSubscription:
    """A direct subscription as nats-py knows it: what it reads to subscribe again, and when it closes."""

    __slots__ = ("_subject",)
    _queue = ""
    _max_msgs = 0
    _wait_for_msgs_task = _message_iterator = _pending_next_msgs_calls = None

    def __init__(self, subject: str) -> None:
        self._subject = subject


class NatsClient(Client):
    """A `Client` that survives a late PONG, and leaves a dead or half-open connection for a new one.

    A request fails at once, not after its timeout, when NATS refuses it or the connection breaks. What is published is
    written at once, without nats-py's flusher; what direct subscriptions receive is handed over without a task.
    """

    def __init__(self, refusals: Refusals, dead_seconds: float | None = None) -> None:
        """`dead_seconds`: in place of `DEAD_SECONDS`."""
        super().__init__()
        self._dead_seconds = dead_seconds or DEAD_SECONDS
        self.refusals = refusals
        self.stalled_at = -math.inf
        """When the server or this process last stalled, by `loop.time()`."""
        self._requests: dict[asyncio.Task[Msg], Exception | None] = {}
        self._ps = self._fallback = FallbackParser(self)
        self._wire: asyncio.WriteTransport | None = None
        self._will_write = False
        self.handlers: dict[bytes, OnArrival] = {}
        """The handlers of direct subscriptions, by the id in NATS's messages."""

    # -- requests ------------------------------------------------------------------------------------

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Send a request and wait for the answer. Raises what nats-py raises, `NotPermitted` and `ConnectionBroke`."""
        if self.refusals.lasting is not None:
            raise self.refusals.lasting
        asking = asyncio.ensure_future(super().request(subject, payload, timeout, old_style, headers))
        asking.add_done_callback(retrieve_exception)
        self._requests[asking] = None
        with self.refusals.watch(subject, partial(self._fail_request, asking)):
            try:
                return await asking
            except asyncio.CancelledError:
                if (why := self._requests[asking]) is not None:
                    raise why from None
                raise
            finally:
                del self._requests[asking]
                del asking  # else the traceback of its error and this frame keep one another

    # -- publishing ----------------------------------------------------------------------------------

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish: at once, or by nats-py's flusher where that is not possible. Raises what nats-py raises."""
        if not self.publish_now([(subject, payload, reply, headers)]):
            await super().publish(subject, payload, reply, dict(headers) if headers else None)

    def publish_now(self, messages: Sequence[Publication]) -> bool:
        """Write plain messages to the connection in one piece. Return False, without an effect, when `publish` has to.

        It has to without a connection, when much is unsent, and for what nats-py would refuse or change.
        """
        wire = self._wire
        if (
            wire is None
            or not self.is_connected
            or wire.is_closing()
            or wire.get_write_buffer_size() > MOST_UNSENT
            or None in (commands := [command(*message, self._max_payload) for message in messages])
        ):
            return False
        self._write(wire, b"".join(cast("list[bytes]", commands)))
        self.stats["out_msgs"] += len(commands)
        return True

    def _write(self, wire: asyncio.WriteTransport, commands: bytes) -> None:
        if self._pending:
            commands = b"".join([*self._pending, commands])
            self._pending, self._pending_data_size = [], 0
        wire.write(commands)

    def _write_soon(self, commands: bytes) -> None:
        """Write commands together with all others of this round of the event loop; without a connection, to the next.

        uvloop makes a system call of each write.
        """
        self._pending.append(commands)
        self._pending_data_size += len(commands)
        if not self._will_write:
            self._will_write = True
            asyncio.get_running_loop().call_soon(self._write_pending)

    def _write_pending(self) -> None:
        self._will_write = False
        if self._pending and self._wire is not None and self.is_connected and not self._wire.is_closing():
            self._write(self._wire, b"")

    def respond(self, reply: str, payload: bytes) -> None:
        """Publish the answer to a request without waiting."""
        if (publication := command(reply, payload, "", None, self._max_payload)) is not None:
            self._write_soon(publication)
            self.stats["out_msgs"] += 1

    async def publish_copies(self, subject: str, headers: Sequence[bytes]) -> None:
        """Publish a message without a payload for each of these header blocks, in one write.

        One by one they cost this process a hundred times as much. Raises what `publish` raises.
        """
        if not self.is_connected:
            raise nats.errors.ConnectionClosedError
        target = subject.encode()
        blocks = [b"NATS/1.0\r\n%b\r\n" % block for block in headers]
        commands = [b"HPUB %b %d %d\r\n%b\r\n" % (target, len(block), len(block), block) for block in blocks]
        await self._send_command(b"".join(commands))
        await self._flush_pending()

    def _fail_request(self, asking: asyncio.Task[Msg], why: Exception) -> None:
        self._requests[asking] = why
        asking.cancel()

    def fail_requests(self) -> None:
        """Fail every request that waits for an answer, because the connection broke."""
        for asking in list(self._requests):
            self._fail_request(asking, ConnectionBroke())

    async def api_request(self, subject: str, timeout: float, body: bytes = b"") -> dict[str, Any]:
        """Ask the JetStream API and return the answer as the server wrote it; nats-py's types drop some fields.

        `subject`: `$JS.API.…`. `timeout`: seconds. Raises what nats-py raises for its own requests: `APIError` (and
        `ServiceUnavailableError` when nobody answers for JetStream), `nats.errors.TimeoutError`; and `NotPermitted`.
        """
        try:
            answer: dict[str, Any] = json.loads((await self.request(subject, body, timeout)).data)
        except nats.errors.NoRespondersError as error:
            raise nats.js.errors.ServiceUnavailableError from error
        if "error" in answer:
            raise nats.js.errors.APIError.from_error(answer["error"])
        return answer

    # -- direct subscriptions ----------------------------------------------------------------------

    def subscribe_direct(self, subject: str, handler: OnArrival) -> int:
        """Have `handler` called with each message on a subject as it is received; return the id of the subscription.

        `unsubscribe_direct` ends it. There may be thousands: a subscription of nats-py takes 5 KiB. It survives a
        reconnect. Raises `ConnectionClosedError`.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        self._sid += 1
        sid = self._sid
        self._subs[sid] = cast(Subscription, DirectSubscription(subject))
        self.handlers[b"%d" % sid] = handler
        self._write_soon(b"SUB %b  %d\r\n" % (subject.encode(), sid))
        return int(sid)

    def unsubscribe_direct(self, sid: int) -> None:
        """End a direct subscription. Harmless when repeated, or without a connection."""
        self.handlers.pop(b"%d" % sid, None)
        if self._subs.pop(sid, None) is not None and not self.is_closed:
            self._write_soon(b"UNSUB %d\r\n" % sid)

    def hand_over(self, handler: OnArrival, subject: bytes, reply: bytes, data: bytes, block: bytes) -> None:
        """Call the handler of a direct subscription. `block`: the headers as they came."""
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        headers = None
        try:
            if block.startswith(_NO_STATUS):
                headers = self._parse_header_lines(block[len(_NO_STATUS) :]) or None
            elif block:
                headers = _result(self._process_headers(block))
            handler(Arrival(subject.decode(), reply.decode(), data, headers))
        except Exception:  # the next message is somebody else's
            log.exception("a message on %r was not received", subject)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        handler = self.handlers.get(b"%d" % sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            self.hand_over(handler, subject, reply, data, headers or b"")

    # -- the life of a connection --------------------------------------------------------------------

    @property
    def server_info(self) -> dict[str, Any]:
        """The server's INFO."""
        return dict(self._server_info)

    def abort(self) -> None:
        """Break the connection at once, without sending what is buffered."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def abandon(self) -> None:
        """Close the client without sending what is buffered."""
        self.abort()
        self._pending, self._pending_data_size = [], 0
        await self.close()

    async def _connect_to_server(self, server: Srv) -> None:
        task = asyncio.current_task()
        if self.is_closed or (task is not None and task.cancelling()):
            # `wait_for` may have swallowed the cancellation of the try before this one (decision 49), and nats-py would
            # go on trying for ever.
            raise asyncio.CancelledError
        # nats-py does not end the tasks of a connection whose first flush failed; they would read the next one too.
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        self.abort()
        await super()._connect_to_server(server)

    async def _process_pong(self) -> None:
        # `rtt` or `flush` may have been cancelled; nats-py would set a result all the same and end its read loop.
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        # nats-py looks at each character of each name: that is a third of the cost of reading a stream.
        return {name: value.rstrip() for name, value in _HEADER.findall(raw.decode("utf-8", "replace"))}

    async def _read_loop(self) -> None:
        reader, writer = getattr(self._transport, "_io_reader", None), getattr(self._transport, "_io_writer", None)
        self._wire = writer.transport if writer is not None else None
        self._fallback.intake = Intake(self, reader) if reader is not None else None
        await super()._read_loop()
        # nats-py ends this loop after an unexpected error and does not report it.
        if self._reading_task is asyncio.current_task():
            await self._lost(NOT_READ)

    async def _flusher(self) -> None:
        await super()._flusher()
        if self._flusher_task is asyncio.current_task():  # as above
            await self._lost(NOT_WRITTEN)

    async def _lost(self, why: str) -> None:
        """Have nats-py connect again, unless it already does or the client is closed."""
        if self.is_connected or self.is_connecting:
            log.warning("the connection to NATS is lost: %s", why)
            self.abort()  # closing would wait until the dead peer has taken everything
            await self._process_op_err(nats.errors.StaleConnectionError())

    async def _ping_interval(self) -> None:
        """Ping the server instead of nats-py's task; notice stalls, a dead peer and tasks of nats-py that ended."""
        loop = asyncio.get_running_loop()
        began = asked_at = loop.time()
        patience = self._dead_seconds
        pong: asyncio.Future[bool] | None = None
        read, unsent = self.stats["in_bytes"], 0
        while True:
            await asyncio.sleep(PING_SECONDS)
            now = loop.time()
            elapsed, began = now - began, now
            if self._reading_task is None or self._reading_task.done():
                return await self._lost(NOT_READ)
            if self._flusher_task is None or self._flusher_task.done():
                return await self._lost(NOT_WRITTEN)
            if elapsed > PING_SECONDS + STALL_SECONDS:
                self.stalled_at = now  # this process stalled
            if pong is None or pong.done():
                pong = loop.create_future()
                pong.add_done_callback(lambda _, sent_at=now: self._answered(sent_at))  # type: ignore[misc]
                asked_at, patience = now, self._dead_seconds
                try:
                    await self._send_ping(pong)
                except (OSError, RuntimeError) as error:  # uvloop's word for a connection that has just broken
                    return await self._lost(str(error))
            else:
                if now - asked_at > STALL_SECONDS:
                    self.stalled_at = now
                # What arrived while this process stalled is in the socket's buffer, and is read before the next round.
                patience -= min(elapsed, 2 * PING_SECONDS)
                unsent_before = self._unsent()
                if self.stats["in_bytes"] - read > BACKLOG_BYTES or unsent - unsent_before > BACKLOG_BYTES:
                    patience = self._dead_seconds
                elif patience <= 0:
                    return await self._lost(f"it has not answered for {now - asked_at:.1f} s")
            read, unsent = self.stats["in_bytes"], self._unsent()

    def _answered(self, asked_at: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - asked_at > STALL_SECONDS:
            self.stalled_at = now

    def _unsent(self) -> int:
        writer = getattr(self._transport, "_io_writer", None)
        return int(writer.transport.get_write_buffer_size()) if writer is not None else 0
