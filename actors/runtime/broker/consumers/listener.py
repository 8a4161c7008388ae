"""Receive messages of core NATS: they are not stored, and need no answer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import nats.errors
from nats.aio.msg import Msg

from actors.runtime.broker.connection import Bus

log = logging.getLogger("examwire.listening")


@contextlib.asynccontextmanager
async def listen(bus: Bus, subject: str, on_payload: Callable[[bytes], None]) -> AsyncIterator[None]:
    """Call `on_payload` with each payload on `subject` (wildcards allowed) while the context is open.

    Reconnects do not end it; messages that were published meanwhile are lost.

    Example::

        async with listen(bus, "applied.*", print):
            await asyncio.sleep(10)
    """

    async def receive(msg: Msg) -> None:
        on_payload(msg.data)

    subscription = await bus.subscribe(subject, receive)
    try:
        yield
    finally:
        try:
            await subscription.unsubscribe()
        except nats.errors.Error:
            log.debug("%s: connection is closed already", subject)
