"""Read STATUS, the log of record, beside the state managers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.replacements import read_replacements, read_with_replacements
from protocol.broker import subjects
from protocol.broker.dead_letters import Letter
from protocol.broker.streams import DEADLETTER, STATE_MANAGERS, STATUS
from protocol.errors import ConsumerGone, ProtocolError
from protocol.log import entries
from protocol.log.gap import LogGap
from protocol.log.partitions import PARTS, part_of
from protocol.log.version import index_of, sequence_of, version_of
from protocol.messages.codec import Malformed
from protocol.messages.progress import SERVERS_PART
from protocol.messages.server_messages import ServerStatus
from protocol.records.placement import VersionedMessage
from protocol.rules import socket_server
from protocol.rules.socket_server import ServerState

log = logging.getLogger("examwire.log_of_record")

_PLANS = "status.plan.>"


@dataclass(frozen=True, slots=True)
class LogExtent:
    """Stream sequences: the first and last message of STATUS, and how far the state managers are.

    Everything up to `acknowledged` is processed; nothing after `delivered` has been handed to a state manager.
    `max_age`: after so many seconds the log drops a message; 0: never. `acknowledged_by_part`: the same as
    `acknowledged` for each part of the log (`protocol.log.partitions.PARTS`).
    """

    first: int
    last: int
    acknowledged: int
    delivered: int
    max_age: float = 0.0
    acknowledged_by_part: Mapping[str, int] = field(default_factory=dict)

    def acknowledged_of(self, plan_id: str | None) -> int:
        """Return up to where the messages about a plan are processed; `None`: those about servers."""
        return self.acknowledged_by_part.get(part_of(plan_id), self.acknowledged)


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The facts of STATUS that are dead letters, by sequence and index in the message (`None`: all of it).

    They were not applied, and no event was published about them.

    Example::

        if version in dead_lettered:
            ...
    """

    places: frozenset[tuple[int, int | None]] = frozenset()

    def __contains__(self, version: int) -> bool:
        sequence = sequence_of(version)
        return (sequence, index_of(version)) in self.places or (sequence, None) in self.places

    @classmethod
    def by(cls, letters: Iterable[bytes]) -> DeadLettered:
        """Read the sources of these dead letters (payloads of DEADLETTER)."""
        places = set()
        for stored in letters:
            try:
                source = Letter.decode(stored).source
            except ProtocolError:
                continue  # not written by us: whatever it is about, it is no fact of the log
            if source.stream == STATUS.name:
                places.add((source.number, source.index))
        return cls(frozenset(places))


