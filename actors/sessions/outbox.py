"""The outbox of a socket server: its facts, stored in STATUS in the order in which they were added.

Facts that wait together are published together; a lone fact is published at once. While NATS is away the outbox grows,
by at most a few facts for each session: the server lets nobody in meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.telemetry import spans
from actors.runtime.token_bucket import TokenBucket
from protocol.broker import subjects
from protocol.messages.codec import encode, join_batch, split_batches
from protocol.messages.facts import ActionFact, ExamineeFact, ExamineeFinish, FinishReason, HelpClose
from protocol.messages.plan_facts import PlanFact

ROUND = 2048
"""At most so many facts are published together."""

ROUNDS_PER_SECOND = 100
ROUNDS_AT_ONCE = 10


class _Waiting(NamedTuple):
    subject: str
    encoded: bytes
    stored: asyncio.Future[None] | None
    message_id: str | None


class Outbox:
    """Queues facts without blocking, and publishes them until each is stored.

    outbox = Outbox(bus, "SOCK001", incarnation)
    outbox.add(status)  # while `outbox.run()` is a task
    await outbox.store(action, message_id)  # returns when the action is in the log
    """

    def __init__(self, bus: Bus, server_id: str, incarnation: str) -> None:
        self._bus = bus
        self.clock = bus.clock
        """The clock by which facts are given their times."""
        self._incarnation = f"{server_id}-{incarnation}"
        self._of_sockets, self._of_people = subjects.socket_origin(server_id), subjects.people_origin(server_id)
        self._waiting: deque[_Waiting] = deque()
        self._added = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._publishing: list[Outgoing] = []
        self._publishing_futures: list[asyncio.Future[None]] = []
        self._throttle = TokenBucket(ROUNDS_PER_SECOND, burst=ROUNDS_AT_ONCE)
        self._payload_no = 0
        self.stored = 0
        """The number of facts that were taken from the queue to be stored."""
        self.last_sequence = 0
        """The highest sequence of STATUS that an ack has named."""
        self.publishing_since: float | None = None
        """Since when (`time.monotonic`) no message of the round that is being published was stored."""

    def __len__(self) -> int:
        """The facts that are not known to be stored (a payload that is being published counts as one)."""
        return len(self._waiting) + len(self._publishing)

    def add(self, fact: ExamineeFact | PlanFact) -> None:
        """Queue a fact."""
        self._add(fact, None)

    def add_encoded(self, plan_id: str, status: bytes) -> None:
        """Queue the encoded status of a socket; it is part of no trace."""
        self._queue(plan_id, self._of_sockets, status)

    async def store(self, fact: ExamineeFact | PlanFact, message_id: str | None = None) -> None:
        """Queue a fact and wait until it is durably in the log.

        With a `message_id` it is published alone, and is in the log once, however often and by whomever it is stored.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(fact, stored, message_id)
        await stored

    def _add(
        self, fact: ExamineeFact | PlanFact, stored: asyncio.Future[None] | None, message_id: str | None = None
    ) -> None:
        if (span := spans.start_publish(fact)) is not None:
            stored = stored or asyncio.get_running_loop().create_future()
            stored.add_done_callback(lambda _: span.end())
        # What an examinee says goes with their socket, so that handing in comes before the end of the socket.
        of_examinee = (isinstance(fact, ExamineeFinish) and fact.reason is FinishReason.HANDED_IN) or (
            isinstance(fact, HelpClose) and fact.by == fact.examinee_id
        )
        of_people = isinstance(fact, ActionFact | PlanFact) and not of_examinee
        origin = self._of_people if of_people else self._of_sockets
        self._queue(fact.plan_id, origin, encode(fact), stored, message_id)

    def _queue(
        self,
        plan_id: str,
        origin: str,
        encoded: bytes,
        stored: asyncio.Future[None] | None = None,
        message_id: str | None = None,
    ) -> None:
        self._waiting.append(_Waiting(subjects.status_plan(plan_id, origin), encoded, stored, message_id))
        self._idle.clear()
        self._added.set()

    async def run(self) -> None:
        """Publish until cancelled, one round at a time: the log has an examinee's facts in the order of `add`.

        A round that was cancelled is published by the next `run`, under the same message ids.
        """
        while True:
            while self._publishing or self._waiting:
                if not self._publishing:
                    self._take_round()
                for messages in _one_of_each_subject(self._publishing):
                    acks = await self._bus.publish_until_stored(messages)
                    self.publishing_since = time.monotonic()
                    self.last_sequence = max(self.last_sequence, *(ack.sequence for ack in acks))
                self._finish_round()
                await self._throttle.wait()
            self._idle.set()
            await self._added.wait()
            self._added.clear()

    def _take_round(self) -> None:
        self.publishing_since = time.monotonic()
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), ROUND))]
        by_subject: dict[str, list[bytes]] = {}
        for subject, encoded, _, message_id in taken:
            if message_id is None:
                by_subject.setdefault(subject, []).append(encoded)
                continue
            self._add_payloads(subject, by_subject.pop(subject, []))
            self._publishing.append(Outgoing(subject, encoded, message_id, spans.header([encoded])))
        for subject, encoded_facts in by_subject.items():
            self._add_payloads(subject, encoded_facts)
        self._publishing_futures = [waiting.stored for waiting in taken if waiting.stored is not None]
        self.stored += len(taken)

    def _add_payloads(self, subject: str, encoded_facts: list[bytes]) -> None:
        for cut in split_batches([len(encoded) for encoded in encoded_facts]):
            self._payload_no += 1
            message_id = f"{self._incarnation}:{self._payload_no}"
            payload, headers = join_batch(encoded_facts[cut]), spans.header(encoded_facts[cut])
            self._publishing.append(Outgoing(subject, payload, message_id, headers))

    def _finish_round(self) -> None:
        self.publishing_since = None
        self._publishing = []
        for stored in self._publishing_futures:
            if not stored.done():
                stored.set_result(None)

    async def flush(self, timeout: float) -> bool:
        """Wait until everything is stored; False when it was not within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def _one_of_each_subject(messages: Sequence[Outgoing]) -> list[list[Outgoing]]:
    """Group messages so that no group has two of one subject: a retry never falls behind a later message."""
    groups: list[list[Outgoing]] = []
    count: dict[str, int] = {}
    for message in messages:
        number = count[message.subject] = count.get(message.subject, 0) + 1
        if number > len(groups):
            groups.append([])
        groups[number - 1].append(message)
    return groups
