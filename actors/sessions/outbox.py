"""The outbox of a socket server: its statuses in order, each stored in STATUS before the next of its plan goes out.

Whatever is ready together travels together; a lone status does not wait. Cut off from NATS it just grows, by at most
a few statuses a session, since no new client is let in meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.telemetry import spans
from actors.runtime.token_bucket import TokenBucket
from protocol.broker import subjects
from protocol.messages.codec import encode, join_batch, split_batches
from protocol.messages.facts import ActionFact, ExamineeFact

ROUND = 2048
ROUNDS_PER_SECOND = 250


class Outbox:
    """`add` never blocks; `run` publishes until it is cancelled. `stored_at` is told sequences that STATUS has got.

    `clock`: by which facts are given their times.
    """

    def __init__(
        self,
        bus: Bus,
        server_id: str,
        incarnation: str,
        stored_at: Callable[[int], None] = lambda _sequence: None,
    ) -> None:
        self._bus = bus
        self.clock = bus.clock
        self._incarnation = f"{server_id}-{incarnation}"
        self._of_sockets, self._of_people = subjects.socket_origin(server_id), subjects.people_origin(server_id)
        self._stored_at = stored_at
        self._waiting: deque[tuple[str, bytes, asyncio.Future[None] | None, str | None]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_hand: list[Outgoing] = []
        self._in_hand_futures: list[asyncio.Future[None]] = []
        self._pace = TokenBucket(ROUNDS_PER_SECOND, burst=20)
        self._number = 0
        self.stored = 0
        self.publishing_since: float | None = None
        """Since when (`time.monotonic`) nothing of the round that is in hand was stored."""

    def __len__(self) -> int:
        """Statuses that are not known to be stored (a payload in hand counts as one)."""
        return len(self._waiting) + len(self._in_hand)

    def add(self, fact: ExamineeFact) -> None:
        """Queue a status."""
        self._add(fact, None)

    async def store(self, fact: ExamineeFact, message_id: str | None = None) -> None:
        """Queue a status and wait until it is durably in the log.

        With a `message_id` it travels alone, and is in the log once however often and by whomever it is stored.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(fact, stored, message_id)
        await stored

    def _add(self, fact: ExamineeFact, stored: asyncio.Future[None] | None, message_id: str | None = None) -> None:
        if (span := spans.start_publish(fact)) is not None:
            stored = stored or asyncio.get_running_loop().create_future()
            stored.add_done_callback(lambda _: span.end())
        origin = self._of_people if isinstance(fact, ActionFact) else self._of_sockets
        self._waiting.append((subjects.status_plan(fact.plan_id, origin), encode(fact), stored, message_id))
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """One round at a time: the order of an examinee's statuses is the order in the log."""
        while True:
            while self._in_hand or self._waiting:
                if not self._in_hand:
                    self._take()
                # Kept until stored, under the same message ids: whoever runs this next goes on with it.
                for messages in _one_of_each_subject(self._in_hand):
                    acks = await self._bus.publish_until_stored(messages)
                    self.publishing_since = time.monotonic()
                    self._stored_at(max(ack.sequence for ack in acks))
                self._settle()
                await self._pace.wait()
            self._idle.set()
            await self._wake.wait()
            self._wake.clear()

    def _take(self) -> None:
        self.publishing_since = time.monotonic()
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), ROUND))]
        by_subject: dict[str, list[bytes]] = {}
        for subject, encoded, _, message_id in taken:
            if message_id is None:
                by_subject.setdefault(subject, []).append(encoded)
                continue
            self._take_together(subject, by_subject.pop(subject, []))
            self._in_hand.append(Outgoing(subject, encoded, message_id, spans.header([encoded])))
        for subject, encoded_facts in by_subject.items():
            self._take_together(subject, encoded_facts)
        self._in_hand_futures = [stored for _, _, stored, _ in taken if stored is not None]
        self.stored += len(taken)

    def _take_together(self, subject: str, encoded_facts: list[bytes]) -> None:
        for cut in split_batches([len(one) for one in encoded_facts]):
            self._number += 1
            message_id = f"{self._incarnation}:{self._number}"
            payload, headers = join_batch(encoded_facts[cut]), spans.header(encoded_facts[cut])
            self._in_hand.append(Outgoing(subject, payload, message_id, headers))

    def _settle(self) -> None:
        self.publishing_since = None
        self._in_hand = []
        for stored in self._in_hand_futures:
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
    """The messages in groups, to be stored one after the other: none is retried behind a later one of its subject."""
    groups: list[list[Outgoing]] = []
    count: dict[str, int] = {}
    for message in messages:
        number = count[message.subject] = count.get(message.subject, 0) + 1
        if number > len(groups):
            groups.append([])
        groups[number - 1].append(message)
    return groups
