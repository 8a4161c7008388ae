"""What a state manager reads: of each partition of plans it is the only reader, or stands by."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence

from actors.runtime.bus import Bus
from actors.runtime.pinned import PinnedConsumer
from actors.runtime.pull import Delivery
from actors.state_progress import Reading
from protocol.applied import SERVERS
from protocol.errors import BrokerUnavailable
from protocol.streams import STATE_MANAGERS, STATUS

log = logging.getLogger("examwire.state_manager")

BALANCE_SECONDS = 5.0


class StatePartitions:
    """The consumers of the log, one for each partition. `arrived` returns what has come from all of them.

    Example::

        deliveries = await partitions.arrived()
        for delivery in await partitions.ours(deliveries):  # nobody else has taken over meanwhile
            await partitions.ack(delivery)
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._readers = {spec.name: PinnedConsumer(bus, spec) for spec in STATE_MANAGERS}
        self._arrived: list[Delivery] = []
        self._wake = asyncio.Event()

    @property
    def readers(self) -> Sequence[PinnedConsumer]:
        """All of them, also those that another manager reads now."""
        return list(self._readers.values())

    @property
    def held(self) -> list[str]:
        """The names of the consumers that this manager reads now."""
        return [name for name, reader in self._readers.items() if reader.owned]

    def parts(self) -> dict[str, Reading]:
        """What there is to say of each part of the log (`protocol.applied`)."""
        return {
            _part_of(name): Reading(name, functools.partial(_reads, reader), reader.in_hand)
            for name, reader in self._readers.items()
        }

    async def ready(self) -> None:
        """Wait until the queue server has made the consumers."""
        for spec in STATE_MANAGERS:
            await self._bus.consumer_ready(spec.stream, spec.name)

    async def read(self, reader: PinnedConsumer) -> None:
        """Read one partition until cancelled."""
        async for deliveries in reader:
            self._arrived.extend(deliveries)
            self._wake.set()

    async def arrived(self) -> list[Delivery]:
        """Wait for deliveries; all that have arrived, each partition in the order of the log."""
        while not self._arrived:
            self._wake.clear()
            await self._wake.wait()
        deliveries, self._arrived = self._arrived, []
        return deliveries

    async def ours(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of which this manager surely is still the reader. The others are worked off by somebody else."""
        surely: dict[tuple[str, int], bool] = {}
        for delivery in deliveries:
            reader = self._reader_of(delivery)
            term = (reader.spec.name, delivery.epoch)
            if term not in surely:
                surely[term] = await reader.surely_owned(delivery.epoch)
        return [one for one in deliveries if surely[self._reader_of(one).spec.name, one.epoch]]

    async def ack(self, delivery: Delivery) -> None:
        """Acknowledge a delivery: all that it leads to is stored."""
        self._reader_of(delivery).done(delivery)
        await delivery.ack()

    async def balance(self) -> None:
        """Leave partitions to managers that have fewer, one at a time, until cancelled."""
        while True:
            await asyncio.sleep(BALANCE_SECONDS)
            held = [reader for reader in self._readers.values() if reader.owned]
            if len(held) < 2:
                continue
            try:
                states = await self._bus.consumer_states(STATUS.name)
            except BrokerUnavailable as error:
                log.debug("partitions are not balanced: %s", error)
                continue
            managers = max((one.pulls_waiting for one in states if one.name in self._readers), default=1)
            share = -(-len(self._readers) // max(1, managers))
            if len(held) > share:
                idlest = min(held, key=lambda reader: reader.pending)
                log.info("%s goes to another state manager: %d of %d are here", idlest.spec.name, len(held), managers)
                await idlest.release()

    async def release(self) -> None:
        """Leave all partitions to the other managers at once, before this one stops."""
        await asyncio.gather(*(reader.release() for reader in self._readers.values()))

    def _reader_of(self, delivery: Delivery) -> PinnedConsumer:
        tokens = delivery.subject.split(".")
        if len(tokens) == 5 and (reader := self._readers.get(f"{STATE_MANAGERS[0].name}-{tokens[4]}")) is not None:
            return reader
        return self._readers[STATE_MANAGERS[0].name]


def _part_of(consumer: str) -> str:
    """`state-manager-3`: 3; the first one is about servers."""
    return consumer.removeprefix(STATE_MANAGERS[0].name).removeprefix("-") or SERVERS


def _reads(reader: PinnedConsumer) -> bool:
    # Not `owned`: a broker that does not answer leaves it with its reader, who is to say what it waits for.
    return reader.state is not None
