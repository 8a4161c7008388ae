"""Opens one connection of a client: handshake, `hello`, `welcome`, and the errors when that fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from protocol.client.reconnect import ConnectionFailure, Lost, Refused, Unreachable, retry_after_seconds
from protocol.errors import ExamwireError
from protocol.messages.base import Message
from protocol.messages.codec import Malformed
from protocol.messages.frames import (
    MAX_HANDSHAKE_TOKEN,
    SERVER_FRAMES,
    SUBPROTOCOL,
    Error,
    Heartbeat,
    Hello,
    Migrate,
    Welcome,
    encode_text,
)

log = logging.getLogger("examwire.client")

_HEARTBEAT = encode_text(Heartbeat())

OPEN_SECONDS = 10.0
WELCOME_SECONDS = 10.0
CLOSE_SECONDS = 2.0
MAX_QUEUE = 16
"""So many frames wait in websockets to be received. With more it stops reading, and pings are not answered: so receive
from a proctor's connection, and from an examinee's that sends heartbeats, which are echoed."""
MAX_FRAME_BYTES = 4 * 1024 * 1024


class ConnectRefused(ExamwireError):
    """An attempt to connect failed: with a close `code` before the welcome, an HTTP `status`, or neither (unreachable).

    `endpoints`: the servers that a drained server has named.
    """

    def __init__(
        self,
        url: str,
        detail: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        endpoints: list[str] | None = None,
    ) -> None:
        super().__init__(f"{url}: {detail}")
        self.url, self.detail, self.code, self.status, self.retry_after = url, detail, code, status, retry_after
        self.endpoints = endpoints

    @property
    def failure(self) -> ConnectionFailure:
        """The refusal as an argument for the rules in `protocol.client.reconnect`."""
        if self.code is not None:
            return Lost(self.code)
        if self.status is not None:
            return Refused(self.status, self.retry_after)
        return Unreachable()


class ConnectionLost(ExamwireError):
    """The connection ended with `code` and `reason` (`None`: without a close frame). `reconnect=False` only."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"the connection ended with {code} {reason}".rstrip() if code else "the connection broke")
        self.code, self.reason = code, reason


class TimedConnection(ClientConnection):
    """A connection that notes when the server was last heard (pings included), so that a dead one is noticed.

    `on_end` is called when it has ended, with the close code that the server sent, if any.
    """

    heard_at = 0.0
    on_end: Callable[[int | None], None] | None = None

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_end is not None:
            received = self.protocol.close_rcvd
            self.on_end(received.code if received is not None else None)

    async def send_heartbeat(self) -> None:
        """Send a heartbeat. When that fails, `recv` raises."""
        with contextlib.suppress(ConnectionClosed):
            await self.send(_HEARTBEAT)


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection after its `welcome`. `rest`: the messages of the same frame that followed it."""

    connection: TimedConnection
    welcome: Welcome
    rest: list[Message]


async def open_session(url: str, hello: Hello) -> Opened:
    """Connect to `url`, send the hello and wait for the welcome. Raises `ConnectRefused`."""
    connection = await _handshake(url, hello.token)
    error_text = ""
    endpoints: list[str] | None = None
    try:
        async with asyncio.timeout(WELCOME_SECONDS):
            await connection.send(encode_text(hello))
            while True:
                messages, _ = decode(await connection.recv(decode=False))
                for index, message in enumerate(messages):
                    if isinstance(message, Welcome):
                        return Opened(connection, message, messages[index + 1 :])
                    if isinstance(message, Error):
                        error_text = f" ({message.code}: {message.message})"
                    if isinstance(message, Migrate):
                        endpoints = message.endpoints
    except ConnectionClosed as closed:
        code, reason = end_of(closed)
        detail = f"closed with {code} {reason}".rstrip() if code else "the connection broke before the welcome"
        raise ConnectRefused(url, detail + error_text, code=code, endpoints=endpoints) from closed
    except TimeoutError:
        connection.transport.abort()
        raise ConnectRefused(url, f"sent no welcome within {WELCOME_SECONDS:g} s") from None
    except BaseException:
        connection.transport.abort()
        raise


async def _handshake(url: str, token: str | None) -> TimedConnection:
    try:
        connection = await connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            # The token is shown here, too: a busy server lets clients with a valid token in first.
            additional_headers={"Authorization": f"Bearer {token}"} if _fits_a_header(token) else None,
            compression=None,
            proxy=None,
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            ping_interval=None,  # the server pings
            max_queue=MAX_QUEUE,
            max_size=MAX_FRAME_BYTES,
            create_connection=TimedConnection,
        )
    except InvalidStatus as error:
        response = error.response
        later = retry_after_seconds(response.headers.get("Retry-After"), time.time())
        detail = f"HTTP {response.status_code}"
        raise ConnectRefused(url, detail, status=response.status_code, retry_after=later) from error
    except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
        raise ConnectRefused(url, f"unreachable: {error}") from error
    assert isinstance(connection, TimedConnection)
    connection.heard_at = connection.loop.time()
    if connection.subprotocol != SUBPROTOCOL:
        connection.transport.abort()
        raise ConnectRefused(url, f"is not a socket server: it does not offer {SUBPROTOCOL}")
    return connection


def _fits_a_header(token: str | None) -> bool:
    return token is not None and len(token) <= MAX_HANDSHAKE_TOKEN and token.isascii() and token.isprintable()


def decode(payload: bytes) -> tuple[list[Message], int]:
    """Decode a frame: its messages, and the number of elements that are none that this version knows.

    A newer server may send messages that this version does not know: they are counted and ignored.
    """
    decoded = SERVER_FRAMES.decode_batch(payload)
    messages = [element for element in decoded if not isinstance(element, Malformed)]
    for element in decoded:
        if isinstance(element, Malformed):
            log.debug("invalid frame: %s", element.error)
    return messages, len(decoded) - len(messages)


def end_of(closed: ConnectionClosed) -> tuple[int | None, str]:
    """Return the close code and reason that the server sent; `(None, "")` when the connection broke without one."""
    return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd is not None else (None, "")
