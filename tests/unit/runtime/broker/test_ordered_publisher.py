"""Batches beside each other are stored in their order, also when one of them has to be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from actors.runtime.broker import ordered_publisher
from actors.runtime.broker.ordered_publisher import OrderedPublisher
from actors.runtime.broker.publisher import Outgoing, PubAck, Publishing, Sent
from protocol.errors import BrokerUnavailable, NotPermitted

ACK = b'{"stream":"SOCKET","seq":1}'


class Broker:
    """Stores what is sent while `up`; without an answer (`silent`) nobody knows whether it did."""

    def __init__(self) -> None:
        self.up, self.silent = True, False
        self.stored: list[str] = []
        self.forbidden: set[str] = set()
        self.unanswered: list[Sent] = []

    async def send(self, messages: Sequence[Outgoing]) -> Sent:
        sent = Sent(messages, 1)
        for number, message in enumerate(messages, sent.first):
            if message.subject in self.forbidden:
                sent.answer(number, NotPermitted(message.subject))
            elif self.silent:
                self.unanswered.append(sent)
            elif self.up:
                self.stored.append(message.subject)
                sent.answer(number, ACK)
            else:
                sent.answer(number, BrokerUnavailable("no leader"))
        return sent

    async def settle(self, sent: Sent) -> list[Outgoing]:
        await sent.wait(5)
        for answer in sent.answers:
            if isinstance(answer, NotPermitted):
                raise answer
        return [message for message, answer in zip(sent.messages, sent.answers, strict=True) if answer != ACK]

    async def publish_until_stored(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        assert self.up
        self.stored += [message.subject for message in messages]
        return []

    def time_out(self) -> None:
        for sent in self.unanswered:
            sent.answer(sent.first, BrokerUnavailable("not acknowledged in time"))


def of(broker: Broker) -> OrderedPublisher:
    return OrderedPublisher(cast(Publishing, broker))


def batch(*subjects: str) -> list[Outgoing]:
    return [Outgoing(subject, b"") for subject in subjects]


async def test_publishing_does_not_wait_without_failures() -> None:
    lane = of(broker := Broker())
    broker.silent = True
    await lane.send(batch("a"))
    broker.silent = False
    await lane.send(batch("b"))
    assert broker.stored == ["b"], "the first one's ack is not waited for"


async def test_messages_after_a_failed_batch_are_stored_after_it() -> None:
    lane = of(broker := Broker())
    broker.up = False
    first = await lane.send(batch("a1", "a2"))
    broker.up = True  # a new leader, before anybody has tried again
    second, third = await lane.send(batch("b")), await lane.send(batch("c"))
    await asyncio.gather(*(lane.confirm(parcel) for parcel in (third, second, first)))
    assert broker.stored == ["a1", "a2", "b", "c"]
    await lane.confirm(await lane.send(batch("d")))
    assert broker.stored[-1] == "d"


async def test_messages_after_an_overdue_batch_are_stored_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that died has taken a message with it; the next one answers at once."""
    monkeypatch.setattr(ordered_publisher, "OVERDUE_SECONDS", 0.0)
    lane = of(broker := Broker())
    broker.silent = True
    first = await lane.send(batch("a"))
    broker.silent = False
    second = await lane.send(batch("b"))
    confirming = asyncio.gather(lane.confirm(second), lane.confirm(first))
    await asyncio.sleep(0)
    assert broker.stored == []
    broker.time_out()
    await confirming
    assert broker.stored == ["a", "b"]


async def test_a_refused_batch_does_not_block_later_ones() -> None:
    lane = of(broker := Broker())
    broker.forbidden.add("a")
    first = await lane.send(batch("a"))
    second = await lane.send(batch("b"))
    with pytest.raises(NotPermitted):
        await lane.confirm(first)
    await lane.confirm(second)
    assert broker.stored == ["b"]
