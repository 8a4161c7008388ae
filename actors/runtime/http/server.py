"""uvicorn behind a door of our own: connections are accepted here, so that they are counted before anything else.

With TLS a connection has a protocol only after its handshake, which whoever says nothing never ends. So the limits of
`actors.web_server.http.connections` hold from the moment of acceptance, and the handshake has the deadline that
headers have.
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

from actors.runtime.config.local_addresses import in_url, is_wildcard
from actors.runtime.config.settings import WebSettings
from actors.web_server.http.connections import Connections, GuardedProtocol, Slot, short_answer
from protocol.errors import RoleFailed

log = logging.getLogger("examwire.web")

NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_SECONDS = 0.1


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers (the role obeys signals) that lets `Connections` decide whom to let in.

    `serves` is set when it does.
    """

    def __init__(
        self, config: uvicorn.Config, settings: WebSettings, connections: Connections, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(config)
        self.serves = asyncio.Event()
        self._connections = connections
        self._handshake_seconds = settings.header_seconds
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []
        self._opening: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = []  # there is none of asyncio's
        for listener in sockets or ():
            listener.setblocking(False)
            self._tasks.append(asyncio.create_task(self._accept(listener), name="web-server:accept"))
        self._tasks.append(asyncio.create_task(self._connections.look(), name="web-server:connections"))
        self.started = True
        self.serves.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in (*self._tasks[:-1], *self._opening):
            task.cancel()
        await super().shutdown(sockets)
        self._tasks[-1].cancel()  # until then, slow ones are ended as ever
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def on_tick(self, counter: int) -> bool:
        """Called often by uvicorn; ends it when nothing is accepted any more."""
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
                continue  # or the peer has gone already
            slot = self._connections.admit(str(address[0]))
            if slot is None:
                self._refuse(connection)
                continue
            slot.opening = asyncio.create_task(self._open(slot, connection))
            self._opening.add(slot.opening)
            slot.opening.add_done_callback(self._opening.discard)

    async def _open(self, slot: Slot, connection: socket.socket) -> None:
        """Hand the connection to a protocol, after the handshake where there is one."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: GuardedProtocol(
                    slot,
                    self._connections,
                    config=self.config,
                    server_state=self.server_state,
                    app_state=self.lifespan.state,
                ),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_seconds if self._tls is not None else None,
            )
        except (OSError, asyncio.CancelledError) as error:  # TLS errors are OSErrors
            self._connections.release(slot)
            connection.close()
            log.debug("a connection came to nothing: %r", error)
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


async def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port that is taken is our error and not the end of the process inside uvicorn."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=2048)
    except OSError as error:
        raise RoleFailed(
            f"the web server cannot listen on {host}:{port} ({error.strerror or error}): "
            "stop what uses the port, or set web.port (0 picks a free one)"
        ) from error


def url_of(listener: socket.socket, scheme: str) -> str:
    """The address at which this machine reaches what listens there."""
    host, port = listener.getsockname()[:2]
    if is_wildcard(host):  # everywhere: loopback is where it can be reached from here
        host = "::1" if ":" in host else "127.0.0.1"
    return f"{scheme}://{in_url(host)}:{port}"
