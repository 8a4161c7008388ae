"""Notices that SOCKET has dropped messages, at its bound or by its age, which this server had not read.

NATS goes on with the next message and says nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_state import StreamState
from protocol.broker.streams import SOCKET
from protocol.errors import BrokerUnavailable, NotPermitted
from protocol.messages.progress import PartitionApplied

log = logging.getLogger("examwire.server_queue")


class GapWatch:
    """Compares where SOCKET begins with how far each consumer was when it was last looked at.

    gaps = GapWatch(bus)
    stream = await gaps.stream_state()  # before the consumers are asked
    lost = gaps.with_gaps(stream, {"SOCK001_Q": progress})

    It may also name a consumer that has lost nothing, when the stream has dropped only messages for others.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._read_up_to: dict[str, int] = {}
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
        for name, progress in consumers.items():
            if stream.first > self._read_up_to.get(name, stream.first) + 1:
                self._lost.add(name)
            # With nothing pending it has read all of its messages that were in the stream, however long ago.
            read = progress.up_to if progress.pending else stream.last
            if name in self._lost and read + 1 >= stream.first:
                self._lost.remove(name)
                lost.append(name)
            self._read_up_to[name] = max(read, stream.first - 1)
        return lost
