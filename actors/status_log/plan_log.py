"""The log of record of one plan, read beside the state managers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.log.entries import LogEntry, may_mention, read_entries
from protocol.log.outages import Outages
from protocol.times import format_time

BREATH = 500  # messages at a stretch: whoever reads here has other things to do beside


@dataclass(frozen=True, slots=True)
class Beginning:
    """Since when the log knows (RFC 3339; `None`: it is empty), and whether what was before has expired from it."""

    since: str | None
    cut: bool


class PlanLog:
    """What happened to a plan's examinees, in order. Raises `BrokerUnavailable`."""

    def __init__(self, bus: Bus, plan_id: str) -> None:
        self._bus = bus
        self._plan_id = plan_id
        self._next = 1

    async def beginning(self) -> Beginning:
        """Where the log begins."""
        state = await self._bus.stream_state(STATUS.name)
        first = await self._bus.message_at(STATUS.name, state.first) if state.messages else None
        # STATUS counts from the time of its creation in ms: a first sequence so long ago has seen others expire.
        cut = state.messages > 0 and self._bus.clock.now() * 1000 - state.first > STATUS.max_age * 1000
        return Beginning(format_time(first.time) if first is not None else None, cut)

    async def new_entries(self, examinee_id: str | None = None) -> AsyncIterator[LogEntry]:
        """The entries since this was read to its end before: at first all of them; of one examinee or of all."""
        count = 0
        async for stored in read_plan(self._bus, self._plan_id, self._next):
            self._next = stored.sequence + 1
            count += 1
            if count % BREATH == 0:
                await asyncio.sleep(0)
            if examinee_id is not None and not may_mention(stored.payload, examinee_id):
                continue
            for entry in read_entries(stored.subject, stored.sequence, stored.time, stored.payload):
                if examinee_id is None or entry.fact.examinee_id == examinee_id:
                    yield entry

    async def outages(self) -> tuple[Beginning, Outages]:
        """Where the log begins, and everybody's outages by all of it."""
        beginning = await self.beginning()
        outages = Outages(truncated=beginning.cut)
        async for entry in self.new_entries():
            outages.add(entry)
        return beginning, outages


async def read_plan(bus: Bus, plan_id: str, first: int = 1) -> AsyncIterator[StoredMessage]:
    """All messages of the log about a plan from sequence `first` on, in order. Raises `BrokerUnavailable`."""
    last = (await bus.stream_state(STATUS.name)).last
    for subject in subjects.status_of_plan(plan_id):
        async for stored in read_stream(bus, STATUS.name, subject=subject, first=first, last=last):
            yield stored
