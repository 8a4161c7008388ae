"""A socket server's heartbeat: the lease that says it is alive, and what it has heard from its clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import psutil

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.stream_state import StoredMessage
from protocol.broker import subjects
from protocol.broker.stream_codecs import parse_lease
from protocol.broker.streams import is_marker
from protocol.errors import BrokerUnavailable, ProtocolError, WrongLastSequence
from protocol.messages.codec import encode
from protocol.messages.server_messages import Lease
from protocol.times import format_time

log = logging.getLogger("examwire.heartbeat")

Active = list[tuple[str, str, str, str]]


class Superseded(Exception):
    """Another process holds the lease of this serverId now."""


class LeaseKeeper:
    """Renews `lease.{serverId}`; each renewal expects to follow the one before, so two processes cannot both hold it.

    `active` gives the sessions to report. `expired` is awaited when the lease had run out and is held again: others
    may have declared this server lost.
    """

    def __init__(
        self,
        bus: Bus,
        server_id: str,
        incarnation: str,
        lease_seconds: int,
        active: Callable[[], tuple[int, Active]],
        expired: Callable[[], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._server_id = server_id
        self._incarnation = incarnation
        self._seconds = lease_seconds
        self._active = active
        self._expired = expired
        self._sequence: int | None = None
        self._lapsed = False
        self._soon = asyncio.Event()
        """Set when the lease is to be renewed at once."""
        self.cpu_usage = 0.0
        self.memory_usage = 0.0
        self.network_status: Literal["GOOD", "SLOW", "BAD"] = "GOOD"
        psutil.cpu_percent()  # the first call only starts the measurement

    def measure(self) -> None:
        """Percent of the machine's processors and memory in use now."""
        self.cpu_usage = psutil.cpu_percent()
        self.memory_usage = psutil.virtual_memory().percent

    async def claim(self, *, takeover: bool = True) -> None:
        """Take the lease, from whoever holds it; without `takeover` only from who is not alive.

        Raises `BrokerUnavailable`, and `Superseded` when another process is alive and is to keep it.
        """
        self.measure()
        self._sequence = None
        if takeover:
            await self._publish()
            return
        held: int | None = None
        expired = time.monotonic() + 2 * self._seconds
        while True:
            newest = await self._newest()
            holder = self._holder_of(newest)
            unrenewed = newest is not None and newest.sequence == held and time.monotonic() > expired
            if holder in (None, self._incarnation) or unrenewed:
                try:
                    await self._take_after(newest)
                except WrongLastSequence:
                    continue  # somebody else was quicker
                return
            assert newest is not None
            if held is not None and newest.sequence != held:
                raise Superseded(f"another process runs as {self._server_id}")
            # One that is alive renews it; that of one that is not expires.
            held = newest.sequence
            await asyncio.sleep(self._seconds / 6)

    async def _newest(self) -> StoredMessage | None:
        return await self._bus.last_message("LEASE", subjects.lease(self._server_id))

    async def is_ours(self) -> bool:
        """Whether no other process has taken the lease; else `run` is about to raise. Raises `BrokerUnavailable`."""
        ours = self._holder_of(await self._newest()) in (None, self._incarnation)
        if not ours:
            self.renew_soon()
        return ours

    def renew_soon(self) -> None:
        """Have `run` renew the lease at once: somebody says that it is another's."""
        self._soon.set()

    def _holder_of(self, newest: StoredMessage | None) -> str | None:
        """The incarnation that holds the lease; `None`: nobody does."""
        return None if newest is None or is_marker(newest.headers) else self._holder(newest.payload)

    async def _take_after(self, newest: StoredMessage | None) -> None:
        """Take the lease, unless somebody has published since."""
        self._sequence = newest.sequence if newest is not None else 0
        await self._publish()

    async def run(self) -> None:
        """Renew until cancelled; at once when NATS is back, or the lease seems lost. Raises `Superseded`."""

        async def is_back() -> None:
            self._soon.set()

        self._bus.on_reconnected.append(is_back)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds / 3):
                        await self._soon.wait()
                self._soon.clear()
                await self._renew()
        finally:
            self._bus.on_reconnected.remove(is_back)

    async def _renew(self) -> None:
        self.measure()
        try:
            await self._publish()
        except BrokerUnavailable as error:
            self.network_status = "BAD"
            log.debug("%s: heartbeat not stored: %s", self._server_id, error)
        except WrongLastSequence:
            await self._recover()

    async def _publish(self) -> None:
        sessions, active = self._active()
        lease = Lease.model_construct(
            server_id=self._server_id,
            incarnation=self._incarnation,
            timestamp=format_time(self._bus.clock.now()),
            cpu_usage=self.cpu_usage,
            memory_usage=self.memory_usage,
            network_status=self.network_status,
            sessions=sessions,
            active=active,
        )
        headers = {"Nats-TTL": f"{self._seconds}s"}
        if self._sequence is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(self._sequence)
        started = time.monotonic()
        ack = await self._bus.publish(
            Outgoing(subjects.lease(self._server_id), encode(lease), headers=headers), timeout=self._seconds / 2
        )
        took = time.monotonic() - started
        self.network_status = "GOOD" if took < 0.1 else "SLOW" if took < 1.0 else "BAD"
        self._sequence = ack.sequence
        if self._lapsed:
            self._lapsed = False
            await self._expired()

    def _holder(self, payload: bytes) -> str | None:
        """The incarnation that a lease names; `None`: it is none, so nobody has taken over by it."""
        try:
            return parse_lease(self._server_id, payload).incarnation
        except ProtocolError as error:
            log.error("%s: what lies in place of the lease is none: %s", self._server_id, error)
            return None

    async def _recover(self) -> None:
        """Somebody published since: an ack of ours that was lost, the marker of our expired lease, or a successor."""
        try:
            newest = await self._newest()
            if newest is None or is_marker(newest.headers):
                about = {"server": self._server_id}
                log.error("%s: the lease had expired; announcing all sessions anew", self._server_id, extra=about)
                self._lapsed = True  # owed until the lease is held again, also when this try fails
                self.measure()
                await self._take_after(newest)
            elif self._holder(newest.payload) in (self._incarnation, None):
                self._sequence = newest.sequence
            else:
                raise Superseded(f"another process has started as {self._server_id}")
        except (BrokerUnavailable, WrongLastSequence) as error:  # the next heartbeat finds out
            log.debug("%s: lease not recovered: %s", self._server_id, error)
