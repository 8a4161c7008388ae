"""An HTTP server: uvicorn, with an accept loop that applies the limits of `connections.py` to each new connection.

With TLS a connection has a protocol only after its handshake. A client that sends nothing never completes it, so the
handshake has the same deadline as headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from actors.runtime.config.local_addresses import in_url, is_wildcard
from actors.runtime.http.connections import Connections, HttpProtocol, Slot, short_answer

log = logging.getLogger("examwire.http")

NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_SECONDS = 0.1


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers (the role has its own); `Connections` admits or refuses each connection.

    `serves` is set when it accepts connections. `shutdown` waits at most `drain_seconds` for running requests.

    Example::

        server = HttpServer(app, connections, drain_seconds=5)
        serving = asyncio.create_task(server.serve([bind("127.0.0.1", 8080)]))
    """

    def __init__(
        self, app: ASGIApp, connections: Connections, *, drain_seconds: int, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",  # uvicorn takes a bound method for ASGI 2
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,  # the web server sends the broker's time: pages set their clock by it
                timeout_graceful_shutdown=drain_seconds,
            )
        )
        self.serves = asyncio.Event()
        self._connections = connections
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []
        self._opening: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = []  # uvicorn closes these; connections are accepted by `_accept` instead
        for listener in sockets or ():
            listener.setblocking(False)
            self._tasks.append(asyncio.create_task(self._accept(listener), name="http:accept"))
        self._tasks.append(asyncio.create_task(self._connections.check(), name="http:connections"))
        self.started = True
        self.serves.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in (*self._tasks[:-1], *self._opening):
            task.cancel()
        await super().shutdown(sockets)
        self._tasks[-1].cancel()  # the limits hold until here
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server has to end, also when the accept loop has failed. uvicorn calls it regularly."""
        return await super().on_tick(counter) or any(task.done() for task in self._tasks)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in NO_FILES:
                    log.warning("a connection cannot be accepted: %s", error.strerror)
                    if not self._connections.make_room():
                        await asyncio.sleep(PAUSE_SECONDS)
                continue  # otherwise the peer has disconnected already
            slot = self._connections.admit(str(address[0]))
            if slot is None:
                self._refuse(connection)
                continue
            slot.opening = asyncio.create_task(self._open(slot, connection))
            self._opening.add(slot.opening)
            slot.opening.add_done_callback(self._opening.discard)

    async def _open(self, slot: Slot, connection: socket.socket) -> None:
        """Give the connection its protocol, after the TLS handshake if there is one."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: HttpProtocol(
                    slot,
                    self._connections,
                    config=self.config,
                    server_state=self.server_state,
                    app_state=self.lifespan.state,
                ),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._connections.limits.header_seconds if self._tls is not None else None,
            )
        except (OSError, asyncio.CancelledError) as error:  # TLS errors are OSErrors
            self._connections.release(slot)
            connection.close()
            log.debug("a connection was not opened: %r", error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            slot.opening = None

    def _refuse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._tls is None:
                connection.setblocking(False)
                connection.send(short_answer(503, "UNAVAILABLE", "too many connections; try again in a moment"))
                connection.shutdown(socket.SHUT_WR)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host`:`port` (0: a free port). Blocks to look up a name. Raises `OSError`."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=2048)


def url_of(listener: socket.socket, scheme: str) -> str:
    """Return the URL at which this machine reaches the listening socket, without a path."""
    host, port = listener.getsockname()[:2]
    if is_wildcard(host):  # loopback is one of its addresses
        host = "::1" if ":" in host else "127.0.0.1"
    return f"{scheme}://{in_url(host)}:{port}"
