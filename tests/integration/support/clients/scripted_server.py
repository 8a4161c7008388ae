"""A server that says what the test's script wants, for clients to meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from protocol.messages.base import Message
from protocol.messages.frames import (
    CLIENT_FRAMES,
    Heartbeat,
    Hello,
    ReconnectPolicy,
    Role,
    Welcome,
    encode_text,
)

Script = Callable[[ServerConnection, Hello], Awaitable[None]]
QUICK = ReconnectPolicy(max_attempts=3, backoff_seconds=[0.02, 0.04], jitter=0.3)


class ScriptedServer:
    """Each connection follows the next script; without one it is answered with 500.

    A script is a coroutine (connection, hello), or the HTTP status (and Retry-After) to refuse with.
    """

    def __init__(self, *scripts: Script | tuple[int, str | None]) -> None:
        self.scripts = list(scripts)
        self.hellos: list[Hello] = []
        self.requests = 0
        self.heard: list[Message] = []
        self.endpoints: list[str] = []
        self.policy = QUICK
        self.heartbeat_seconds = 30.0
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._decide,
            subprotocols=[Subprotocol("examwire.v1")],
            compression=None,
            ping_interval=None,
            close_timeout=1,
        )
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/connect"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        for connection in self._server.connections:
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def _decide(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests += 1
        script = self.scripts[0] if self.scripts else (500, None)
        if not isinstance(script, tuple):
            return None
        if self.scripts:
            self.scripts.pop(0)
        response = connection.respond(HTTPStatus(script[0]), "not now\n")
        if script[1] is not None:
            response.headers["Retry-After"] = script[1]
        return response

    async def _handle(self, connection: ServerConnection) -> None:
        script = self.scripts.pop(0)
        assert not isinstance(script, tuple)
        try:
            hello = CLIENT_FRAMES.decode_one(await connection.recv())
            assert isinstance(hello, Hello)
            self.hellos.append(hello)
            await script(connection, hello)
        except ConnectionClosed:
            pass

    def welcome(self, role: Role = "examinee") -> Welcome:
        return Welcome(
            role=role,
            plan_id="P001",
            examinee_id="E001" if role == "examinee" else None,
            server_id="SOCK001",
            socket_id=f"SOCK001-{len(self.hellos)}",
            heartbeat_seconds=self.heartbeat_seconds,
            reconnect=self.policy,
            endpoints=self.endpoints,
        )

    async def stay(self, connection: ServerConnection, hello: Hello) -> None:
        """Welcome the client, echo heartbeats, note what it says."""
        await connection.send(encode_text(self.welcome()))
        async for text in connection:
            frame = CLIENT_FRAMES.decode_one(text)
            self.heard.append(frame)
            if isinstance(frame, Heartbeat):
                await connection.send(encode_text(frame))

    def close_with(self, code: int, reason: str = "", *, before_welcome: bool = False) -> Script:
        async def script(connection: ServerConnection, hello: Hello) -> None:
            if not before_welcome:
                await connection.send(encode_text(self.welcome()))
            await connection.close(code, reason)

        return script

    async def break_off(self, connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(self.welcome()))
        connection.transport.abort()
