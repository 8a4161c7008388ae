"""Clients that speak Socket.IO (Engine.IO 4 over a plain WebSocket), in the worker processes of `examwire load`.

A frame begins with the type of its packet: 0 open, 2 ping, 3 pong, 40 connect, 42 event
(https://socket.io/docs/v4/engine-io-protocol, https://socket.io/docs/v4/socket-io-protocol).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from actors.client.connection import CLOSE_SECONDS, MAX_FRAME_BYTES, MAX_QUEUE, OPEN_SECONDS, ConnectRefused
from cli.load.ledger import ConnectionChange
from cli.load.workers import ExamineeWorker, LoadClient, ProctorWorker, main

PING, PONG, CONNECT, EVENT = "2", "3", "40", "42"


@dataclass(frozen=True, slots=True)
class SocketIoWelcome:
    """The server's event `welcome`."""

    socket_id: str


async def open_socket(url: str, token: str) -> tuple[ClientConnection, SocketIoWelcome]:
    """Connect, show the token, and wait for the welcome. Raises `ConnectRefused`."""
    try:
        ws = await connect(
            f"{url}/socket.io/?EIO=4&transport=websocket",
            compression=None,
            proxy=None,
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            ping_interval=None,
            max_queue=MAX_QUEUE,
            max_size=MAX_FRAME_BYTES,
        )
        await ws.recv(decode=True)  # 0: the pings' interval and the like
        await ws.send(CONNECT + json.dumps({"token": token}))
        accepted = await ws.recv(decode=True)
        if not accepted.startswith(CONNECT):
            raise ConnectRefused(url, f"refused: {accepted}")
        name, welcome = event_of(await ws.recv(decode=True))
        assert name == "welcome"
        return ws, SocketIoWelcome(welcome["socketId"])
    except (OSError, WebSocketException) as error:
        raise ConnectRefused(url, f"{error}") from error


def event_of(frame: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the argument of an event.

    Example::

        event_of('42["welcome",{"socketId":"a"}]')  # ("welcome", {"socketId": "a"})
    """
    name, argument = json.loads(frame.removeprefix(EVENT))
    return name, argument


class SocketIoExaminee:
    """An examinee, who answers pings and does nothing else."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._ws: ClientConnection | None = None
        self._answering: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._answering is not None and not self._answering.done()

    async def connect(self, url: str | None = None) -> SocketIoWelcome:
        assert url is not None
        self._ws, welcome = await open_socket(url, self._token)
        self._answering = asyncio.create_task(self._answer(self._ws))
        return welcome

    async def _answer(self, ws: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in ws:
                if frame == PING:
                    await ws.send(PONG)

    def abort(self) -> None:
        assert self._ws is not None
        self._ws.transport.abort()


class SocketIoExamineeWorker(ExamineeWorker):
    """The examinees of one process."""

    def new_client(self, number: int, connection_no: int) -> LoadClient:
        return SocketIoExaminee(self.tokens[number])


class SocketIoProctor(ProctorWorker):
    """A proctor, who reports what the servers tell it."""

    def __init__(self, plan_id: str, url: str, name: str, *, reports: bool) -> None:
        super().__init__(plan_id, url, name, reports=reports)
        self._ws: ClientConnection | None = None
        self._sockets: dict[str, str | None] = {}

    async def watch(self) -> None:
        self._ws, _ = await open_socket(self.url, self.token)
        self.ready.set()
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._ws:
                at = time.time()
                assert isinstance(frame, str)
                if frame == PING:
                    await self._ws.send(PONG)
                elif frame.startswith(EVENT):
                    self._take(*event_of(frame), at)

    def _take(self, name: str, event: dict[str, Any], at: float) -> None:
        examinee = event["examineeId"]
        self._sockets[examinee] = event["socketId"] if name == ConnectionChange.RECOVERED else None
        if self.reports:
            self.report((name, examinee, event["version"], at, False))

    def view(self) -> list[tuple[str, str | None]]:
        return list(self._sockets.items())

    async def leave(self) -> None:
        assert self._ws is not None
        await self._ws.close()


if __name__ == "__main__":
    main(SocketIoExamineeWorker, SocketIoProctor)