class StatusLog:
    """Reads STATUS. Raises `BrokerUnavailable`, `ConsumerGone`.

    Example::

        extent = await status_log.extent()
        async for stored in status_log.read(extent.first, extent.last):
            facts = list(facts_of(stored))
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def now(self) -> float:
        """The time by the log's own clock, seconds since the epoch."""
        return self._bus.clock.now()

    async def extent(self) -> LogExtent:
        """Ask the broker for the extent. The end is asked for last: everything acknowledged lies before it."""
        before = await self._bus.stream_state(STATUS.name)
        states = {state.name: state for state in await self._bus.consumer_states(STATUS.name)}
        by_part: dict[str, int] = {}
        delivered = 0
        for part, spec in zip(PARTS, STATE_MANAGERS, strict=True):
            if (consumer := states.get(spec.name)) is None:
                raise ConsumerGone(f"consumer {spec.stream}/{spec.name} does not exist: run a queue server")
            delivered = max(delivered, consumer.delivered)
            idle = not consumer.pending and not consumer.unacknowledged  # up to where the stream ended
            by_part[part] = before.last if idle else min(before.last, consumer.ack_floor)
        acknowledged = min(by_part.values())
        state = await self._bus.stream_state(STATUS.name)
        return LogExtent(state.first, state.last, acknowledged, max(delivered, acknowledged), state.max_age, by_part)

    async def read(self, first: int, last: int, plan_id: str | None = None) -> AsyncIterator[StoredMessage]:
        """Yield the messages from `first` to `last`, in order for each record; of one plan or of all.

        Schedules (`status.timer.>`) are no facts.
        """
        plans = subjects.status_of_plan("*" if plan_id is None else plan_id)
        replacements = await read_replacements(self._bus, plan_id or "*")
        for subject in plans if plan_id is not None else (subjects.status_server("*"), *plans):
            async for stored in read_with_replacements(self._bus, subject, first, last, replacements):
                yield stored

    async def read_part(self, part: str, first: int, last: int) -> AsyncIterator[StoredMessage]:
        """Yield the messages of one part of the log from `first` to `last`, in order."""
        if part == SERVERS_PART:
            subject, replacements = subjects.status_server("*"), []
        else:
            subject, replacements = subjects.status_partition(int(part)), await read_replacements(self._bus)
        async for stored in read_with_replacements(self._bus, subject, first, last, replacements):
            yield stored

    async def plans(self, part: str, first: int = 0, last: int = 0) -> list[str]:
        """Return the plans of a part that have messages from `first` to `last`, those with the newest ones first.

        By default in the whole log.
        """
        newest: dict[str, int] = {}
        if not last:
            for plan_id in await self.plan_ids():
                if part_of(plan_id) == part:
                    stored = await self._bus.last_message(STATUS.name, subjects.status_of_plan(plan_id)[1])
                    newest[plan_id] = stored.sequence if stored is not None else 0
        else:
            async for stored in self.read_part(part, first, last):
                newest[stored.subject.split(".")[2]] = stored.sequence
        return sorted(newest, key=lambda plan_id: newest[plan_id], reverse=True)

    async def plan_ids(self) -> set[str]:
        """Return the plans that have messages in the log."""
        return {subject.split(".")[2] for subject in await self._bus.stream_subjects(STATUS.name, _PLANS)}

    async def holds_all_since(self, sequence: int) -> bool:
        """Return whether the log holds all facts after `sequence`, or has dropped some of them by their age."""
        if (await self._bus.stream_state(STATUS.name)).last <= sequence:
            return True
        for subject in ("status.plan.>", subjects.status_server("*")):
            oldest = await self._bus.next_message(STATUS.name, subject, 1)
            if oldest is not None and oldest.sequence <= sequence + 1:
                return True
        return False

    async def dead_lettered(self) -> DeadLettered:
        """Read which facts are dead letters now. Raises `NotPermitted` also when only those may not be read."""
        letters = read_stream(self._bus, DEADLETTER.name, subject=subjects.deadletter(STATUS.name))
        return DeadLettered.by([stored.payload async for stored in letters])

    async def gaps(self) -> list[LogGap]:
        """Read the gaps of the log, in order (`protocol.log.gap`)."""
        stored_gaps = [stored async for stored in read_stream(self._bus, STATUS.name, subject=subjects.LOG_GAP)]
        return [gap for stored in stored_gaps if (gap := LogGap.decode(stored.payload)) is not None]

    async def newest_gap(self) -> tuple[LogGap, int] | None:
        """Return the newest gap of the log and the sequence of its message: facts before that were moved behind it."""
        newest = await self._bus.last_message(STATUS.name, subjects.LOG_GAP)
        gap = LogGap.decode(newest.payload) if newest is not None else None
        return (gap, newest.sequence) if newest is not None and gap is not None else None

    async def purged_up_to(self, plan_id: str) -> int:
        """Return the version of the newest purge of a plan, or of an examinee of it; 0: there is none in the log."""
        newest = await self._bus.last_message(STATUS.name, subjects.status_plan(plan_id, subjects.PURGE))
        return version_of(newest.sequence) if newest is not None else 0

    async def server(self, server_id: str) -> ServerState:
        """Replay the whole log about a socket server, also what the state managers have not processed yet."""
        state = ServerState()
        async for stored in read_stream(self._bus, STATUS.name, subject=subjects.status_server(server_id)):
            state = apply_server_facts(state, facts_of(stored))
        return state


def apply_server_facts(state: ServerState, facts: Iterable[VersionedMessage | Malformed]) -> ServerState:
    """Apply more facts about a server, in the order of the log."""
    for fact in facts:
        if isinstance(fact, VersionedMessage) and isinstance(fact.message, ServerStatus):
            state = socket_server.apply(state, fact.version, fact.message).state
    return state


def facts_of(stored: StoredMessage) -> Iterator[VersionedMessage | Malformed]:
    """Decode a message of STATUS as the state managers do."""
    scheduled = entries.SCHEDULER in stored.headers
    for index, message in enumerate(
        entries.decode_status(stored.subject, stored.payload, stored.time, scheduled=scheduled)
    ):
        yield (
            message if isinstance(message, Malformed) else VersionedMessage(version_of(stored.sequence, index), message)
        )
