"""The end of the log, as a socket server knows it: no valid version lies beyond it.

An event with a version from the future could never be overtaken by a later one, so versions are checked before they
count.
"""

from __future__ import annotations

import asyncio
import logging
import time

from actors.sessions.context import ServerContext
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable
from protocol.log.version import sequence_of

log = logging.getLogger("examwire.log_end")

ASK_SECONDS = 0.05
"""The broker is not asked again within so many seconds."""

GROWTH = 2000
"""Within `ASK_SECONDS` of an answer, the log is taken to have grown by up to so many messages."""

NEAR = 32
"""A version so few messages behind the known end is passed on before the broker is asked: the log soon overtakes it.
The broker is asked then only for the farther half of them: a lone event costs no request."""

TRIES = 20
MENDING_SECONDS = 10.0
"""So long after a new connection the log may be behind: the broker was restored, and a state manager mends the log."""
AHEAD_SECONDS = 3600.0


class LogEnd:
    """Tells whether the log holds a version. The broker is asked only when the acks of our own facts do not tell.

    log_end = LogEnd(context)
    if not await log_end.has_reached(event.version): ...
    await log_end.look_again()  # when the event is on its way
    """

    def __init__(self, context: ServerContext) -> None:
        self._bus = context.bus
        self._outbox = context.outbox
        self._subject = subjects.status_server(context.server_id)
        self._known = 0
        self._asked_at = -ASK_SECONDS
        self._is_outdated = False
        self._connected_again_at = -MENDING_SECONDS
        self._bus.on_reconnected.append(self._connected_again)

    async def _connected_again(self) -> None:
        self._connected_again_at = time.monotonic()

    def _may_be_behind(self) -> bool:
        return time.monotonic() - self._connected_again_at < MENDING_SECONDS

    async def has_reached(self, version: int) -> bool:
        """Return whether the log holds the message of this version. While the broker is away, wait for it."""
        sequence = sequence_of(version)
        known = max(self._known, self._outbox.last_sequence)
        if sequence <= known:
            return True
        if time.monotonic() - self._asked_at < ASK_SECONDS and sequence <= known + GROWTH:
            return True
        if sequence <= known + NEAR and not self._may_be_behind():
            self._is_outdated |= sequence > known + NEAR // 2
            return True
        tries = 0
        while tries < TRIES:
            try:
                await self._ask()
            except BrokerUnavailable as error:
                tries += self._bus.connected
                log.debug("the end of the log is not known: %s", error)
                await asyncio.sleep(0.2)
            else:
                if sequence <= self._known or not self._may_be_behind():
                    return sequence <= self._known
                await asyncio.sleep(0.2)
        # Waiting longer would hold up everything. Sequences of the log begin with the time of its creation in ms.
        log.warning("the broker does not return the end of the log: version %d is compared with the clock", version)
        return sequence <= (self._bus.clock.now() + AHEAD_SECONDS) * 1000

    async def look_again(self) -> None:
        """Ask the broker, if a version far from the known end was passed on without that."""
        if self._is_outdated:
            try:
                await self._ask()
            except BrokerUnavailable as error:
                log.debug("the end of the log is not known: %s", error)

    async def _ask(self) -> None:
        # A socket server may see the end of the log, and nothing else of it.
        last = await self._bus.last_sequence(self._subject)
        self._known = max(self._known, self._outbox.last_sequence, last)
        self._asked_at = time.monotonic()
        self._is_outdated = False
