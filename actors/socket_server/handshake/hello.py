"""The first frame of a client: `hello` within 5 s, with a token for a role that has sessions here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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


class HelloReader:
    """Reads the first message of a client and gives it to `greet`. What comes after it waits for the session's reader.

    connection.read_with(HelloReader(connection, greet))

    A client that says nothing for 5 s in which the event loop was not blocked is closed.
    """

    __slots__ = ("_connection", "_due", "_greet", "_timer")

    def __init__(
        self, connection: WebSocketConnection, greet: Callable[[WebSocketConnection, bytes | None], None]
    ) -> None:
        self._connection = connection
        self._greet = greet
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + HELLO_SECONDS
        self._timer = loop.call_at(self._due, self._time_out)

    def _time_out(self) -> None:
        if asyncio.get_running_loop().time() - self._due >= LATE_SECONDS:
            self._wait()
        else:
            self._connection.close(CloseCode.HELLO_TIMEOUT)

    def read_now(self, text: bytes | None) -> bool:
        """Take the first message; keep the others waiting."""
        if self._timer is None:
            return False
        self.stop()
        self._greet(self._connection, text)
        return True

    def wake(self) -> None:
        """Read nothing more: the session does not begin yet."""

    def stop(self) -> None:
        """Wait no longer for a hello."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def check_hello(connection: WebSocketConnection, text: bytes | None, tokens: TokenVerifier) -> AcceptedHello | None:
    """Check the first message of a client. `None`: the connection is closed, with the code of what was wrong."""
    if text is None:
        connection.close(CloseCode.UNSUPPORTED_DATA)
        return None
    if not connection.check_utf8(text):
        return None
    try:
        hello = CLIENT_FRAMES.decode_one(text)
        if not isinstance(hello, Hello):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "the first frame must be hello", "type")
    except ProtocolError as error:
        connection.send_message(error_frame(error))
        connection.close(CloseCode.INVALID_HELLO)
        return None
    try:
        claims = _claims(connection, hello, tokens)
    except InvalidToken as error:
        unauthorized = ProtocolError(ErrorCode.UNAUTHORIZED, str(error), "data.token")
        connection.send_message(error_frame(unauthorized, hello.type))
        early = isinstance(error, TokenNotYetValid)
        connection.close(CloseCode.TOKEN_NOT_YET_VALID if early else CloseCode.INVALID_TOKEN)
        return None
    if claims.role not in ("examinee", "proctor"):
        detail = f"the role {claims.role} has no place on this socket"
        connection.send_message(error_frame(ProtocolError(ErrorCode.FORBIDDEN, detail, "data.token"), hello.type))
        connection.close(CloseCode.FORBIDDEN)
        return None
    return AcceptedHello(claims, hello)


def _claims(connection: WebSocketConnection, hello: Hello, tokens: TokenVerifier) -> Claims:
    """Verify the token of the hello, or that of the handshake, and return its claims. Raises `InvalidToken`."""
    shown = connection.slot.shown
    if shown is not None and hello.token in (None, shown[0]):
        return shown[1]  # the handshake has verified it
    return tokens.verify(hello.token or (shown_token(connection.request) if connection.request else None))
