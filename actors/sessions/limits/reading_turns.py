"""Turns of clients that send much, so that clients that send little do not wait for all of them.

Data beyond a client's quick share (`InboundBudget.quick`) is read in turn, and its messages are handled in turn: a few
milliseconds of each in one turn of the event loop, however many clients send at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("examwire.reading_turns")

TURN_SECONDS = 0.003
"""In one turn of the event loop, data is read for so long."""

HANDLED_BYTES, MESSAGE_COST = 4096, 512
"""In one turn of the event loop, messages of so many bytes are handled, each of which costs `MESSAGE_COST` more; or
one larger message."""


class ReadingTurns:
    """The queues of one server: who reads next, whose message is handled next. A client is in each at most once.

    turns.read(connection.read_part)  # called when it is its turn
    await turns.handle(len(text))  # returns when it is its turn
    """

    def __init__(self) -> None:
        self._readers: deque[Callable[[], None]] = deque()
        self._handlers: deque[tuple[asyncio.Future[None], int]] = deque()
        self._scheduled = False

    def read(self, read: Callable[[], None]) -> None:
        """Call `read` when it is its turn. It reads a part, and queues again for the rest."""
        self._readers.append(read)
        self._schedule()

    async def handle(self, size: int) -> None:
        """Wait until a message of this size may be handled."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handlers.append((turn, size + MESSAGE_COST))
        self._schedule()
        await turn

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._scheduled = False
        room = HANDLED_BYTES
        while self._handlers and room > 0:
            turn, cost = self._handlers.popleft()
            if not turn.done():  # otherwise its client has gone
                turn.set_result(None)
                room -= cost
        until = time.perf_counter() + TURN_SECONDS
        while self._readers:
            try:
                self._readers.popleft()()
            except Exception:
                log.exception("the data of a client could not be processed")
            if time.perf_counter() > until:
                break
        if self._readers or self._handlers:
            self._schedule()
