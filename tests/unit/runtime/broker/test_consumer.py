"""Reading a durable consumer, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import PullConsumer
from actors.runtime.broker.refusals import Refusals
from tests.unit.support.waiting import until


class Silent:
    """A bus on which nothing ever comes; `asked`: how often somebody has pulled."""

    def __init__(self) -> None:
        self.refusals = Refusals("test", None, "_INBOX")
        self.on_reconnected: list[Callable[[], Awaitable[None]]] = []
        self.asked = 0

    def new_inbox(self) -> str:
        return "_INBOX.test"

    async def subscribe(self, subject: str, handler: Any) -> Silent:
        return self

    async def unsubscribe(self) -> None:
        pass

    async def publish_core(self, subject: str, payload: bytes, reply: str = "") -> None:
        self.asked += 1


async def test_a_stop_during_a_delivery_is_not_lost() -> None:
    bus = Silent()
    consumer = PullConsumer(cast(Bus, bus), "STATUS", "reader")

    async def read() -> None:
        async for _ in consumer:
            pass

    reading = asyncio.create_task(read())
    await until(lambda: bus.asked == 1)
    consumer._wake.set()  # as a delivery does
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading}, timeout=5)
    assert reading.cancelled()
