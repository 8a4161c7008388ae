"""The address book: tell or ask the actor at an address, in this process or in another one.

    actors = AddressBook(bus)
    actors.add(session)  # from now on messages for `session.address` go into its mailbox

    await actors.tell(subjects.status_server("SOCK001"), lost, message_id="lost:1")
    created = await actors.ask(subjects.QUEUE_CREATE, request, answers=Codec.of((QueueCreated, Error)))

An address is a NATS subject. The actor that this book has at the address gets the message into its mailbox; otherwise
it is published on that subject: with the ack of the stream that stores the subject, if there is one.

An actor that passes on what came from the stream of an address uses `local`: `tell` would store it there once more.

Nobody waits for room in a mailbox. A full one raises `MailboxFull` at the sender, which decides what that means: a
socket server closes the session that does not keep up, and goes on with the others.
"""

from __future__ import annotations

from typing import Any

from actors.runtime.actor.actor import Actor
from actors.runtime.broker.connection import Bus, Outgoing
from protocol.broker import subjects
from protocol.broker.streams import STREAMS
from protocol.errors import ProtocolError
from protocol.messages.base import Message
from protocol.messages.codec import Codec, encode
from protocol.messages.frames import Error


class AddressBook:
    """Knows the actors of this process that were added, and reaches all others over NATS."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._actors: dict[str, Actor] = {}

    def add(self, actor: Actor, address: str | None = None) -> None:
        """Have messages for `address` (default: the actor's own) go into its mailbox. The newest actor counts."""
        self._actors[address or actor.address] = actor

    def remove(self, actor: Actor, address: str | None = None) -> None:
        """Forget the actor at `address`; harmless when another one has taken the address since."""
        if self._actors.get(address or actor.address) is actor:
            del self._actors[address or actor.address]

    def local(self, address: str) -> Actor | None:
        """Return the running actor at `address` in this process."""
        actor = self._actors.get(address)
        return actor if actor is not None and actor.running else None

    async def tell(self, address: str, message: Message, *, message_id: str | None = None) -> None:
        """Send a message. When it returns, it is in the mailbox, or stored if a stream has the subject.

        `message_id`: a second message with the same one is not stored (within the stream's duplicate window).
        Raises `MailboxFull`, `BrokerUnavailable` (it may not have arrived: tell it again with the same id), or
        `NotPermitted`.
        """
        if (actor := self.local(address)) is not None:
            actor.tell(message)
        elif _stored(address):
            await self._bus.publish(Outgoing.of(address, message, message_id=message_id))
        else:
            await self._bus.publish_core(address, encode(message))

    async def ask(self, address: str, message: Message, *, answers: Codec, timeout: float = 5.0) -> Any:
        """Send a message and wait for the answer: what the handler returns, decoded by `answers` if it came by NATS.

        Raises `ProtocolError` when the answer is an error frame, `NoResponders` when nobody is at the address,
        `BrokerUnavailable`, `MailboxFull`, `ActorStopped`, or `TimeoutError`.
        """
        if (actor := self.local(address)) is not None:
            answer = await actor.ask(message, timeout)
        else:
            answer = answers.decode_one(await self._bus.request(address, encode(message), timeout))
        if isinstance(answer, ProtocolError):
            raise answer
        if isinstance(answer, Error):
            raise ProtocolError(answer.code, answer.message, answer.field)
        return answer


def _stored(subject: str) -> bool:
    """Return whether a stream stores what is published on this subject."""
    return any(subjects.matches(pattern, subject) for stream in STREAMS for pattern in stream.subjects)
