"""Read the partitions of the log, each by one state manager at a time, and share them between state managers.

While a newer release is started beside this one, only the newest state managers read: a state manager that hears one
with a newer format gives up its partitions, and takes none until that one is silent.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Sequence

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.consumers.listener import listen
from actors.runtime.broker.consumers.pinned import PinnedConsumer
from actors.runtime.store.repair_marks import Whole
from actors.state_manager.progress import LogPart
from protocol.broker import subjects
from protocol.broker.streams import STATE_MANAGERS, STATUS
from protocol.errors import ProtocolError
from protocol.messages.base import FORMAT
from protocol.messages.codec import Codec
from protocol.messages.progress import SERVERS_PART, SILENT_SECONDS, Applied

log = logging.getLogger("examwire.state_manager")

_APPLIED = Codec.of((Applied,))

BALANCE_SECONDS = 5.0
MOST_PATIENCE_SECONDS = 12.0
"""For so long at most a state manager waits for a newer one that is silent again."""
LEFT_SECONDS, LEFT_MOST_SECONDS = 5.0, 60.0
"""A message that only a newer release understands comes again after so many seconds, first and at most."""
LEAVE_SECONDS = 5.0
"""Seconds that a reader may take to end when a newer state manager takes over."""


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
        self._whole = Whole(everything=True)
        self._newest, self._gives_way = asyncio.Event(), asyncio.Event()
        self._newest.set()
        self._newer_silent: asyncio.TimerHandle | None = None
        self._patience = 0.0
        self._has_left = False

    @property
    def gives_way(self) -> bool:
        """Whether a newer state manager is there: this one reads, repairs and writes nothing."""
        return self._gives_way.is_set()

    @property
    def readers(self) -> Sequence[PinnedConsumer]:
        """The readers of all partitions, also of those that another manager reads now."""
        return list(self._readers.values())

    @property
    def held(self) -> list[str]:
        """The names of the consumers that this manager reads now."""
        return [name for name, reader in self._readers.items() if reader.owned]

    @property
    def held_parts(self) -> list[str]:
        """The parts of the log that this manager reads now."""
        return [_part_of(name) for name in self.held]

    def parts(self) -> dict[str, LogPart]:
        """Return the parts of the log whose progress is announced (`protocol.messages.progress`)."""
        return {
            _part_of(name): LogPart(name, functools.partial(_reads, reader), reader.in_hand)
            for name, reader in self._readers.items()
        }

    async def read(self, reader: PinnedConsumer) -> None:
        """Read one partition until cancelled, while no newer state manager is there."""
        while True:
            await self._newest.wait()
            reading = asyncio.create_task(self._gather(reader), name=f"gather:{reader.spec.name}")
            leaving = asyncio.create_task(self._gives_way.wait(), name=f"leave:{reader.spec.name}")
            try:
                await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
            finally:
                await cancel_tasks((reading, leaving), LEAVE_SECONDS)
            await reader.release()

    async def _gather(self, reader: PinnedConsumer) -> None:
        async for deliveries in reader:
            self._arrived.extend(deliveries)
            self._wake.set()

    async def arrived(self) -> list[Delivery]:
        """Wait for deliveries, and return all that have arrived, each partition in the order of the log.

        While Redis is repaired, those about plans that are not whole yet wait here.
        """
        while True:
            if deliveries := [delivery for delivery in self._arrived if self._can_be_processed(delivery)]:
                self._arrived = [delivery for delivery in self._arrived if not self._can_be_processed(delivery)]
                return deliveries
            self._wake.clear()
            await self._wake.wait()

    def look_again(self, whole: Whole) -> None:
        """Note what is whole of Redis: deliveries that have waited for it are handed out."""
        self._whole = whole
        self._wake.set()

    def _can_be_processed(self, delivery: Delivery) -> bool:
        if self._whole.everything:
            return True
        tokens = delivery.subject.split(".")
        return self._whole.plan(tokens[2]) if tokens[1] == "plan" else self._whole.servers()

    async def ours(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return the deliveries whose partition this manager still reads. Another manager processes the rest."""
        owned: dict[tuple[str, int], bool] = {}
        for delivery in deliveries:
            reader = self._reader_of(delivery)
            term = (reader.spec.name, delivery.epoch)
            if term not in owned:
                owned[term] = await reader.confirm_owned(delivery.epoch)
        return [delivery for delivery in deliveries if owned[self._reader_of(delivery).spec.name, delivery.epoch]]

    def terms(self, deliveries: Sequence[Delivery]) -> dict[str, int | None]:
        """Return for each part of these deliveries the term in which this manager reads it; `None`: perhaps another."""
        terms: dict[str, int | None] = {}
        for delivery in deliveries:
            reader = self._reader_of(delivery)
            part = _part_of(reader.spec.name)
            if not reader.owned or delivery.epoch != reader.epoch:
                terms[part] = None
            else:
                terms.setdefault(part, delivery.epoch)
        return terms

    async def leave(self, delivery: Delivery, reason: str) -> None:
        """Leave a message to a newer state manager: it stays in the log, and comes again, later each time."""
        if not self._has_left:  # once, not for each message of an upgrade
            self._has_left = True
            text = "message %d of %s is left to a newer release, as others will be: %s"
            log.warning(text, delivery.sequence, STATUS.name, reason)
        delay = min(LEFT_SECONDS * 2 ** min(delivery.attempt - 1, 10), LEFT_MOST_SECONDS)
        await self._reader_of(delivery).leave(delivery, delay)

    @property
    def left(self) -> int:
        """How many messages of the partitions that this manager reads wait for a newer one."""
        return sum(reader.in_hand().left for reader in self._readers.values())

    async def balance(self) -> None:
        """Release partitions to managers that have fewer, one at a time, or all to a newer one, until cancelled.

        Managers are counted by their announcements of progress, not by waiting pulls of the consumers: after a stall
        one manager has several pulls.
        """
        try:
            async with listen(self._bus, subjects.applied("*"), self._record_applied):
                while True:
                    await asyncio.sleep(BALANCE_SECONDS)
                    held = [reader for reader in self._readers.values() if reader.owned]
                    managers = self.managers()
                    if len(held) > -(-len(self._readers) // managers):
                        idlest = min(held, key=lambda reader: reader.pending)
                        text = "%s is released to another state manager: this one holds %d consumers, of %d managers"
                        log.info(text, idlest.spec.name, len(held), managers)
                        await idlest.release()
        finally:
            if self._newer_silent is not None:
                self._newer_silent.cancel()

    def _record_applied(self, payload: bytes) -> None:
        """Remember when a state manager announced its progress; give way to a newer one."""
        try:
            report = _APPLIED.decode_one(payload)
        except ProtocolError as error:
            log.debug("%s: invalid message: %s", subjects.applied("*"), error)
            return
        assert isinstance(report, Applied)
        if report.understood_format > FORMAT:
            self._give_way_to(report)
        elif report.understood_format == FORMAT:  # older ones give way, so they take no share
            self._applied_at[report.state_manager] = time.monotonic()

    def _give_way_to(self, newer: Applied) -> None:
        """Read nothing until no newer state manager has announced its progress for `SILENT_SECONDS`.

        One that comes back after that was busy, not gone: it is given more time, or the log would go to and fro.
        """
        if not self._gives_way.is_set():
            self._patience = min(self._patience * 2, MOST_PATIENCE_SECONDS) if self._patience else SILENT_SECONDS
            text = "state manager %s is newer (format %d; this one: %d): it processes the log from now on"
            log.warning(text, newer.state_manager, newer.understood_format, FORMAT)
            self._newest.clear()
            self._gives_way.set()
        if self._newer_silent is not None:
            self._newer_silent.cancel()
        self._newer_silent = asyncio.get_running_loop().call_later(self._patience, self._go_on)

    def _go_on(self) -> None:
        log.warning("no newer state manager has announced its progress for %g s: this one takes over", self._patience)
        self._newer_silent = None
        self._gives_way.clear()
        self._newest.set()

    def holds(self, part: str) -> bool:
        """Return whether this manager is the one to repair a part: it reads it, or is the only manager."""
        if self.gives_way:
            return False
        return self.managers() == 1 or any(
            _part_of(name) == part and reader.owned for name, reader in self._readers.items()
        )

    def managers(self) -> int:
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
