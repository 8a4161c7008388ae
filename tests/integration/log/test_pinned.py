"""A consumer that one client reads at a time, in the stream's order, whatever becomes of that client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.consumers.pinned import PinnedConsumer
from actors.runtime.config.settings import Settings
from protocol.broker.streams import ConsumerSpec, StreamSpec
from protocol.errors import NotPermitted
from tests.integration.support.system import eventually
from tests.support.metrics import sample

STREAM = StreamSpec("ORDERED", ("ordered.>",), "Of this test", max_age=3600.0)
SPEC = ConsumerSpec(STREAM.name, "reader", ("ordered.x",), ack_wait=4.0, max_ack_pending=128, pin_seconds=2.5)


class Reader:
    """A client and what it was given."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.consumer = PinnedConsumer(bus, SPEC)
        self.taken: list[Delivery] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for deliveries in self.consumer:
            self.taken += deliveries

    @property
    def payloads(self) -> list[str]:
        return [delivery.payload.decode() for delivery in self.taken]

    async def has(self, *payloads: str) -> None:
        async def they_are_there() -> bool:
            return self.payloads == list(payloads)

        try:
            await eventually(they_are_there, f"{payloads}")
        except AssertionError as error:
            raise AssertionError(f"{error}; got {self.payloads}") from None

    async def end(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        await self.bus.close()


@pytest.fixture
async def readers(settings: Settings, bus: Bus) -> AsyncIterator[list[Reader]]:
    if await bus.stream_config(STREAM.name) is not None:
        await bus._js.delete_stream(STREAM.name)
    await bus.apply_stream(STREAM)
    await bus.apply_consumer(SPEC)
    readers: list[Reader] = []
    for name in ("first", "second"):
        readers.append(Reader(await Bus.connect(settings.nats_url, name)))
        await eventually(lambda: _pulls(bus, len(readers)), f"{name} waits")
    yield readers
    for reader in readers:
        await reader.end()


async def _pulls(bus: Bus, count: int) -> bool:
    (state,) = await bus.consumer_states(STREAM.name)
    return state.pulls_waiting == count


async def say(bus: Bus, *payloads: str) -> None:
    for payload in payloads:
        await bus.publish(Outgoing("ordered.x", payload.encode()))


async def test_one_client_reads_and_the_other_stands_by(bus: Bus, readers: list[Reader]) -> None:
    first, second = readers
    await say(bus, "a", "b", "c")
    await first.has("a", "b", "c")
    assert await first.consumer.confirm_owned(first.consumer.epoch)
    for delivery in first.taken:
        await delivery.ack()
    await say(bus, "d")
    await first.has("a", "b", "c", "d")
    assert second.taken == []
    assert not second.consumer.owned


async def test_a_new_reader_gets_the_unacknowledged_deliveries_first(
    bus: Bus, readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = readers
    await say(bus, "a", "b", "c")
    await first.has("a", "b", "c")
    term = first.consumer.epoch
    await first.taken[0].ack()

    async def stands_still() -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(first.consumer, "_pull", stands_still)
    # Newer messages until somebody else has it: whoever is pinned is told of the first of them.
    for number in range(100):
        await say(bus, f"n{number}")
        if second.taken:
            break
        await asyncio.sleep(0.1)
    await second.has("b", "c", *(f"n{index}" for index in range(number + 1)))
    sequences = [delivery.sequence for delivery in second.taken]
    assert sequences == sorted(set(sequences))
    assert await second.consumer.confirm_owned(second.consumer.epoch)
    assert not await first.consumer.confirm_owned(term), "what it had in hand is somebody else's now"


async def test_a_lost_delivery_is_redelivered_in_order(
    bus: Bus, readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = readers
    await say(bus, "a", "in hand")
    await first.has("a", "in hand")
    await first.taken[0].ack()
    takes = first.consumer._takes
    lost_sequences: list[int] = []

    def loses_one(delivery: Delivery, number: int) -> bool:
        if delivery.payload == b"b" and not lost_sequences:
            lost_sequences.append(number)
            return False
        return takes(delivery, number)

    monkeypatch.setattr(first.consumer, "_takes", loses_one)
    await say(bus, "b", "c", "d")
    await first.has("a", "in hand", "b", "c", "d")
    assert lost_sequences


async def test_a_lost_ack_is_repeated_and_no_delivery_is_returned_twice(bus: Bus, readers: list[Reader]) -> None:
    first, _ = readers
    await say(bus, "a", "b")
    await first.has("a", "b")
    again = sample("examwire_redeliveries_total", consumer=SPEC.name)
    for delivery in first.taken:
        first.consumer._unsettled.discard(delivery)  # acknowledged, but the broker never hears of it

    async def settled() -> bool:
        (state,) = await bus.consumer_states(STREAM.name)
        return not state.unacknowledged

    await eventually(settled, "the broker has given them again, and has its acks")
    assert sample("examwire_redeliveries_total", consumer=SPEC.name) >= again + 2
    await first.has("a", "b")


async def test_a_client_that_leaves_is_replaced_at_once(bus: Bus, readers: list[Reader]) -> None:
    first, second = readers
    await say(bus, "a")
    await first.has("a")
    await first.consumer.release()
    await say(bus, "b")
    await second.has("a", "b")
    assert first.payloads == ["a"]


async def test_a_user_without_permission_to_reset_a_consumer_gets_an_error(
    bus: Bus, readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The permissions of an earlier release: the reader ends, and does not wait for ever."""
    first, second = readers
    await say(bus, "a")
    await first.has("a")
    await first.consumer.release()

    async def refused(_stream: str, _name: str) -> None:
        raise NotPermitted("NATS does not let user 'state-manager' publish to $JS.API.CONSUMER.RESET")

    monkeypatch.setattr(second.bus, "reset_consumer", refused)
    await say(bus, "b")
    with pytest.raises(NotPermitted, match="RESET"):
        await asyncio.wait_for(second.task, 20)
    assert not await second.consumer.confirm_owned(1)
    second.task = asyncio.create_task(asyncio.sleep(0))
