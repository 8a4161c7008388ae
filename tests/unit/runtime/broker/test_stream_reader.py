"""Reading a stream whose copies answer, one of them behind: nothing is left out, and it does not wait for ever."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers import stream_reader
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.refusals import Refusals
from actors.runtime.broker.stream_state import StoredMessage, StreamState
from protocol.errors import BrokerUnavailable
from protocol.times import format_time


class Reply:
    def __init__(self, headers: dict[str, str], data: bytes = b"") -> None:
        self.headers, self.data = headers, data


class Subscription:
    async def unsubscribe(self) -> None:
        pass


class Cluster:
    """A bus on a stream of `last` messages, one a second. The copy that answers direct gets knows `copy` of them, and
    `learns` so many more with each answer that has nothing.
    """

    connected = True

    def __init__(self, last: int, copy: int, learns: int, *, others: tuple[int, ...] = ()) -> None:
        self.last, self.copy, self.learns, self.others = last, copy, learns, others
        self.refusals = Refusals("test", None, "_INBOX")
        self.asked_leader = 0
        self.reports: list[tuple[int, int]] = []

    def progress(self, what: str, done: int, total: int) -> None:
        self.reports.append((done, total))

    def new_inbox(self) -> str:
        return "_INBOX.test"

    async def stream_state(self, name: str) -> StreamState:
        return StreamState(1, self.last, self.last, 0)

    async def subscribe(self, subject: str, handler: Callable[[Any], Awaitable[None]]) -> Subscription:
        self.handler = handler
        return Subscription()

    async def publish_core(self, subject: str, payload: bytes, reply: str = "") -> None:
        request = json.loads(payload)
        sequences = [n for n in range(request["seq"], self.copy + 1) if n not in self.others][: request["batch"]]
        for number in sequences:
            headers = {"Nats-Subject": "s", "Nats-Sequence": str(number), "Nats-Time-Stamp": format_time(number)}
            await self.handler(Reply(headers))
        if not sequences:
            self.copy = min(self.last, self.copy + self.learns)
        await self.handler(Reply({"Status": "204" if sequences else "404"}))

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        self.asked_leader += 1
        number = max(n for n in range(1, self.last + 1) if n not in self.others)
        return StoredMessage("s", number, b"", {}, float(number))


async def read(cluster: Cluster, **where: Any) -> list[int]:
    return [stored.sequence async for stored in read_stream(cast(Bus, cluster), "STATUS", **where)]


async def test_a_copy_that_is_behind_does_not_end_the_reading() -> None:
    cluster = Cluster(last=1000, copy=900, learns=60)
    assert await read(cluster) == list(range(1, 1001))


async def test_progress_counts_from_the_first_message_and_ends_whole() -> None:
    """STATUS begins at a large sequence: counted from 0, all of it would seem to be read."""
    cluster = Cluster(last=2000, copy=2000, learns=0, others=(*range(1, 1001), 1999, 2000))
    assert len(await read(cluster)) == 998
    assert cluster.reports == [(511, 999), (997, 999), (2000, 2000)]


async def test_the_leader_is_asked_once_when_the_rest_is_on_other_subjects() -> None:
    cluster = Cluster(last=10, copy=10, learns=0, others=(8, 9, 10))
    assert await read(cluster) == list(range(1, 8))
    assert cluster.asked_leader == 1


async def test_a_copy_that_stays_behind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_reader, "ANSWER_SECONDS", 0.3)
    with pytest.raises(BrokerUnavailable, match="behind"):
        await read(Cluster(last=10, copy=5, learns=0))
