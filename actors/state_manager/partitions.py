"""Read the partitions of the log, each by one state manager at a time, and share them between state managers."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Sequence

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.consumers.listener import listen
from actors.runtime.broker.consumers.pinned import PinnedConsumer
from actors.state_manager.progress import LogPart
from protocol.broker import subjects
from protocol.broker.streams import STATE_MANAGERS
from protocol.errors import ProtocolError
from protocol.messages.codec import Codec
from protocol.messages.progress import SERVERS_PART, SILENT_SECONDS, Applied

log = logging.getLogger("examwire.state_manager")

_APPLIED = Codec.of((Applied,))

BALANCE_SECONDS = 5.0


class StatePartitions:
    """The consumers of the log, one for each partition. `arrived` returns the deliveries of all of them.

    Example::

        deliveries = await partitions.arrived()
        for delivery in await partitions.ours(deliveries):  # no other manager has taken over meanwhile
            await delivery.ack()
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._readers = {spec.name: PinnedConsumer(bus, spec) for spec in STATE_MANAGERS}
        self._arrived: list[Delivery] = []
        self._wake = asyncio.Event()
        self._applied_at: dict[str, float] = {}

    @property
    def readers(self) -> Sequence[PinnedConsumer]:
        """The readers of all partitions, also of those that another manager reads now."""
        return list(self._readers.values())

    @property
    def held(self) -> list[str]:
        """The names of the consumers that this manager reads now."""
        return [name for name, reader in self._readers.items() if reader.owned]

    def parts(self) -> dict[str, LogPart]:
        """Return the parts of the log whose progress is announced (`protocol.messages.progress`)."""
        return {
            _part_of(name): LogPart(name, functools.partial(_reads, reader), reader.in_hand)
            for name, reader in self._readers.items()
        }

    async def read(self, reader: PinnedConsumer) -> None:
        """Read one partition until cancelled."""
        async for deliveries in reader:
            self._arrived.extend(deliveries)
            self._wake.set()

    async def arrived(self) -> list[Delivery]:
        """Wait for deliveries, and return all that have arrived, each partition in the order of the log."""
        while not self._arrived:
            self._wake.clear()
            await self._wake.wait()
        deliveries, self._arrived = self._arrived, []
        return deliveries

    async def ours(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return the deliveries whose partition this manager still reads. Another manager processes the rest."""
        owned: dict[tuple[str, int], bool] = {}
        for delivery in deliveries:
            reader = self._reader_of(delivery)
            term = (reader.spec.name, delivery.epoch)
            if term not in owned:
                owned[term] = await reader.confirm_owned(delivery.epoch)
        return [delivery for delivery in deliveries if owned[self._reader_of(delivery).spec.name, delivery.epoch]]

    async def balance(self) -> None:
        """Release partitions to managers that have fewer, one at a time, until cancelled.

        Managers are counted by their announcements of progress, not by waiting pulls of the consumers: after a stall
        one manager has several pulls.
        """
        async with listen(self._bus, subjects.applied("*"), self._record_applied):
            while True:
                await asyncio.sleep(BALANCE_SECONDS)
                held = [reader for reader in self._readers.values() if reader.owned]
                managers = self._managers()
                if len(held) > -(-len(self._readers) // managers):
                    idlest = min(held, key=lambda reader: reader.pending)
                    text = "%s is released to another state manager: this one holds %d consumers, of %d managers"
                    log.info(text, idlest.spec.name, len(held), managers)
                    await idlest.release()

    def _record_applied(self, payload: bytes) -> None:
        """Remember when a state manager announced its progress."""
        try:
            report = _APPLIED.decode_one(payload)
        except ProtocolError as error:
            log.debug("%s: invalid message: %s", subjects.applied("*"), error)
            return
        assert isinstance(report, Applied)
        self._applied_at[report.state_manager] = time.monotonic()

    def _managers(self) -> int:
        """Return how many state managers have announced their progress lately, including this one."""
        now = time.monotonic()
        self._applied_at = {name: at for name, at in self._applied_at.items() if now - at <= SILENT_SECONDS}
        return max(1, len(self._applied_at))

    async def release(self) -> None:
        """Release all partitions to the other managers at once, before this one stops."""
        await asyncio.gather(*(reader.release() for reader in self._readers.values()))

    def _reader_of(self, delivery: Delivery) -> PinnedConsumer:
        tokens = delivery.subject.split(".")
        if len(tokens) == 5 and (reader := self._readers.get(f"{STATE_MANAGERS[0].name}-{tokens[4]}")) is not None:
            return reader
        return self._readers[STATE_MANAGERS[0].name]


def _part_of(consumer: str) -> str:
    """Return the part of a consumer: 3 for `state-manager-3`; the first consumer is the part of the servers."""
    return consumer.removeprefix(STATE_MANAGERS[0].name).removeprefix("-") or SERVERS_PART


def _reads(reader: PinnedConsumer) -> bool:
    # Not `owned`: while the broker does not answer, the reader keeps the partition and reports what it waits for.
    return reader.state is not None
