"""Reading a durable consumer, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery, PullConsumer
from actors.runtime.broker.consumers.pinned import MOST_IN_HAND, PinnedConsumer
from actors.runtime.broker.refusals import Refusals
from actors.runtime.broker.stream_state import PinnedState
from protocol.broker.streams import STATE_MANAGERS
from tests.unit.support.waiting import until


class Silent:
    """A bus on which nothing ever comes; `asked`: how often somebody has pulled; `resets`: of the consumer."""

    def __init__(self) -> None:
        self.refusals = Refusals("test", None, "_INBOX")
        self.on_reconnected: list[Callable[[], Awaitable[None]]] = []
        self.asked = 0
        self.resets = 0

    async def reset_consumer(self, stream: str, name: str) -> None:
        self.resets += 1

    async def pinned_state(self, stream: str, name: str) -> PinnedState:
        return PinnedState("ours", 0, 0, 0)

    def new_inbox(self) -> str:
        return "_INBOX.test"

    def subscribe_direct(self, subject: str, handler: Any) -> int:
        return 1

    def unsubscribe_direct(self, handle: int) -> None:
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


async def test_a_client_that_connects_again_resets_its_consumer_if_it_is_the_pinned_one() -> None:
    bus = Silent()
    consumer = PinnedConsumer(cast(Bus, bus), STATE_MANAGERS[0])

    async def read() -> None:
        async for _ in consumer:
            pass

    async def reconnect() -> None:
        for callback in list(bus.on_reconnected):
            await callback()

    reading = asyncio.create_task(read())
    await until(lambda: bus.asked == 1)
    await reconnect()
    await until(lambda: bus.asked == 2)
    assert bus.resets == 0, "another client reads it"
    consumer._take("ours")
    await reconnect()
    await until(lambda: bus.resets == 1)
    reading.cancel()
    await asyncio.wait({reading}, timeout=5)


async def test_a_client_with_many_deliveries_in_hand_stays_pinned_and_asks_for_one_message_at_a_time() -> None:
    consumer = PinnedConsumer(cast(Bus, Silent()), STATE_MANAGERS[0])
    consumer._take("ours")
    assert consumer._request()["batch"] > 1
    for sequence in range(MOST_IN_HAND):
        consumer._unsettled.add(Delivery("status.server.S", b"", {}, sequence, 1, 0, 0.0, "", _settled, set()))
    request = consumer._request()
    assert (request["id"], request["batch"]) == ("ours", 1)


async def _settled(_replies: Sequence[str], _verdict: bytes) -> None:
    pass
