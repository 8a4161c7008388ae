"""STATUS and the other streams for the state managers, in memory; every access is a step."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from actors.runtime.broker.clock import BrokerClock
from actors.runtime.broker.connection import Bus, Outgoing, Sent
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.publisher import PubAck
from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.telemetry.progress import no_progress
from actors.status_log import status_log
from actors.status_log.status_log import DeadLettered, LogExtent, StatusLog, apply_server_facts
from protocol.broker import subjects
from protocol.client.plan_view import PlanView
from protocol.errors import BrokerUnavailable
from protocol.log.partitions import part_of
from protocol.log.version import version_of
from protocol.messages.base import Message
from protocol.messages.codec import Malformed, encode_batches
from protocol.messages.facts import STATUS_CODEC
from protocol.messages.proctor_events import Event
from protocol.messages.session_messages import SOCKET_CODEC
from protocol.rules.socket_server import ServerState
from tests.unit.support.fact_logs import Log
from tests.unit.support.stepped_loop import pause


class Broker:
    """STATUS with its deliveries, and what was published on the other streams.

    `holders`: for each delivered message the batch of the manager that reads its partition.
    """

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.subjects: list[str] = []
        self.ids: set[str] = set()
        self.undelivered: list[int] = []
        self.expired: set[int] = set()
        self.unacknowledged: set[int] = set()
        self.left: set[int] = set()
        self.holders: dict[int, object] = {}
        self.proctors = PlanView()
        self.on_event: Callable[[Event], None] | None = None
        """Called with each event before proctors see it."""
        self.to_servers: list[Message] = []
        self.reconnects: dict[str, bytes] = {}
        self.timers: dict[str, bytes] = {}
        self.dead: list[bytes] = []
        self.clock = BrokerClock("memory", self._nobody)  # this machine's, until somebody answers

    async def _nobody(self, subject: str, _seconds: float) -> bytes:
        raise AssertionError(f"nobody answers on {subject}")

    def publish_now(self, message: Outgoing) -> None:
        """Store a message, unless its id is known."""
        if message.message_id is not None:
            if message.message_id in self.ids:
                return
            self.ids.add(message.message_id)
        match message.subject.split("."):
            case ["status", "timer", *_]:
                self.timers[message.subject] = message.payload
            case ["status", *_]:
                self.payloads.append(message.payload)
                self.subjects.append(message.subject)
                self.undelivered.append(len(self.payloads))
                self.unacknowledged.add(len(self.payloads))
            case ["reconnect", *_]:
                self.reconnects[message.subject] = message.payload
            case ["deadletter", *_]:
                self.dead.append(message.payload)
            case ["socket", "plan", _, "proctors"]:
                for event in _decoded(message.payload):
                    if self.on_event is not None and isinstance(event, Event):
                        self.on_event(event)
                    self.proctors.apply(event)
            case ["socket", *_]:
                self.to_servers.extend(_decoded(message.payload))
            case _:
                raise AssertionError(f"nobody listens on {message.subject}")

    def delivery(self, sequence: int) -> Delivery:
        """A message of the log as a consumer hands it out."""
        subject, payload = self.subjects[sequence - 1], self.payloads[sequence - 1]
        return Delivery(subject, payload, {}, sequence, 1, 0, self.clock.now(), str(sequence), self._settle, set())

    async def _settle(self, sequences: Sequence[str], verdict: bytes) -> None:
        assert verdict == b"+ACK"
        for sequence in sequences:
            await pause()
            self.acknowledge(int(sequence))

    def acknowledge(self, sequence: int) -> None:
        self.unacknowledged.discard(sequence)
        self.expired.discard(sequence)

    def leave(self, sequence: int) -> None:
        """A manager leaves a message to a newer one: it comes again some time, and stays unacknowledged."""
        self.left.add(sequence)
        self.expired.discard(sequence)

    @property
    def acknowledged_up_to(self) -> int:
        """The sequence up to which everything is acknowledged."""
        return min(self.unacknowledged) - 1 if self.unacknowledged else len(self.payloads)


class MemoryBus(Bus):
    """The connection of one process: what it sends is on its way until it is settled, and may be lost with it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.clock = broker.clock
        self.progress = no_progress
        self._wire: deque[tuple[int, Sent]] = deque()

    async def send(self, messages: Sequence[Outgoing]) -> Sent:
        sent = Sent(messages, 0)
        for number in range(len(messages)):
            await pause()
            self._wire.append((number, sent))
        return sent

    async def settle(self, sent: Sent) -> list[Outgoing]:
        while sent.missing:
            await pause()
            self._arrive()
        return [
            message
            for message, answer in zip(sent.messages, sent.answers, strict=True)
            if isinstance(answer, BrokerUnavailable)
        ]

    async def publish_until_stored(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        missing = list(messages)
        while missing:
            missing = await self.settle(await self.send(missing))
        return [PubAck("memory", 0) for _ in messages]

    async def publish_in_batches(self, messages: Sequence[Outgoing]) -> None:
        await self.publish_until_stored(messages)

    async def stream_subjects(self, name: str, pattern: str) -> list[str]:
        """No socket server lives here."""
        await pause()
        return []

    async def message_at(self, stream: str, sequence: int) -> StoredMessage | None:
        await pause()
        return StoredMessage(self.broker.subjects[sequence - 1], sequence, self.broker.payloads[sequence - 1], {})

    def _arrive(self) -> None:
        if self._wire:
            number, sent = self._wire.popleft()
            self.broker.publish_now(sent.messages[number])
            sent.answer(number, b"{}")

    def break_off(self) -> None:
        """Lose what is on its way; the process learns of it."""
        for number, sent in self._wire:
            sent.answer(number, BrokerUnavailable("the connection broke"))
        self._wire.clear()

    def disconnect(self, *, arrives: bool) -> None:
        """The process has died: what is on its way arrives all the same, or does not."""
        for number, sent in self._wire if arrives else ():
            self.broker.publish_now(sent.messages[number])
        self._wire.clear()


def _decoded(payload: bytes) -> list[Message]:
    decoded = SOCKET_CODEC.decode_batch(payload)
    assert all(isinstance(message, Message) for message in decoded), decoded
    return [message for message in decoded if isinstance(message, Message)]


class MemoryLog(StatusLog):
    """The log of a broker in memory."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def now(self) -> float:
        return self._broker.clock.now()

    async def extent(self) -> LogExtent:
        await pause()
        acknowledged = self._broker.acknowledged_up_to
        await pause()
        last = len(self._broker.payloads)
        delivered = min(self._broker.undelivered) - 1 if self._broker.undelivered else last
        return LogExtent(1, last, acknowledged, delivered)

    async def read(self, first: int, last: int, plan_id: str | None = None) -> AsyncIterator[StoredMessage]:
        for sequence in range(first, last + 1):
            if sequence % 4 == 1:
                await pause()
            subject = self._broker.subjects[sequence - 1]
            if plan_id is None or subject.split(".")[1:3] == ["plan", plan_id]:
                yield StoredMessage(subject, sequence, self._broker.payloads[sequence - 1], {})

    async def read_part(self, part: str, first: int, last: int) -> AsyncIterator[StoredMessage]:
        async for stored in self.read(first, last):
            kind, named = stored.subject.split(".")[1:3]
            if part_of(named if kind == "plan" else None) == part:
                yield stored

    async def plans(self, part: str, first: int = 0, last: int = 0) -> list[str]:
        await pause()
        newest = [
            subject.split(".")[2]
            for subject in reversed(self._broker.subjects[: last or None])
            if subject.startswith("status.plan.")
        ]
        return [plan_id for plan_id in dict.fromkeys(newest) if part_of(plan_id) == part]

    async def holds_all_since(self, sequence: int) -> bool:
        await pause()
        return True

    async def dead_lettered(self) -> DeadLettered:
        await pause()
        return DeadLettered.by(self._broker.dead)

    async def purged_up_to(self, plan_id: str) -> int:
        address = subjects.status_plan(plan_id, subjects.PURGE)
        places = [number for number, subject in enumerate(self._broker.subjects, 1) if subject == address]
        return version_of(places[-1]) if places else 0

    async def server(self, server_id: str) -> ServerState:
        state = ServerState()
        async for stored in self.read(1, len(self._broker.payloads)):
            if stored.subject == subjects.status_server(server_id):
                state = apply_server_facts(state, status_log.facts_of(stored))
        return state


def facts_of(broker: Broker, sequence: int) -> Log:
    """The facts of a message of the log with their versions."""
    decoded = _decoded_status(broker.payloads[sequence - 1])
    return [
        (version_of(sequence, index), message) for index, message in enumerate(decoded) if isinstance(message, Message)
    ]


@functools.cache  # the same few payloads are looked at again and again
def _decoded_status(payload: bytes) -> list[Message | Malformed]:
    return STATUS_CODEC.decode_batch(payload)


def publish(broker: Broker, facts: Sequence[Message], subject: str) -> None:
    """What a socket server or a web server does: facts into the log, those that are ready together together."""
    for payload in encode_batches(facts):
        broker.publish_now(Outgoing(subject, payload))
