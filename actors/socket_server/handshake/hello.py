"""The first frame: hello within 5 s, with a token for this role and plan."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from actors.runtime.config.tokens import TokenVerifier
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.handshake import shown_token
from protocol.access.claims import Claims
from protocol.close_codes import CloseCode
from protocol.errors import ErrorCode, InvalidToken, ProtocolError, TokenNotYetValid
from protocol.messages.frames import CLIENT_FRAMES, HELLO_SECONDS, Hello, error_frame

LATE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who has come."""

    claims: Claims
    hello: Hello


def _claims(connection: WebSocketConnection, hello: Hello, tokens: TokenVerifier) -> Claims:
    """What the token says: that of the hello, or one that the handshake showed. Raises `InvalidToken`."""
    shown = connection.place.shown if connection.place is not None else None
    if shown is not None and hello.token in (None, shown[0]):
        return shown[1]  # checked a moment ago
    return tokens.verify(hello.token or (shown_token(connection.request) if connection.request else None))


async def greet(connection: WebSocketConnection, tokens: TokenVerifier) -> Greeting | None:
    """Wait for the hello and check it; `None`: the connection was closed with the code that says why."""
    try:
        text = await _first_frame(connection)
    except TimeoutError:
        await connection.end(CloseCode.HELLO_TIMEOUT)
        return None
    if not isinstance(text, str):
        await connection.end(CloseCode.UNSUPPORTED_DATA)
        return None
    try:
        hello = CLIENT_FRAMES.decode_one(text)
        if not isinstance(hello, Hello):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "the first frame must be hello", "type")
    except ProtocolError as error:
        connection.tell(error_frame(error))
        await connection.end(CloseCode.INVALID_HELLO)
        return None
    try:
        claims = _claims(connection, hello, tokens)
    except InvalidToken as error:
        connection.tell(error_frame(ProtocolError(ErrorCode.UNAUTHORIZED, str(error), "data.token"), hello.type))
        early = isinstance(error, TokenNotYetValid)
        await connection.end(CloseCode.TOKEN_NOT_YET_VALID if early else CloseCode.INVALID_TOKEN)
        return None
    if claims.role not in ("examinee", "proctor"):
        detail = f"the role {claims.role} has no place on this socket"
        connection.tell(error_frame(ProtocolError(ErrorCode.FORBIDDEN, detail, "data.token"), hello.type))
        await connection.end(CloseCode.FORBIDDEN)
        return None
    return Greeting(claims, hello)


async def _first_frame(connection: WebSocketConnection) -> str | bytes:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + HELLO_SECONDS
        try:
            async with asyncio.timeout_at(due):
                return await connection.recv()
        except TimeoutError:
            if loop.time() - due < LATE_SECONDS:
                raise
            # It was us that stood still: the hello may lie in the socket, unread.
