"""The log of record: STATUS replayed by the pure rules, and what Redis should hold by it.

Held in memory is a state for each record and the facts that are not acknowledged yet; not the log.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from protocol.broker import subjects
from protocol.broker.dead_letters import Letter
from protocol.broker.streams import DEADLETTER, STATE_MANAGERS, STATUS
from protocol.errors import ConsumerGone, ProtocolError
from protocol.log import entries as log_entries
from protocol.log.version import index_of as place_of
from protocol.log.version import sequence_of, version_of
from protocol.messages.codec import Malformed
from protocol.messages.server_messages import ServerStatus
from protocol.records.placement import VersionedMessage
from protocol.rules import socket_server as servers
from protocol.rules.socket_server import ServerState

log = logging.getLogger("examwire.log_of_record")


@dataclass(frozen=True, slots=True)
class Extent:
    """Sequences: the first and last message that STATUS holds, and how far the state managers are.

    Everything up to `acknowledged` is done; nothing after `delivered` has been begun with.
    """

    first: int
    last: int
    acknowledged: int
    delivered: int


@dataclass(frozen=True, slots=True)
class SetAside:
    """Which facts of STATUS are dead letters, by sequence and place in it (`None`: all of that message).

    They had no effect when their turn came, and nobody was told.
    """

    places: frozenset[tuple[int, int | None]] = frozenset()

    def __contains__(self, version: int) -> bool:
        sequence = sequence_of(version)
        return (sequence, place_of(version)) in self.places or (sequence, None) in self.places

    @classmethod
    def by(cls, letters: Iterable[bytes]) -> SetAside:
        """From the letters as they are stored."""
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
    """STATUS as it is read beside the state managers. Raises `BrokerUnavailable`, `ConsumerGone`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def now(self) -> float:
        """The time by the log's own clock, seconds since the epoch."""
        return self._bus.clock.now()

    async def extent(self) -> Extent:
        """What there is. The end is asked for last: everything that is acknowledged lies before it."""
        before = await self._bus.stream_state(STATUS.name)
        states = {one.name: one for one in await self._bus.consumer_states(STATUS.name)}
        acknowledged, delivered = before.last, 0
        for spec in STATE_MANAGERS:
            if (consumer := states.get(spec.name)) is None:
                raise ConsumerGone(f"consumer {spec.stream}/{spec.name} does not exist: run a queue server")
            delivered = max(delivered, consumer.delivered)
            if consumer.pending or consumer.unacknowledged:  # else it has nothing to do up to where the stream ended
                acknowledged = min(acknowledged, consumer.ack_floor)
        state = await self._bus.stream_state(STATUS.name)
        return Extent(state.first, state.last, acknowledged, max(delivered, acknowledged))

    async def read(self, first: int, last: int, plan_id: str | None = None) -> AsyncIterator[StoredMessage]:
        """The messages from `first` to `last`, in order for each record; of one plan or of everything.

        Schedules (`status.timer.>`) are no facts.
        """
        plans = subjects.status_of_plan("*" if plan_id is None else plan_id)
        for subject in plans if plan_id is not None else (subjects.status_server("*"), *plans):
            async for stored in read_stream(self._bus, STATUS.name, subject=subject, first=first, last=last):
                yield stored

    async def set_aside(self) -> SetAside:
        """The facts that are among the dead letters now. Raises `NotPermitted` also when only those may not be read."""
        letters = read_stream(self._bus, DEADLETTER.name, subject=subjects.deadletter(STATUS.name))
        return SetAside.by([stored.payload async for stored in letters])

    async def server(self, server_id: str) -> ServerState:
        """What the whole log says of a socket server by now, whatever the state managers have got to."""
        state = ServerState()
        async for stored in read_stream(self._bus, STATUS.name, subject=subjects.status_server(server_id)):
            state = said_of_server(state, facts_of(stored))
        return state


def said_of_server(state: ServerState, facts: Iterable[VersionedMessage | Malformed]) -> ServerState:
    """The state of a server after more facts about it, in the order of the log."""
    for fact in facts:
        if isinstance(fact, VersionedMessage) and isinstance(fact.message, ServerStatus):
            state = servers.apply(state, fact.version, fact.message).state
    return state


def facts_of(stored: StoredMessage) -> Iterator[VersionedMessage | Malformed]:
    """The facts in a message of STATUS as the state managers read it."""
    scheduled = log_entries.SCHEDULER in stored.headers
    for index, message in enumerate(
        log_entries.decode_status(stored.subject, stored.payload, stored.time, scheduled=scheduled)
    ):
        yield (
            message if isinstance(message, Malformed) else VersionedMessage(version_of(stored.sequence, index), message)
        )
