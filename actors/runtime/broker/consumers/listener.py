"""Hearing what is said over core NATS: nothing is stored, and nobody is answered."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import nats.errors
from nats.aio.msg import Msg

from actors.runtime.broker.connection import Bus

log = logging.getLogger("examwire.listening")


@contextlib.asynccontextmanager
async def listening(bus: Bus, subject: str, heard: Callable[[bytes], None]) -> AsyncIterator[None]:
    """Call `heard` with each payload on `subject` (`*`, `>`) within the context; it survives reconnects.

    async with listening(bus, "applied.*", hear):
        ...
    """

    async def take(msg: Msg) -> None:
        heard(msg.data)

    subscription = await bus.subscribe(subject, take)
    try:
        yield
    finally:
        try:
            await subscription.unsubscribe()
        except nats.errors.Error:
            log.debug("%s: connection is closed already", subject)
