"""The typed Python client of `examwire.v1`: the common base of the clients of examinees and proctors.

    client = ExamineeClient("ws://127.0.0.1:8001", token)
    welcome = await client.connect()
    async for frame in client.frames():  # after a loss it connects again by itself, and yields a new Welcome
        ...

A connection has no task of its own, so thousands fit into one process: the caller of `receive` receives its frames,
heartbeats are a timer, and websockets answers the server's pings. `protocol.client.reconnect` decides when and where
to connect again; this module does the I/O.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Self, TypedDict, Unpack

from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from actors.client.connection import ConnectionLost, ConnectRefused, TimedConnection, decode, end_of, open_session
from protocol.client.exam_clock import ExamMoment, ServerClock, exam_at
from protocol.client.reconnect import (
    SILENT_INTERVALS,
    ConnectionFailure,
    GiveUp,
    Lost,
    ReconnectState,
    Unreachable,
    Wait,
    after_migrate,
    after_welcome,
    connect_url,
    next_step,
)
from protocol.errors import ExamwireError
from protocol.messages.base import Message
from protocol.messages.frames import (
    Heartbeat,
    Hello,
    HelloClientInfo,
    Migrate,
    ViewStatus,
    Welcome,
    encode_text,
)
from protocol.messages.proctor_events import PlanStateEvent

__all__ = [
    "Change",
    "Client",
    "ClientClosed",
    "ClientOptions",
    "ConnectRefused",
    "ConnectionLost",
    "GaveUp",
]

log = logging.getLogger("examwire.client")

Change = Welcome | ConnectionFailure | Wait | GiveUp
"""The argument of `on_change`: a welcome, a loss or failed attempt, the wait before the next attempt, or the end."""


class GaveUp(ExamwireError):
    """The client does not connect again by itself. `step` says why, `last` is the last loss or failed attempt."""

    def __init__(self, step: GiveUp, last: ConnectionFailure) -> None:
        number = step.code if step.code is not None else step.status
        super().__init__(f"gave up: {step.reason}" + (f" {number}" if number is not None else ""))
        self.step, self.last = step, last


class ClientClosed(ExamwireError):
    """There is no connection: `connect()` was not called yet, or `close()` was called."""


class ClientOptions(TypedDict, total=False):
    """The options of a client; all have defaults.

    `client_id` (an id) names the client over all its connections; by default it is random. `connection_no` is the
    number of the next connection (default 1) and grows with each: pass on both to another process that takes over.
    `reconnect=False`: one connection only. `heartbeats=False`: send none; the server's pings show that the client is
    alive. `browser_info` is shown to proctors. `on_change` is called with each `Change`. `on_end` is called with the
    close code (`None`: without one) as soon as a connection has ended, also while nobody receives. `rng` draws the
    jitter.
    """

    client_id: str | None
    connection_no: int
    reconnect: bool
    heartbeats: bool
    browser_info: str | None
    on_change: Callable[[Change], None] | None
    on_end: Callable[[int | None], None] | None
    rng: random.Random | None


class Client:
    """A connection to a socket server that is opened again after a loss. Not thread-safe; one receiver at a time.

    async with ExamineeClient("ws://127.0.0.1:8001", token) as client:
        frame = await client.receive()
        await client.send(EnterMobileSync())

    `url` is the ws:// address of a socket server, with or without `/v1/connect`; see `ClientOptions` for the others.
    `view_status` is the last one that the server sent over the open connection: whether its events are current.
    `plan_state` is the newest that came: whether the exam runs, and its times.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_closing",
        "_failure",
        "_heartbeat",
        "_info",
        "_pending",
        "_reconnect_state",
        "_rng",
        "_silent",
        "_timer",
        "_token",
        "_wait",
        "_welcomed_at",
        "_ws",
        "client_id",
        "connection_no",
        "heartbeats",
        "malformed",
        "on_change",
        "on_end",
        "plan_state",
        "reconnect",
        "view_status",
        "welcome",
    )

    def __init__(self, url: str, token: str, **options: Unpack[ClientOptions]) -> None:
        self.client_id = options.get("client_id") or secrets.token_hex(8)
        self.connection_no = options.get("connection_no", 1)
        self.reconnect = options.get("reconnect", True)
        self.heartbeats = options.get("heartbeats", True)
        self.on_change = options.get("on_change")
        self.on_end = options.get("on_end")
        self.welcome: Welcome | None = None
        self.view_status: ViewStatus | None = None
        self.plan_state: PlanStateEvent | None = None
        self._clock = ServerClock()
        self.malformed = 0
        self._token = token
        browser_info = options.get("browser_info")
        self._info = HelloClientInfo(browser_info=browser_info) if browser_info else None
        self._rng = options.get("rng")
        self._reconnect_state = ReconnectState(connect_url(url))
        self._ws: TimedConnection | None = None
        self._pending: list[Message] = []  # in reverse: the next message is the last
        self._failure: ConnectionFailure | None = None
        self._wait: tuple[Wait, float] | None = None
        self._closed = True
        self._closing: asyncio.Event | None = None  # wakes the wait before the next attempt
        self._silent = False
        self._welcomed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # -- connecting ----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the connection is open, as far as this side knows."""
        return self._ws is not None and self._ws.state is State.OPEN and not self._ws.transport.is_closing()

    @property
    def current(self) -> bool:
        """Whether the connection is open, and what comes over it is current: recorded, and shown to proctors."""
        return self.connected and (self.view_status is None or self.view_status.current)

    @property
    def url(self) -> str:
        """The address of the last server that sent a welcome; before that, of the first one to try."""
        return self._reconnect_state.url

    @property
    def server_time(self) -> float | None:
        """The seconds since the epoch by the server's clock; `None` before the first welcome."""
        return self._clock.now()

    @property
    def exam(self) -> ExamMoment:
        """Where the exam stands now, by the server's clock: its phase, and the seconds until the next one."""
        return exam_at(self.plan_state, self._clock.now())

    async def connect(self, url: str | None = None) -> Welcome:
        """Connect to `url` (default: the last server), in one attempt. Raises `ConnectRefused`.

        After a failure, `frames()` tries again by the rules. After `close()`, this opens the client again.
        """
        if self.connected:
            raise ExamwireError(f"{self.client_id} is connected already: close() first")
        self._closed, self._wait, self._pending = False, None, []
        try:
            return await self._open(connect_url(url) if url is not None else self._reconnect_state.url)
        except ConnectRefused:
            self._closed = not self.reconnect
            raise

    async def _open(self, url: str) -> Welcome:
        hello = Hello(
            token=self._token, client_id=self.client_id, connection_no=self.connection_no, client_info=self._info
        )
        self.connection_no += 1
        self._drop()
        try:
            opened = await open_session(url, hello)
        except ConnectRefused as refused:
            self._failure = refused.failure
            if refused.endpoints is not None:
                self._reconnect_state = after_migrate(self._reconnect_state, refused.endpoints)
            self._report(self._failure)
            raise
        ws, welcome = opened.connection, opened.welcome
        if self._closed:
            ws.transport.abort()
            raise ClientClosed("the client was closed while it connected")
        self._ws, self.welcome, self._failure, self._silent = ws, welcome, None, False
        self.view_status = None
        ws.on_end = self.on_end
        self._pending = opened.rest[::-1]
        self._reconnect_state = after_welcome(url, welcome.endpoints, welcome.reconnect)
        loop = asyncio.get_running_loop()
        self._welcomed_at = loop.time()
        self._clock.restart(welcome.server_time)
        if self.heartbeats:
            self._timer = loop.call_later(welcome.heartbeat_seconds, self._send_heartbeat)
        self._report(welcome)
        with contextlib.suppress(ConnectionLost):  # `receive` sees it, too
            await self._welcomed()
        return welcome

    async def _welcomed(self) -> None:
        """Send again what was not answered on the previous connection."""

    # -- receiving -----------------------------------------------------------------------------------

    async def frames(self) -> AsyncIterator[Message]:
        """Yield the server's messages until `close()`, without the echoes of heartbeats.

        With `reconnect`, a loss is followed by the `Welcome` of the next connection, or raises `GaveUp`. Without it, a
        loss raises `ConnectionLost`. Nothing is received between two iterations.
        """
        while True:
            try:
                message = await self.receive()
            except ClientClosed:
                return
            yield message

    async def receive(self) -> Message:
        """Return the next message. Raises what `frames()` raises, and `ClientClosed`. Safe to cancel."""
        while True:
            while self._pending:
                message = self._pending.pop()
                if type(message) is Migrate:
                    self._reconnect_state = after_migrate(self._reconnect_state, message.endpoints)
                elif type(message) is ViewStatus:
                    self.view_status = message
                elif type(message) is PlanStateEvent:
                    self._set_plan_state(message)
                self._update(message)
                if type(message) is not Heartbeat:
                    return message
            ws = self._ws
            if self._closed:
                raise ClientClosed("the client is closed")
            if ws is None:
                return await self._connect_again()
            try:
                payload = await ws.recv(decode=False)
            except ConnectionClosed as closed:
                self._lose(ws, *end_of(closed))
            else:
                messages, malformed = decode(payload)
                self._pending = messages[::-1]
                self.malformed += malformed

    def _set_plan_state(self, message: PlanStateEvent) -> None:
        self._clock.correct(message.server_time)
        if self.plan_state is None or message.version >= self.plan_state.version:
            self.plan_state = message

    def _update(self, message: Message) -> None:
        """Update what a subclass keeps, before the message is returned."""

    def _lose(self, ws: TimedConnection, code: int | None, reason: str) -> None:
        if self._closed or self._ws is not ws:
            return  # closed by us: `receive` raises `ClientClosed`
        self._drop()
        self._failure = Lost(code, asyncio.get_running_loop().time() - self._welcomed_at)
        self._report(self._failure)
        if not self.reconnect:
            self._closed = True
            raise ConnectionLost(code, reason)

    async def _connect_again(self) -> Welcome:
        loop = asyncio.get_running_loop()
        while True:
            if self._wait is None:
                failure = self._failure or Unreachable()
                draw = (self._rng or random).uniform(-1.0, 1.0)
                self._reconnect_state, step = next_step(self._reconnect_state, failure, draw)
                self._report(step)
                if isinstance(step, GiveUp):
                    self._closed = True
                    raise GaveUp(step, failure)
                self._wait = (step, loop.time() + step.seconds)
            step, due = self._wait  # kept when this is cancelled: the next `receive` waits for the rest
            self._closing = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._closing.wait()
            if self._closed:
                raise ClientClosed("the client was closed while it waited")
            self._wait = None
            try:
                return await self._open(step.url)
            except ConnectRefused as refused:
                log.debug("%s: %s", self.client_id, refused)

    # -- sending -------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send one frame. Raises `ConnectionLost` when there is no connection."""
        ws = self._ws
        if ws is None:
            raise ConnectionLost(None, "")
        try:
            await ws.send(encode_text(message))
        except ConnectionClosed as closed:
            raise ConnectionLost(*end_of(closed)) from closed

    def _send_heartbeat(self) -> None:
        ws, welcome = self._ws, self.welcome
        if ws is None or welcome is None or ws.state is not State.OPEN:
            return
        loop = asyncio.get_running_loop()
        late = loop.time() - self._timer.when() if self._timer is not None else 0.0
        self._timer = loop.call_later(welcome.heartbeat_seconds, self._send_heartbeat)
        if not ws.transport.is_reading() or late > welcome.heartbeat_seconds:
            # Nobody receives, or this process was blocked: the server may be alive although nothing was heard.
            ws.heard_at = loop.time()
        elif loop.time() - ws.heard_at > SILENT_INTERVALS * welcome.heartbeat_seconds:
            log.info("%s: no frame from %s in time; closing the connection", self.client_id, self.url)
            ws.transport.abort()
            return
        if not self._silent and (self._heartbeat is None or self._heartbeat.done()):
            self._heartbeat = loop.create_task(ws.send_heartbeat())

    # -- ending --------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Drop the TCP connection without a close frame, as a failing network does. It counts as a loss."""
        if self._ws is not None:
            self._ws.transport.abort()

    def fall_silent(self) -> None:
        """Stop reading, sending and answering pings, as a machine that hangs: to test half-open connections."""
        if self._ws is not None:
            self._silent = True
            self._ws.transport.pause_reading()

    def wake(self) -> None:
        """Undo `fall_silent`. If the server has closed the connection meanwhile, that is noticed now."""
        if self._silent and self._ws is not None:
            self._silent = False
            self._ws.transport.resume_reading()

    async def close(self) -> None:
        """Close with 1000 and do not connect again. Harmless when repeated; `connect()` opens the client again."""
        ws, self._closed = self._ws, True
        if self._closing is not None:
            self._closing.set()
        self._drop()
        self._pending.clear()
        if ws is not None:
            if self._silent:
                ws.transport.abort()
            await ws.close()

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ws = None

    def _report(self, change: Change) -> None:
        if self.on_change is not None:
            self.on_change(change)
