"""Read the log about one examinee by an index in memory: for each examinee the sequences of the messages about them.

A proctor opens one panel after the other, and a plan's log may hold a million messages. The first request reads all of
it (13 µs of CPU a message), later ones only what is new, and then the messages about the examinee. An index takes about
10 bytes a message, so it is not kept beside the log: nothing must be written, permitted, or deleted by a purge.
"""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import first_since, read_messages
from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.plan_log import read_plan
from actors.status_log.replacements import read_replacements
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.log.entries import LogEntry, may_hold_plan_facts, read_entries
from protocol.log.version import sequence_of, version_of
from protocol.messages.plan_facts import PlanFact

IDLE_SECONDS = 6 * 3600.0
MOST_BYTES = 64 * 1024 * 1024
EXAMINEE_BYTES = 250
"""Memory of an examinee in an index, besides the sequences."""
NEWEST_MESSAGES = 2000
"""So many messages about an examinee are read at once."""
CLOCK_STEP = 2e-6
"""The times of messages are read to a microsecond."""

_NAMED = re.compile(rb'"examinee(?:Id|_id)"\s*:\s*"([A-Za-z0-9_-]{1,64})"')


@dataclass(frozen=True, slots=True)
class ExamineeLog:
    """Entries about an examinee and the plan, in order.

    `whole_from`: the version from which on they are all; 0: from the beginning. Before it there are only those about
    the plan.
    """

    entries: list[LogEntry]
    whole_from: int = 0


class _Plan:
    """The index of one plan; `shared`: the sequences of messages with facts about the plan."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.used = 0.0
        self.clear()

    def clear(self) -> None:
        self.newest = 0
        self.newest_time = 0.0
        self.messages = 0
        self.by_examinee: dict[str, array[int]] = {}
        self.shared: array[int] = array("Q")

    def take(self, stored: StoredMessage) -> None:
        if stored.sequence > self.newest:
            self.newest, self.newest_time = stored.sequence, stored.time
        for examinee_id in _named_in(stored):
            if examinee_id is None:
                self.shared.append(stored.sequence)
            else:
                self.by_examinee.setdefault(examinee_id, array("Q")).append(stored.sequence)
            self.messages += 1

    def forget(self, gone: set[int], examinee_id: str) -> None:
        """Remove messages that have expired or were deleted, so that they are not asked for again."""
        self.shared = array("Q", (sequence for sequence in self.shared if sequence not in gone))
        if (own := self.by_examinee.get(examinee_id)) is not None:
            self.by_examinee[examinee_id] = array("Q", (sequence for sequence in own if sequence not in gone))

    @property
    def bytes(self) -> int:
        return self.messages * self.shared.itemsize + len(self.by_examinee) * EXAMINEE_BYTES


def _named_in(stored: StoredMessage) -> Iterator[str | None]:
    """Yield the examinees that a message has facts about, and `None` when it has facts about the plan."""
    if b"\\" in stored.payload:  # an escape may hide any id
        entries = read_entries(stored.subject, stored.sequence, stored.time, stored.payload)
        yield from {None if isinstance(entry.fact, PlanFact) else entry.fact.examinee_id for entry in entries}
        return
    if may_hold_plan_facts(stored.payload):
        yield None
    yield from {name.decode() for name in _NAMED.findall(stored.payload)}


class PlanLogCache:
    """The indexes of the plans that were looked at in the last `IDLE_SECONDS`, in at most `most_bytes`.

    Example::

        cache = PlanLogCache(bus)
        log = await cache.read("P001", "E001")
    """

    def __init__(self, bus: Bus, *, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._most_bytes = most_bytes
        self._clock = clock
        self._plans: OrderedDict[str, _Plan] = OrderedDict()

    async def read(
        self, plan_id: str, examinee_id: str, before: int | None = None, *, newest: int = NEWEST_MESSAGES
    ) -> ExamineeLog:
        """Return the entries about an examinee and the plan up to now, or before the version `before`.

        Of the messages about the examinee only the `newest` are read. Raises `BrokerUnavailable`, `NotPermitted`.
        """
        plan = self._plans.setdefault(plan_id, _Plan())
        self._plans.move_to_end(plan_id)
        async with plan.lock:  # concurrent requests share the reading
            await self._update(plan_id, plan)
            plan.used = self._clock()
            own, shared = plan.by_examinee.get(examinee_id, array("Q")), plan.shared
            last = sequence_of(before) if before is not None else plan.newest
            own, shared = own[: bisect_right(own, last)], shared[: bisect_right(shared, last)]
        self.tidy()
        whole_from = version_of(own[-newest]) if len(own) > newest else 0
        sequences = sorted({*own[-newest:], *shared})
        messages = await self._messages(plan_id, sequences)
        if len(messages) < len(sequences):
            plan.forget({*sequences} - {stored.sequence for stored in messages}, examinee_id)
        entries = [
            entry
            for stored in messages
            for entry in read_entries(stored.subject, stored.sequence, stored.time, stored.payload)
            if (before is None or entry.version < before)
            and (isinstance(entry.fact, PlanFact) or (entry.examinee_id == examinee_id and entry.version >= whole_from))
        ]
        return ExamineeLog(entries, whole_from)

    async def _update(self, plan_id: str, plan: _Plan) -> None:
        """Add what is new in the log to an index; make it anew when the log was set back meanwhile."""
        if plan.newest:
            later = plan.newest_time + CLOCK_STEP
            following = await first_since(self._bus, STATUS.name, subjects.status_of_plan(plan_id)[1], later)
            if following is not None and following.sequence <= plan.newest:
                plan.clear()
        async for stored in read_plan(self._bus, plan_id, plan.newest + 1):
            plan.take(stored)

    async def _messages(self, plan_id: str, sequences: Sequence[int]) -> list[StoredMessage]:
        """Return the messages of the plan at these sequences, with the copies in their places."""
        copies = {copy.sequence: copy for copy in await read_replacements(self._bus, plan_id)}
        found = await read_messages(self._bus, STATUS.name, [place for place in sequences if place not in copies])
        # A log that was set back may have a message of another plan at a sequence of this one.
        patterns = subjects.status_of_plan(plan_id)
        stored = {
            message.sequence: message
            for message in [*found, *copies.values()]
            if any(subjects.matches(pattern, message.subject) for pattern in patterns)
        }
        return [stored[place] for place in sequences if place in stored]

    def tidy(self) -> None:
        """Drop plans that are unused for too long, or exceed the limit, the least recently used first."""
        oldest = self._clock() - IDLE_SECONDS
        for plan_id, plan in list(self._plans.items()):
            if not plan.lock.locked() and (self.size > self._most_bytes or plan.used < oldest):
                del self._plans[plan_id]

    @property
    def size(self) -> int:
        """The approximate bytes of memory in use."""
        return sum(plan.bytes for plan in self._plans.values())
