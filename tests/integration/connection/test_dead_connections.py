"""What is left of a connection when it has ended: nothing, whatever ended it, and without a garbage collection.

A role rarely makes a full collection (`actors.runtime.role.role`), so a circle of references would stay for hours.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
from uvicorn.protocols.http.h11_impl import RequestResponseCycle
from websockets.server import ServerProtocol

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.http.connections import HttpProtocol
from actors.sessions.frames.library import LibraryConnection
from actors.sessions.frames.reader import FrameReader
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.request_head import HandshakeProtocol
from actors.web_server.server import WebServer
from protocol.close_codes import CloseCode
from protocol.errors import NoResponders
from protocol.messages.frames import EnterMobileSync, Heartbeat
from protocol.messages.session_messages import SessionClose
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually
from tests.support.certificates import issue

TIMES = 3
KINDS = (
    WebSocketConnection,
    LibraryConnection,
    ServerProtocol,
    FrameReader,
    HandshakeProtocol,
    SocketSession,
    HttpProtocol,
    RequestResponseCycle,
)


class Ends:
    """The ways in which a connection ends, each a method; `name` is an id that nobody had before."""

    def __init__(self, system: System, trust: ssl.SSLContext | None) -> None:
        self._system = system
        self._server = system.server("SOCK001")
        self._tls: dict[str, Any] = {"ssl": trust} if trust is not None else {}

    async def _raw(self) -> RawClient:
        return await self._system.raw(**self._tls)

    async def _client(self, role: str, name: str, client_id: str | None = None, number: int = 1) -> RawClient:
        client = await self._raw()
        token = self._system.token("proctor" if role == "proctor" else "examinee", name)
        await client.hello(token, client_id or name, number)
        await client.expect("plan_snapshot" if role == "proctor" else "session_state")
        return client

    def _session(self, name: str) -> SocketSession:
        session = self._server.sessions.examinee("P001", name)
        assert session is not None
        return session

    async def closed_by_the_client(self, name: str) -> None:
        await (await self._client("examinee", name)).close()

    async def broken(self, name: str) -> None:
        client = await self._client("examinee", name)
        client.abort()
        await client.closed()

    async def broken_before_hello(self, name: str) -> None:
        client = await self._raw()
        client.abort()
        await client.closed()

    async def refused_with_a_bad_token(self, name: str) -> None:
        client = await self._raw()
        await client.say("hello", token=name, clientId="c", connectionNo=1)
        assert await client.closed() == CloseCode.INVALID_TOKEN

    async def replaced(self, name: str) -> None:
        first = await self._client("examinee", name)
        second = await self._client("examinee", name, f"other-{name}", 2)
        assert await first.closed() == CloseCode.REPLACED
        await second.close()

    async def closed_for_a_binary_frame(self, name: str) -> None:
        client = await self._client("examinee", name)
        await client.websocket.send(b"123")
        await client.closed()

    async def closed_for_bytes_that_are_no_frame(self, name: str) -> None:
        client = await self._client("examinee", name)
        client.websocket.transport.write(b"\xff" * 4)
        await client.closed()

    async def dropped_as_slow(self, name: str) -> None:
        client = await self._client("examinee", name)
        session = self._session(name)
        session.deliver(EnterMobileSync())  # its handler awaits: what comes then waits in the mailbox
        for _ in range(1200):
            session.deliver(Heartbeat())
        await client.closed()

    async def closed_by_a_message_to_the_session(self, name: str) -> None:
        client = await self._client("examinee", name)
        session = self._session(name)
        session.tell(SessionClose(socket_id=session.socket_id, code=CloseCode.KICKED))
        assert await client.closed() == CloseCode.KICKED

    async def dropped_with_a_session_that_failed(self, name: str) -> None:
        client = await self._client("examinee", name)
        session = self._session(name)
        session.tell(SessionClose(socket_id=session.socket_id, code=4999))  # there is no such code
        await client.closed()

    async def closed_as_a_proctor(self, name: str) -> None:
        await (await self._client("proctor", name)).close()

    async def broken_as_a_proctor(self, name: str) -> None:
        client = await self._client("proctor", name)
        await client.say("notify_plan", text="Good luck.", requestId=f"r-{name}")
        await client.expect("accepted")
        client.abort()
        await client.closed()

    async def _http(self, port: int | None, request: bytes, *, answers: bool = True) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await (reader.readuntil(b"\r\n\r\n") if answers else writer.drain())
        writer.transport.abort()

    async def refused_before_it_was_a_websocket(self, name: str) -> None:
        port = urlsplit(self._server.url).port
        await self._http(port, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        await self._http(port, b"GET /v1/conn", answers=False)

    async def broken_http(self, name: str) -> None:
        web = self._system.actors["web-server"]
        assert isinstance(web, WebServer)
        port = urlsplit(web.url).port
        await self._http(port, b"GET /v1/endpoints HTTP/1.1\r\nHost: x\r\n\r\n")
        await self._http(port, b"GET /v1/endpo", answers=False)
        token = self._system.token("examinee", name)
        upload = (
            f"PUT /v1/plans/P001/examinees/{name}/mobile-sync?deviceId=M1 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: image/jpeg\r\nContent-Length: 5000\r\n\r\nabc"
        )
        await self._http(port, upload.encode(), answers=False)


def ours(garbage: list[object]) -> Counter[str]:
    """What of ours is in there, without the clients of this test: classes, and functions that an exception holds."""
    names = Counter(
        type(thing).__qualname__
        for thing in garbage
        if issubclass(type(thing), KINDS) or type(thing).__module__.startswith(("actors.", "protocol."))
    )
    names.update(
        thing.f_code.co_qualname
        for thing in garbage
        if type(thing) is FrameType and "/actors/" in thing.f_code.co_filename
    )
    return names


async def left_over(end: Callable[[str], Awaitable[None]], system: System) -> Counter[str]:
    """Let some connections end, without collections. Return what they leave that only a collection frees."""
    await end(f"{end.__name__}-0")  # what is made once
    of_others: list[object] = []  # another test of this process has failed, and pytest keeps its frames

    def alive() -> list[object]:
        things = [thing for thing in gc.get_objects() if issubclass(type(thing), KINDS)]
        return [thing for thing in things if not any(thing is other for other in of_others)]

    async def all_gone() -> bool:
        system.clients.clear()
        return not alive()

    system.clients.clear()
    gc.collect()
    of_others += alive()
    gc.disable()
    try:
        for number in range(1, 1 + TIMES):
            await end(f"{end.__name__}-{number}")
        with suppress(AssertionError):
            await eventually(all_gone, "connections are freed", 5)
        left = Counter(type(thing).__qualname__ for thing in alive())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return left or ours(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def all_left_overs(settings: Settings, trust: ssl.SSLContext | None) -> dict[str, Counter[str]]:
    async with System(settings, servers=("SOCK001",)) as system:
        await system.start("web-server", lambda bus: WebServer(settings, bus, system.store))
        ends = Ends(system, trust)
        ways = [getattr(ends, name) for name in vars(Ends) if not name.startswith("_")]
        if trust is not None:
            ways = [ends.closed_by_the_client, ends.broken, ends.broken_before_hello]
        return {way.__name__: left for way in ways if (left := await left_over(way, system))}


@pytest.fixture(autouse=True)
def _no_log(caplog: pytest.LogCaptureFixture) -> None:
    """pytest keeps the log, and with an error its traceback."""
    caplog.set_level(logging.CRITICAL, "examwire")


def test_an_ended_connection_needs_no_garbage_collection(own_settings: Settings) -> None:
    assert uvloop.run(all_left_overs(own_settings, None)) == {}  # a role's loop


def test_nor_does_one_over_tls(own_settings: Settings, tmp_path: Path) -> None:
    certificates = issue(tmp_path / "pki")
    files = {"socket.certificate_file": certificates.certificate, "socket.key_file": certificates.key}
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    assert uvloop.run(all_left_overs(changed(own_settings, files), trust)) == {}


async def test_nor_does_a_request_that_nobody_answers(bus: Bus) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            with suppress(NoResponders):
                await bus.request("nobody.here", b"")
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert ours(gc.garbage) == {}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
