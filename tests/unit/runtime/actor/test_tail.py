"""The tail of an actor: what it shows, how much, and when it ends. Without a bus: messages are collected in a list."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.tail import FIRST, MAX_TAILS, READ_BYTES, TailFeed, describe
from protocol.errors import BrokerUnavailable, ErrorCode, ProtocolError
from protocol.log.version import version_of
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode
from protocol.messages.frames import Hello
from protocol.messages.operator_requests import Tail
from tests.unit.support.waiting import until

LOST = ConnectionStatus(
    plan_id="P001",
    examinee_id="E001",
    socket_id="SOCK001-a",
    status=ConnectionStatusCode.DISCONNECTED,
    reason="PING_TIMEOUT",
    timestamp="2026-01-01T09:15:00.000Z",
)


@dataclass(frozen=True)
class Slow:
    """Handled when `go` is set."""

    go: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Broken:
    plan_id: str = "P009"


class Clerk(Actor):
    kind = "clerk"

    @on(ConnectionStatus)
    def lost(self, message: ConnectionStatus) -> None: ...

    @on(Slow)
    async def slow(self, message: Slow) -> None:
        await message.go.wait()

    @on(Broken)
    def broken(self, message: Broken) -> None:
        raise ValueError("it broke")


class Mail:
    """The messages that a tail has sent, by inbox."""

    def __init__(self) -> None:
        self.by_inbox: dict[str, list[dict[str, Any]]] = {}
        self.away = False

    async def send(self, inbox: str, payload: bytes) -> None:
        if self.away:
            raise BrokerUnavailable("not even buffered")
        parsed = json.loads(payload)
        messages = parsed if isinstance(parsed, list) else [parsed]
        self.by_inbox.setdefault(inbox, []).extend(message["data"] for message in messages)

    @property
    def all(self) -> list[dict[str, Any]]:
        return [message for messages in self.by_inbox.values() for message in messages]


@pytest.fixture
def mail() -> Mail:
    return Mail()


def tail(inbox: str = "_INBOX.one", *, per_second: int = 1000, seconds: float = 10.0) -> Tail:
    return Tail(inbox=inbox, per_second=per_second, seconds=seconds)


async def tailed(mail: Mail, *tails: Tail) -> Clerk:
    clerk = Clerk("clerk.1")
    await clerk.start()
    clerk.tail = TailFeed(clerk.address, mail.send)
    for request in tails or (tail(),):
        clerk.tail.watch(request)
    return clerk


@dataclass(frozen=True)
class Arrived:
    """The fields of a `Delivery` that a tail reads."""

    payload: bytes
    subject: str = "status.plan.P001"
    sequence: int = 7
    attempt: int = 1


@dataclass(frozen=True)
class Batch:
    deliveries: list[Arrived]


def payload(*examinees: str, pad: int = 0) -> bytes:
    return json.dumps(
        [
            {"type": "connection_status", "data": {"planId": "P001", "examineeId": examinee, "pad": "x" * pad}}
            for examinee in examinees
        ]
    ).encode()


# -- what is shown ----------------------------------------------------------------------------------------


async def test_a_handled_message_is_shown_with_its_ids_and_how_long_it_took(mail: Mail) -> None:
    clerk = await tailed(mail)
    await clerk.ask(LOST)
    assert clerk.tail is not None
    await clerk.tail.flush()
    (line,) = mail.all
    assert line["address"] == "clerk.1"
    assert line["message"] == "connection_status"
    assert line["about"] == {
        "planId": "P001",
        "examineeId": "E001",
        "socketId": "SOCK001-a",
        "status": "DISCONNECTED",
        "reason": "PING_TIMEOUT",
    }
    assert 0 <= line["took"] < 1000
    assert "error" not in line


async def test_the_time_shown_is_that_of_the_handler_without_the_wait_before_it(mail: Mail) -> None:
    clerk = await tailed(mail)
    slow = Slow()
    clerk.tell(slow)
    clerk.tell(LOST)
    asyncio.get_running_loop().call_later(0.5, slow.go.set)
    await until(lambda: clerk.handled == 2)
    assert clerk.tail is not None
    await clerk.tail.flush()
    slow_shown, quick_shown = mail.all
    assert (slow_shown["message"], quick_shown["message"]) == ("Slow", "connection_status")
    assert slow_shown["took"] >= 450
    assert quick_shown["took"] < 450


async def test_a_message_whose_handler_runs_when_the_tail_begins_is_timed_from_then_on(mail: Mail) -> None:
    clerk = Clerk("clerk.1")
    await clerk.start()
    slow = Slow()
    clerk.tell(slow)
    await until(lambda: clerk._work is not None)
    clerk.tail = TailFeed(clerk.address, mail.send)
    clerk.tail.watch(tail())
    slow.go.set()
    await until(lambda: clerk.handled == 1)
    await clerk.tail.flush()
    assert 0 <= mail.all[0]["took"] < 1000


async def test_a_failure_is_shown_with_its_error(mail: Mail) -> None:
    clerk = await tailed(mail)
    clerk.tell(Broken())
    await until(lambda: clerk.failed)
    assert clerk.tail is not None
    await clerk.tail.flush()
    (line,) = mail.all
    assert (line["message"], line["about"], line["error"]) == ("Broken", {"planId": "P009"}, "ValueError: it broke")


def test_a_token_is_never_shown() -> None:
    _, about = describe(Hello(token="eyJhbGciOi.secret.x", client_id="browser-1", connection_no=1))
    assert about == {}


def test_a_batch_is_shown_with_its_counts_and_its_first_messages() -> None:
    batch = Batch([Arrived(payload("E001", "E002")), Arrived(payload("E003", "E004"), sequence=8, attempt=2)])
    name, about = describe(batch)
    assert name == "Batch"
    assert (about["deliveries"], about["messages"], about["redelivered"]) == (2, 4, 1)
    assert about["types"] == {"connection_status": 4}
    assert [element["about"]["examineeId"] for element in about["first"]] == ["E001", "E002", "E003"][:FIRST]
    assert [element["about"]["version"] for element in about["first"]] == [
        version_of(7, 0),
        version_of(7, 1),
        version_of(8, 0),
    ]
    assert "notRead" not in about


def test_only_the_beginning_of_a_large_batch_is_parsed() -> None:
    large = payload(*(f"E{number:03}" for number in range(200)), pad=400)
    assert len(large) > READ_BYTES
    _, about = describe(Batch([Arrived(large)] * 5))
    assert (about["deliveries"], about["messages"], about["notRead"]) == (5, 200, 4)


def test_one_delivery_with_one_message_is_shown_as_that_message() -> None:
    name, about = describe(Arrived(payload("E001"), subject="socket.SOCK001"))
    assert (name, about) == ("connection_status", {"planId": "P001", "examineeId": "E001"})
    name, about = describe(Arrived(payload("E001", "E002")))
    assert (name, about["messages"]) == ("batch", 2)


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b"null", b"7", b'["a", {"type": 5}, {"type": "x", "data": 3}]', b"[" + b"1," * 400 + b"1]"],
)
def test_a_payload_that_cannot_be_parsed_is_shown_as_malformed(broken: bytes) -> None:
    _, about = describe(Batch([Arrived(broken)]))
    assert about["deliveries"] == 1
    assert set(about["types"]) <= {"malformed", "x"}
    describe(Arrived(broken))


# -- how much, and to whom ----------------------------------------------------------------------------------


async def test_messages_beyond_the_rate_are_counted_instead_of_shown(mail: Mail) -> None:
    clerk = await tailed(mail, tail(per_second=20))
    for _ in range(50):
        await clerk.ask(LOST)
    assert clerk.tail is not None
    await clerk.tail.flush()
    assert len(mail.all) == 20
    assert [line["leftOut"] for line in mail.all] == [0] * 19 + [30]
    await clerk.ask(LOST)
    await clerk.tail.flush()
    assert mail.all[-1]["leftOut"] == 0, "those were reported already"


async def test_each_tail_has_its_own_rate(mail: Mail) -> None:
    clerk = await tailed(mail, tail("_INBOX.slow", per_second=5), tail("_INBOX.quick"))
    for _ in range(10):
        await clerk.ask(LOST)
    assert clerk.tail is not None
    await clerk.tail.flush()
    assert {inbox: len(lines) for inbox, lines in mail.by_inbox.items()} == {"_INBOX.slow": 5, "_INBOX.quick": 10}


async def test_messages_that_could_not_be_sent_are_counted(mail: Mail) -> None:
    clerk = await tailed(mail)
    assert clerk.tail is not None
    mail.away = True
    await clerk.ask(LOST)
    await clerk.tail.flush()
    mail.away = False
    await clerk.ask(LOST)
    await clerk.tail.flush()
    assert [line["leftOut"] for line in mail.all] == [1]


async def test_messages_that_were_left_out_before_a_failed_send_stay_counted(mail: Mail) -> None:
    clerk = await tailed(mail, tail(per_second=20))
    assert clerk.tail is not None
    for _ in range(50):
        await clerk.ask(LOST)
    mail.away = True
    await clerk.tail.flush()
    mail.away = False
    await clerk.ask(LOST)
    await clerk.tail.flush()
    assert [line["leftOut"] for line in mail.all] == [50]


async def test_a_tail_expires_unless_it_is_renewed(mail: Mail) -> None:
    feed = TailFeed("clerk.1", mail.send)
    feed.watch(tail("_INBOX.forgotten", seconds=0.05))
    feed.watch(tail("_INBOX.renewed", seconds=0.5))
    running = asyncio.create_task(feed.run())
    deadline = time.monotonic() + 0.7
    while time.monotonic() < deadline:
        feed.watch(tail("_INBOX.renewed", seconds=0.5))
        await asyncio.sleep(0.02)
    feed.handled(LOST, time.perf_counter())
    assert not running.done()
    async with asyncio.timeout(20):
        await running
    assert set(mail.by_inbox) == {"_INBOX.renewed"}


async def test_the_number_of_tails_is_limited(mail: Mail) -> None:
    feed = TailFeed("clerk.1", mail.send)
    for number in range(MAX_TAILS):
        feed.watch(tail(f"_INBOX.{number}"))
    feed.watch(tail("_INBOX.0"))  # renews the first one
    with pytest.raises(ProtocolError) as refused:
        feed.watch(tail("_INBOX.more"))
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("inbox", ["status.plan.P001", "_INBOX.>", "_INBOX.a b", "", "$JS.API.STREAM.DELETE.STATUS"])
def test_a_tail_is_sent_to_an_inbox_only(inbox: str) -> None:
    with pytest.raises(ValueError, match="inbox"):
        tail(inbox)


async def test_an_actor_without_a_tail_takes_no_times() -> None:
    clerk = Clerk("clerk.1")
    await clerk.start()
    slow = Slow()
    clerk.tell(slow)
    await until(lambda: clerk._in_hand is not None)
    assert clerk._in_hand is not None
    assert clerk._in_hand.began == 0.0
    assert "tail" not in vars(clerk)
    slow.go.set()
    await until(lambda: clerk.handled == 1)
