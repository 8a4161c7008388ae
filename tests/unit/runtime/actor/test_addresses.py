"""The address book: into the mailbox of an actor of this process, else over NATS. The bus is a fake."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.addresses import AddressBook
from actors.runtime.actor.mailbox import MailboxFull
from actors.runtime.broker.connection import Bus, Outgoing, PubAck
from protocol.errors import BrokerUnavailable, ErrorCode, ProtocolError
from protocol.messages.base import Message
from protocol.messages.codec import Codec, encode
from protocol.messages.frames import Error, error_frame
from tests.unit.support.waiting import until


class Greeting(Message):
    type: ClassVar[str] = "greeting"
    text: str = ""


class Answer(Message):
    type: ClassVar[str] = "answer"
    text: str


ANSWERS = Codec.of((Answer, Error))


@dataclass(frozen=True)
class Wait:
    go: asyncio.Event


class Greeter(Actor):
    kind = "greeter"
    mailbox_capacity = 2

    def __init__(self, address: str = "socket.plan.P001.examinee.E001") -> None:
        super().__init__(address)
        self.heard: list[str] = []

    @on(Greeting)
    def greet(self, greeting: Greeting) -> Answer | ProtocolError:
        self.heard.append(greeting.text)
        if greeting.text == "bad":
            return ProtocolError(ErrorCode.NOT_ALLOWED, "not so")
        return Answer(text=greeting.text.upper())

    @on(Wait)
    async def wait(self, message: Wait) -> None:
        await message.go.wait()


class MemoryBus(Bus):
    """Collects what is published; answers a request with `answer`."""

    def __init__(self) -> None:
        self.stored: list[Outgoing] = []
        self.sent: list[tuple[str, bytes]] = []
        self.answer_with: Message = Answer(text="from afar")
        self.away = False

    async def publish(self, message: Outgoing, timeout: float = 5.0) -> PubAck:
        if self.away:
            raise BrokerUnavailable("away")
        self.stored.append(message)
        return PubAck("STATUS", 1)

    async def publish_core(self, subject: str, payload: bytes, reply: str = "") -> None:
        self.sent.append((subject, payload))

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 5.0) -> bytes:
        self.sent.append((subject, payload))
        return encode(self.answer_with)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


async def greeter_in(actors: AddressBook) -> Greeter:
    greeter = Greeter()
    await greeter.start()
    actors.add(greeter)
    return greeter


async def test_an_actor_of_this_process_is_told_and_asked_through_its_mailbox(bus: MemoryBus) -> None:
    actors = AddressBook(bus)
    greeter = await greeter_in(actors)
    await actors.tell(greeter.address, Greeting(text="hello"))
    assert await actors.ask(greeter.address, Greeting(text="again"), answers=ANSWERS) == Answer(text="AGAIN")
    assert greeter.heard == ["hello", "again"]
    assert (bus.stored, bus.sent) == ([], [])


async def test_a_message_for_another_process_is_stored_by_the_stream_of_its_subject(bus: MemoryBus) -> None:
    await AddressBook(bus).tell("status.server.SOCK001", Greeting(text="hello"), message_id="hello:1")
    (message,) = bus.stored
    assert (message.subject, message.message_id) == ("status.server.SOCK001", "hello:1")
    assert json.loads(message.payload) == {"type": "greeting", "data": {"text": "hello"}}


async def test_a_message_on_a_subject_that_no_stream_stores_is_sent_once(bus: MemoryBus) -> None:
    await AddressBook(bus).tell("session.P001.E001", Greeting(text="hello"))
    assert bus.sent == [("session.P001.E001", encode(Greeting(text="hello")))]
    assert bus.stored == []


async def test_a_message_that_could_not_be_stored_is_the_senders_to_tell_again(bus: MemoryBus) -> None:
    bus.away = True
    with pytest.raises(BrokerUnavailable):
        await AddressBook(bus).tell("status.server.SOCK001", Greeting())


async def test_an_actor_of_another_process_is_asked_over_nats(bus: MemoryBus) -> None:
    assert await AddressBook(bus).ask("queue.create", Greeting(), answers=ANSWERS) == Answer(text="from afar")
    assert bus.sent == [("queue.create", encode(Greeting()))]


async def test_a_refusal_is_raised_wherever_the_actor_is(bus: MemoryBus) -> None:
    actors = AddressBook(bus)
    greeter = await greeter_in(actors)
    with pytest.raises(ProtocolError, match="not so"):
        await actors.ask(greeter.address, Greeting(text="bad"), answers=ANSWERS)
    bus.answer_with = error_frame(ProtocolError(ErrorCode.NOT_ALLOWED, "not so", "data.text"), "greeting")
    with pytest.raises(ProtocolError, match="not so") as refused:
        await actors.ask("queue.create", Greeting(), answers=ANSWERS)
    assert (refused.value.code, refused.value.field) == (ErrorCode.NOT_ALLOWED, "data.text")


async def test_a_full_mailbox_is_the_senders_to_decide_on_and_holds_up_nobody(bus: MemoryBus) -> None:
    actors = AddressBook(bus)
    greeter = await greeter_in(actors)
    go = asyncio.Event()
    greeter.tell(Wait(go))
    await until(lambda: not len(greeter.mailbox))
    await actors.tell(greeter.address, Greeting(text="1"))
    await actors.tell(greeter.address, Greeting(text="2"))
    async with asyncio.timeout(1):
        with pytest.raises(MailboxFull):
            await actors.tell(greeter.address, Greeting(text="3"))
    go.set()
    await until(lambda: greeter.heard == ["1", "2"])


async def test_the_newest_actor_has_the_address_and_an_older_one_does_not_take_it_away(bus: MemoryBus) -> None:
    actors = AddressBook(bus)
    older = await greeter_in(actors)
    newer = await greeter_in(actors)
    actors.remove(older)
    assert actors.local(newer.address) is newer
    actors.remove(newer)
    assert actors.local(newer.address) is None


async def test_an_actor_that_has_stopped_is_not_at_its_address(bus: MemoryBus) -> None:
    actors = AddressBook(bus)
    greeter = await greeter_in(actors)
    await greeter.stop()
    assert actors.local(greeter.address) is None
    await actors.tell(greeter.address, Greeting(text="hello"))
    assert [message.subject for message in bus.stored] == [greeter.address]


async def test_an_actor_may_have_more_than_one_address(bus: MemoryBus) -> None:
    actors = AddressBook(bus)
    greeter = await greeter_in(actors)
    actors.add(greeter, "session.P001.E001")
    await actors.ask("session.P001.E001", Greeting(text="hello"), answers=ANSWERS)
    assert greeter.heard == ["hello"]
