"""Notices that SOCKET has dropped messages, at its bound or by its age, which this server had not read.

NATS goes on with the next message and says nothing.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_state import StreamState
from protocol.broker.streams import SOCKET
from protocol.errors import BrokerUnavailable, NotPermitted
from protocol.messages.progress import PartitionApplied

log = logging.getLogger("examwire.server_queue")

FULL, NEARLY = 0.8, 0.8
"""Shares of the bounds in bytes and in age that a stream has reached when it drops messages; then it holds less."""


class GapWatch:
    """Compares where SOCKET begins with how far each consumer was when it was last looked at.

    gaps = GapWatch(bus)
    stream = await gaps.stream_state()  # before the consumers are asked
    lost = gaps.with_gaps(stream, {"SOCK001_Q": progress})

    It may also name a consumer that has lost nothing, when the stream has dropped only messages for others. What a
    purge has deleted is no loss: the stream is not full then, and has not held it for its whole age.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._read_up_to: dict[str, int] = {}
        self._ends: deque[tuple[float, int]] = deque()  # when the stream ended where
        self._lost: set[str] = set()
        self._permitted = True

    async def stream_state(self) -> StreamState | None:
        """Ask for the extent of SOCKET; `None`: it is not known now."""
        if not self._permitted:
            return None
        try:
            return await self._bus.stream_state(SOCKET.name)
        except BrokerUnavailable as error:
            log.debug("%s: %s", SOCKET.name, error)
        except NotPermitted as refused:  # the permissions are those of an earlier release
            log.warning("messages that %s drops are not noticed: %s", SOCKET.name, refused)
            self._permitted = False
        return None

    def with_gaps(self, stream: StreamState, consumers: Mapping[str, PartitionApplied]) -> list[str]:
        """Return the consumers that may have lost messages. `consumers`: how far they are, asked after the stream.

        One that is still overtaken by the beginning of the stream is returned when it is not any more: it would lose
        further ones, and what it is told from Redis would be more messages for the full stream.
        """
        lost = []
        full = stream.limit is not None and stream.size > FULL * stream.limit
        old_end = self._end_of_old(stream)
        for name, progress in consumers.items():
            first_unread = self._read_up_to.get(name, stream.first) + 1
            if stream.first > first_unread and (full or first_unread <= old_end):
                self._lost.add(name)
            # With nothing pending it has read all of its messages that were in the stream, however long ago.
            read = progress.up_to if progress.pending else stream.last
            if name in self._lost and read + 1 >= stream.first:
                self._lost.remove(name)
                lost.append(name)
            self._read_up_to[name] = max(read, stream.first - 1)
        return lost

    def _end_of_old(self, stream: StreamState) -> int:
        """Return up to where the stream has held messages for so long that it drops them by their age."""
        if not stream.max_age:
            return 0
        now = time.monotonic()
        if not self._ends or self._ends[-1][1] != stream.last:
            self._ends.append((now, stream.last))
        while len(self._ends) > 1 and now - self._ends[1][0] >= NEARLY * stream.max_age:
            self._ends.popleft()
        seen_at, end = self._ends[0]
        return end if now - seen_at >= NEARLY * stream.max_age else 0
