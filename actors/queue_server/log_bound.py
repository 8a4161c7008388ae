"""Keeps STATUS within its bound, without dropping what is needed.

NATS would drop the oldest messages of a full stream, whatever they are: facts that nobody has processed, and the
schedule that ends an exam in a month. It refuses no new ones instead in a stream with schedules. So NATS does not know
the bound. When STATUS is nearly full, it is kept for a shorter time: facts go by their age, and schedules stay. What is
needed, or younger than a day, is kept; the log may then grow up to what NATS can store. There NATS refuses new
messages, and publishers keep them.

Needed is every fact that the checkpoints do not hold (`actors.status_log.record_checkpoints`): a checkpoint holds only
what a state manager has acknowledged.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from actors.queue_server.metrics import LOG_SHORTENED
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_state import StoredMessage, StreamState
from actors.status_log.record_checkpoints import RecordCheckpoints
from protocol.broker.streams import DAY, HOUR, STATE_MANAGERS, STATUS, StreamSpec
from protocol.log.partitions import PARTS

log = logging.getLogger("examwire.queue_server")

NEARLY_FULL, ROOM_AGAIN = 0.8, 0.6
"""Shares of the bound: from the first on the log is kept for a shorter time, below the second as long as declared."""
CUT = 0.1
"""The share of its messages that go at once."""
LEAST_AGE = DAY
"""The log is never kept for less: an exam of today has its timeline and report."""
NEEDED_MARGIN, NEEDED_SOON = 2 * HOUR, HOUR
"""The log is kept for so much longer than the age of what is needed, and set back when less than the second is left."""
PAUSE_SECONDS = 5.0
"""What is too old goes some time after the age was changed."""
NEEDED_EACH_SECONDS = 60.0


class LogBound:
    """Looks how full STATUS is, and acts in time. Two queue servers may do it at once.

    log_bound = LogBound(bus, replicas=3)
    await log_bound.look(spec)  # each second
    """

    def __init__(self, bus: Bus, replicas: int) -> None:
        self._bus = bus
        self._replicas = replicas
        self._checkpoints = RecordCheckpoints(bus)
        self._quiet_until = self._needed_at = 0.0
        self._said = False

    async def look(self, spec: StreamSpec) -> None:
        """Shorten the time that STATUS is kept, or set it back.

        `spec`: STATUS as it should be, with the bound for which NATS has storage. Raises `BrokerUnavailable` or
        `NotPermitted`.
        """
        state = await self._bus.stream_state(STATUS.name)
        filled = state.size / spec.max_bytes
        LOG_SHORTENED.set(max(0.0, spec.max_age - state.max_age))
        if time.monotonic() < self._quiet_until:
            return
        shortened = state.max_age < spec.max_age
        if shortened and (filled < ROOM_AGAIN or await self._needed_soon(state)):
            log.warning("the log is kept for %.0f days again", spec.max_age / DAY)
            await self._apply(spec)
        elif filled >= NEARLY_FULL:
            self._quiet_until = time.monotonic() + PAUSE_SECONDS
            await self._make_room(spec, state)
        else:
            self._said = False

    async def _make_room(self, spec: StreamSpec, state: StreamState) -> None:
        oldest, age = await self._oldest(), await self._possible_age(state)
        about = f"{state.size / 2**20:,.0f} of {spec.max_bytes / 2**20:,.0f} MiB are used"
        if oldest is not None and age < min(state.max_age, self._bus.clock.now() - oldest.time):
            log.warning("the log is nearly full (%s): it is kept for %.1f days only", about, age / DAY)
            await self._apply(replace(spec, max_age=age))
        elif not self._said:
            log.error("the log is nearly full (%s), and all of it is needed or younger than a day", about)
            self._said = True

    async def _apply(self, spec: StreamSpec) -> None:
        await self._bus.apply_stream(spec, replicas=self._replicas)

    async def _possible_age(self, state: StreamState) -> float:
        """Return for how long the log must be kept, in seconds, when a tenth of it goes, but nothing that is needed."""
        now, ages = self._bus.clock.now(), [LEAST_AGE]
        first_kept = max(1, state.last - int(state.messages * (1 - CUT)))
        if (kept := await self._bus.next_message(STATUS.name, "status.>", first_kept)) is not None:
            ages.append(now - kept.time)
        if (needed := await self._first_needed()) is not None:
            ages.append(now - needed.time + NEEDED_MARGIN)
        return max(ages)

    async def _needed_soon(self, state: StreamState) -> bool:
        """Return whether the log is about to drop what is needed, by its age. Not asked at each look."""
        if time.monotonic() < self._needed_at:
            return False
        self._needed_at = time.monotonic() + NEEDED_EACH_SECONDS
        needed = await self._first_needed()
        return needed is not None and self._bus.clock.now() - needed.time + NEEDED_SOON > state.max_age

    async def _first_needed(self) -> StoredMessage | None:
        """Return the oldest fact that no checkpoint holds; `None`: the checkpoints hold all."""
        needed: list[StoredMessage] = []
        for part, consumer in zip(PARTS, STATE_MANAGERS, strict=True):
            manifest = await self._checkpoints.manifest(part)
            after = manifest.sequence + 1 if manifest is not None else 1
            for subject in consumer.filters:
                if (fact := await self._bus.next_message(STATUS.name, subject, after)) is not None:
                    needed.append(fact)
        return min(needed, key=lambda fact: fact.sequence, default=None)

    async def _oldest(self) -> StoredMessage | None:
        """Return the oldest fact. Schedules are kept for ever."""
        found = [
            await self._bus.next_message(STATUS.name, subject, 1) for spec in STATE_MANAGERS for subject in spec.filters
        ]
        return min((fact for fact in found if fact is not None), key=lambda fact: fact.sequence, default=None)
