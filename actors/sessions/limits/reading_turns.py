"""Turns of clients that send much: nobody who sends little waits for all of them.

What a client has sent beyond its quick share (`InboundBudget.quick`) is read in turn, and its messages are handled in
turn: a few milliseconds' worth of both in each turn of the event loop, however many send at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("examwire.reading_turns")

TURN_SECONDS = 0.003
"""So long is read in one turn of the event loop."""

HANDLED_BYTES, MESSAGE_COST = 4096, 512
"""Messages of so many bytes are handled in one turn of the event loop, or one larger one; each counts as more."""


class ReadingTurns:
    """The queues of one server. A client stands once in each at most."""

    def __init__(self) -> None:
        self._readers: deque[Callable[[], None]] = deque()
        self._handlers: deque[tuple[asyncio.Future[None], int]] = deque()
        self._scheduled = False

    def read(self, read: Callable[[], None]) -> None:
        """Have `read` called when it is its turn. It takes a part, and comes again with the rest."""
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
            if not turn.done():  # its client has gone
                turn.set_result(None)
                room -= cost
        until = time.perf_counter() + TURN_SECONDS
        while self._readers:
            try:
                self._readers.popleft()()
            except Exception:
                log.exception("what a client has sent could not be read")
            if time.perf_counter() > until:
                break
        if self._readers or self._handlers:
            self._schedule()
