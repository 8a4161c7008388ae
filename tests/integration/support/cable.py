"""A TCP connection to an engine that a test can pull out and put back, or pause in either direction."""

from __future__ import annotations

import asyncio
from typing import Self


class Cable:
    """A TCP proxy. `pull_out` breaks its connections and refuses new ones; `pause` holds what is sent, in order.

    While it is paused new connections open, as with a peer whose kernel answers for a process that does not.
    """

    def __init__(self, port: int, scheme: str = "nats") -> None:
        self._target = port
        self._scheme = scheme
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._up.set()
        self._down.set()
        self.connected = True
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pull_out()
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def pull_out(self) -> None:
        self.connected = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def put_back(self) -> None:
        self.connected = True

    def pause(self, *, up: bool = True, down: bool = True) -> None:
        """Hold what goes `up` to the engine, `down` from it, or both, until `resume`."""
        if up:
            self._up.clear()
        if down:
            self._down.clear()

    def resume(self) -> None:
        """Let what was held go on, in its order."""
        self._up.set()
        self._down.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.connected:
            writer.transport.abort()
            return
        self._writers.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        if writer not in self._writers:  # pulled out meanwhile
            far_writer.transport.abort()
            return
        self._writers.add(far_writer)
        for source, sink, open_ in ((reader, far_writer, self._up), (far_reader, writer, self._down)):
            task = asyncio.create_task(self._copy(source, sink, open_))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, open_: asyncio.Event) -> None:
        try:
            while data := await source.read(65536):
                await open_.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # pulled out: the other direction ends as well
        finally:
            sink.close()
