"""The first frame of a client: `hello` within 5 s, with a token for a role that has sessions here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from actors.runtime.config.tokens import TokenVerifier
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.request_checks import shown_token
from protocol.access.claims import Claims
from protocol.close_codes import CloseCode
from protocol.errors import ErrorCode, InvalidToken, ProtocolError, TokenNotYetValid
from protocol.messages.frames import CLIENT_FRAMES, HELLO_SECONDS, Hello, error_frame

LATE_SECONDS = 0.5
"""When the event loop notices a timeout so much too late, it was blocked, and the hello may wait unread."""


@dataclass(frozen=True, slots=True)
class AcceptedHello:
    """A valid hello, and the claims of its token."""

    claims: Claims
    hello: Hello


async def receive_hello(connection: WebSocketConnection, tokens: TokenVerifier) -> AcceptedHello | None:
    """Wait for the hello and check it. `None`: the connection was closed, with the code of what was wrong."""
    try:
        text = await _first_frame(connection)
    except TimeoutError:
        await connection.end(CloseCode.HELLO_TIMEOUT)
        return None
    if text is None:
        await connection.end(CloseCode.UNSUPPORTED_DATA)
        return None
    try:
        hello = CLIENT_FRAMES.decode_one(text)
        if not isinstance(hello, Hello):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "the first frame must be hello", "type")
    except ProtocolError as error:
        connection.send_message(error_frame(error))
        await connection.end(CloseCode.INVALID_HELLO)
        return None
    try:
        claims = _claims(connection, hello, tokens)
    except InvalidToken as error:
        unauthorized = ProtocolError(ErrorCode.UNAUTHORIZED, str(error), "data.token")
        connection.send_message(error_frame(unauthorized, hello.type))
        early = isinstance(error, TokenNotYetValid)
        await connection.end(CloseCode.TOKEN_NOT_YET_VALID if early else CloseCode.INVALID_TOKEN)
        return None
    if claims.role not in ("examinee", "proctor"):
        detail = f"the role {claims.role} has no place on this socket"
        connection.send_message(error_frame(ProtocolError(ErrorCode.FORBIDDEN, detail, "data.token"), hello.type))
        await connection.end(CloseCode.FORBIDDEN)
        return None
    return AcceptedHello(claims, hello)


def _claims(connection: WebSocketConnection, hello: Hello, tokens: TokenVerifier) -> Claims:
    """Verify the token of the hello, or that of the handshake, and return its claims. Raises `InvalidToken`."""
    shown = connection.slot.shown
    if shown is not None and hello.token in (None, shown[0]):
        return shown[1]  # the handshake has verified it
    return tokens.verify(hello.token or (shown_token(connection.request) if connection.request else None))


async def _first_frame(connection: WebSocketConnection) -> bytes | None:
    """Receive the first frame. Raises `TimeoutError` after 5 s in which the event loop was not blocked."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + HELLO_SECONDS
        try:
            async with asyncio.timeout_at(due):
                return await connection.recv()
        except TimeoutError:
            if loop.time() - due < LATE_SECONDS:
                raise
