"""Cache the log of the plans that proctors look at, by examinee.

A proctor opens one panel after the other. Reading the plan's whole log each time costs about 0.8 s of CPU for 40,000
facts; with the cache only new messages are read. Payloads are cached encoded, and decoded for one examinee at a time.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.plan_log import read_plan
from protocol.log.entries import LogEntry, may_hold_plan_facts, read_entries

PLANS_KEPT = 4
IDLE_SECONDS = 600.0
MOST_BYTES = 96 * 1024 * 1024
OVERHEAD_BYTES = 400
"""Memory of each message besides its payload."""

_NAMED = re.compile(rb'"examineeId"\s*:\s*"([A-Za-z0-9_-]{1,64})"')


class _Plan:
    """One plan's messages by examinee; `shared`: those about the plan, or with an escape, which may hide any id."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.next = 1
        self.size = 0
        self.used = 0.0
        self.by_examinee: defaultdict[str, list[StoredMessage]] = defaultdict(list)
        self.shared: list[StoredMessage] = []

    def take(self, stored: StoredMessage) -> None:
        self.next = stored.sequence + 1
        self.size += len(stored.payload) + OVERHEAD_BYTES
        if may_hold_plan_facts(stored.payload):
            self.shared.append(stored)
            return
        for examinee_id in {name.decode() for name in _NAMED.findall(stored.payload)}:
            self.by_examinee[examinee_id].append(stored)

    def about(self, examinee_id: str) -> list[StoredMessage]:
        return sorted([*self.by_examinee.get(examinee_id, ()), *self.shared], key=lambda stored: stored.sequence)


class PlanLogCache:
    """A cache of at most `PLANS_KEPT` plans and `most_bytes`; plans unused for `IDLE_SECONDS` are dropped.

    Example::

        cache = PlanLogCache(bus)
        entries = await cache.entries("P001", "E001")
    """

    def __init__(self, bus: Bus, *, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._most_bytes = most_bytes
        self._clock = clock
        self._plans: OrderedDict[str, _Plan] = OrderedDict()

    async def entries(self, plan_id: str, examinee_id: str) -> list[LogEntry]:
        """Return all log entries of an examinee and of the plan up to now, in order.

        Raises `BrokerUnavailable`, `NotPermitted`.
        """
        plan = self._plans.setdefault(plan_id, _Plan())
        self._plans.move_to_end(plan_id)
        async with plan.lock:  # concurrent requests share the reading
            async for stored in read_plan(self._bus, plan_id, plan.next):
                plan.take(stored)
            plan.used = self._clock()
        self.tidy()
        return [
            entry
            for stored in plan.about(examinee_id)
            for entry in read_entries(stored.subject, stored.sequence, stored.time, stored.payload)
            if entry.needed_for(examinee_id)
        ]

    def tidy(self) -> None:
        """Drop plans that are unused for too long, or exceed the limits, the least recently used first."""
        oldest = self._clock() - IDLE_SECONDS
        for plan_id, plan in list(self._plans.items()):
            crowded = len(self._plans) > PLANS_KEPT or self.size > self._most_bytes
            if not plan.lock.locked() and (crowded or plan.used < oldest):
                del self._plans[plan_id]

    @property
    def size(self) -> int:
        """The approximate bytes of memory in use."""
        return sum(plan.size for plan in self._plans.values())
