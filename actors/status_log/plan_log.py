"""Read the log of record of one plan, independently of the state managers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.replacements import read_replacements, read_with_replacements
from actors.status_log.status_log import StatusLog
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.log.entries import LogEntry, may_mention, read_entries
from protocol.log.gap import LogGap
from protocol.log.outages import Outages
from protocol.times import format_time, parse_time

ANNOUNCED_AGAIN_SECONDS = 3600.0
MESSAGES_PER_YIELD = 500  # then other tasks of the process may run


@dataclass(frozen=True, slots=True)
class Beginning:
    """Time of the first message in the log (RFC 3339; `None`: empty log). `truncated`: earlier ones have expired.

    `gaps`: the gaps of the log after its beginning.
    """

    since: str | None
    truncated: bool
    gaps: tuple[LogGap, ...] = ()

    def gaps_of(self, first: float | None) -> list[LogGap]:
        """Return the gaps that may concern a plan whose first fact was logged at `first` (`None`: not known).

        What began in a gap has its first fact soon after it: live sessions are announced again.
        """
        return [
            gap for gap in self.gaps if first is None or first <= parse_time(gap.timestamp) + ANNOUNCED_AGAIN_SECONDS
        ]


class PlanLog:
    """Reads the facts about a plan and its examinees, in order. Raises `BrokerUnavailable`.

    Example::

        plan_log = PlanLog(bus, "P001")
        async for entry in plan_log.new_entries("E001"):
            print(entry.fact)
    """

    def __init__(self, bus: Bus, plan_id: str) -> None:
        self._bus = bus
        self._plan_id = plan_id
        self._next = 1

    async def beginning(self) -> Beginning:
        """Find where the log begins."""
        state = await self._bus.stream_state(STATUS.name)
        first = await self._bus.message_at(STATUS.name, state.first) if state.messages else None
        oldest = self._bus.clock.now() - state.max_age if state.max_age else 0.0
        # STATUS numbers its messages from the time of its creation in ms: an old first sequence means expired messages.
        truncated = state.messages > 0 and state.first / 1000 < oldest
        # Some messages are kept for ever; the log goes back to them, but not without gaps.
        since = format_time(max(first.time, oldest)) if first is not None else None
        return Beginning(since, truncated, tuple(await StatusLog(self._bus).gaps()))

    async def new_entries(self, examinee_id: str | None = None) -> AsyncIterator[LogEntry]:
        """Yield the entries stored since the last call (the first time: all), of one examinee or of all.

        With an examinee also all facts about the plan, which their timeline needs.
        """
        count = 0
        async for stored in read_plan(self._bus, self._plan_id, self._next):
            self._next = stored.sequence + 1
            count += 1
            if count % MESSAGES_PER_YIELD == 0:
                await asyncio.sleep(0)
            if examinee_id is not None and not may_mention(stored.payload, examinee_id):
                continue
            for entry in read_entries(stored.subject, stored.sequence, stored.time, stored.payload):
                if examinee_id is None or entry.needed_for(examinee_id):
                    yield entry

    async def outages(self) -> tuple[Beginning, Outages]:
        """Read the whole log: where it begins, and the outages of all examinees."""
        beginning = await self.beginning()
        outages = Outages(truncated=beginning.truncated)
        async for entry in self.new_entries():
            outages.add(entry)
        return beginning, outages


async def read_plan(bus: Bus, plan_id: str, first: int = 1) -> AsyncIterator[StoredMessage]:
    """Yield the messages of the log about a plan from sequence `first` on, in order. Raises `BrokerUnavailable`."""
    last = (await bus.stream_state(STATUS.name)).last
    replacements = await read_replacements(bus, plan_id)
    for subject in subjects.status_of_plan(plan_id):
        async for stored in read_with_replacements(bus, subject, first, last, replacements):
            yield stored
