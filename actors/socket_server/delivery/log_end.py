"""The end of the log as a socket server knows it: no version can lie beyond it.

What is told with a version from the future would be the newest word about an examinee for ever; so it is compared
before it counts.
"""

from __future__ import annotations

import asyncio
import logging
import time

from actors.runtime.broker.connection import Bus
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable
from protocol.log.version import sequence_of

log = logging.getLogger("examwire.log_end")

ASK_SECONDS = 0.05
GROWTH = 2000
"""So many messages may have come since it was asked within the last `ASK_SECONDS`: a storm need not ask for each."""
TRIES = 20
AHEAD_SECONDS = 3600.0


class LogEnd:
    """Asks the broker only for versions beyond what is known already; the acks of what this server stores tell most."""

    def __init__(self, bus: Bus, server_id: str) -> None:
        self._bus = bus
        self._subject = subjects.status_server(server_id)
        self._known = 0
        self._asked = -ASK_SECONDS

    def heard_of(self, sequence: int) -> None:
        """The log holds a message at this place."""
        self._known = max(self._known, sequence)

    async def has_reached(self, version: int) -> bool:
        """Whether the log holds the message of this version. While the broker is away, the answer waits for it."""
        sequence = sequence_of(version)
        if sequence <= self._known:
            return True
        if time.monotonic() - self._asked < ASK_SECONDS and sequence <= self._known + GROWTH:
            return True
        tries = 0
        while tries < TRIES:
            try:
                # Other than the end, nothing of the log is a socket server's to see.
                self.heard_of(await self._bus.last_sequence(self._subject))
            except BrokerUnavailable as error:
                tries += self._bus.connected
                log.debug("the end of the log is not known: %s", error)
                await asyncio.sleep(0.2)
            else:
                self._asked = time.monotonic()
                return sequence <= self._known
        # Better than to hold everything up: the log began with the time of its creation, in ms.
        log.warning("the end of the log is not to be had: version %d is held against the clock", version)
        return sequence <= (self._bus.clock.now() + AHEAD_SECONDS) * 1000
