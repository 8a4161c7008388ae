"""What the log says of each examinee of the plans that proctors look at, kept and carried on.

A proctor opens one panel after the other. Going through the plan's whole log each time costs about 0.8 s of CPU for
40,000 facts; from here only what is new is read. Payloads are kept as they came, and decoded for who is asked about.
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
from protocol.log.entries import LogEntry, read_entries

PLANS_KEPT = 4
IDLE_SECONDS = 600.0
MOST_BYTES = 96 * 1024 * 1024
OVERHEAD_BYTES = 400
"""Of each message besides its payload."""

_NAMED = re.compile(rb'"examineeId"\s*:\s*"([A-Za-z0-9_-]{1,64})"')


class _Plan:
    """One plan's messages by examinee; `unclear` are those with an escape, in which anybody's id might hide."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.next = 1
        self.size = 0
        self.used = 0.0
        self.of: defaultdict[str, list[StoredMessage]] = defaultdict(list)
        self.unclear: list[StoredMessage] = []

    def take(self, stored: StoredMessage) -> None:
        self.next = stored.sequence + 1
        self.size += len(stored.payload) + OVERHEAD_BYTES
        if b"\\" in stored.payload:
            self.unclear.append(stored)
            return
        for name in {found.decode() for found in _NAMED.findall(stored.payload)}:
            self.of[name].append(stored)

    def about(self, examinee_id: str) -> list[StoredMessage]:
        return sorted([*self.of.get(examinee_id, ()), *self.unclear], key=lambda stored: stored.sequence)


class PlanLogCache:
    """At most `PLANS_KEPT` plans and `most_bytes` in all; what nobody asked for in `IDLE_SECONDS` is forgotten."""

    def __init__(self, bus: Bus, *, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._most_bytes = most_bytes
        self._clock = clock
        self._plans: OrderedDict[str, _Plan] = OrderedDict()

    async def entries(self, plan_id: str, examinee_id: str) -> list[LogEntry]:
        """All that the log says of an examinee up to now, in order. Raises `BrokerUnavailable`, `NotPermitted`."""
        plan = self._plans.setdefault(plan_id, _Plan())
        self._plans.move_to_end(plan_id)
        async with plan.lock:  # who asks at the same time shares the reading
            async for stored in read_plan(self._bus, plan_id, plan.next):
                plan.take(stored)
            plan.used = self._clock()
        self.tidy()
        return [
            entry
            for stored in plan.about(examinee_id)
            for entry in read_entries(stored.subject, stored.sequence, stored.time, stored.payload)
            if entry.fact.examinee_id == examinee_id
        ]

    def tidy(self) -> None:
        """Forget what is too old or too much, the least recently used first."""
        oldest = self._clock() - IDLE_SECONDS
        for plan_id, plan in list(self._plans.items()):
            crowded = len(self._plans) > PLANS_KEPT or self.size > self._most_bytes
            if not plan.lock.locked() and (crowded or plan.used < oldest):
                del self._plans[plan_id]

    @property
    def size(self) -> int:
        """Bytes that are kept, about."""
        return sum(plan.size for plan in self._plans.values())
