"""The lease of a socket server: renewed while it is alive, with its load and the activity of its clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from actors.runtime.broker.connection import Outgoing
from actors.runtime.broker.stream_state import StoredMessage
from actors.sessions.context import ServerContext
from actors.socket_server.sessions import Sessions
from actors.socket_server.status import StatusPublisher
from protocol.broker import subjects
from protocol.broker.stream_codecs import parse_lease
from protocol.broker.streams import is_marker
from protocol.errors import BrokerUnavailable, ProtocolError, StateDamaged, StateUnavailable, WrongLastSequence
from protocol.messages.server_messages import Lease, ServerStatusCode
from protocol.records import keys
from protocol.times import format_time

log = logging.getLogger("examwire.lease")


class Superseded(Exception):
    """Another process holds the lease of this serverId now."""


class LeaseKeeper:
    """Claims `lease.{serverId}` and renews it.

    Each renewal is stored only if it follows the one before, so only one process holds the lease.

    lease = LeaseKeeper(context, status, sessions)
    await lease.claim(takeover=True)
    await lease.run()  # until cancelled, or `Superseded`

    When the lease had expired and is held again, the status and all sessions are announced again: others may have
    declared this server lost.
    """

    def __init__(self, context: ServerContext, status: StatusPublisher, sessions: Sessions) -> None:
        self._bus = context.bus
        self._store = context.store
        self._server_id = context.server_id
        self._incarnation = context.incarnation
        self._seconds = context.settings.server.lease_seconds
        self._status = status
        self._load = status.load
        self._sessions = sessions
        self._sequence: int | None = None
        self._expired = False
        """Whether the lease had expired, and all sessions are still to be announced again."""
        self._renew_now = asyncio.Event()

    async def claim(self, *, takeover: bool) -> None:
        """Take the lease from its holder. Without `takeover`, only from a holder that is not alive.

        Raises `BrokerUnavailable`, or `Superseded` when another process is alive and keeps it.
        """
        self._load.measure()
        self._sequence = None
        if takeover:
            await self._publish()
            return
        seen: int | None = None
        expires_at = time.monotonic() + 2 * self._seconds
        while True:
            newest = await self._newest()
            holder = self._holder_of(newest)
            not_renewed = newest is not None and newest.sequence == seen and time.monotonic() > expires_at
            if holder in (None, self._incarnation) or not_renewed:
                try:
                    await self._publish_after(newest)
                except WrongLastSequence:
                    continue  # another process was quicker
                return
            assert newest is not None
            if seen is not None and newest.sequence != seen:
                raise Superseded(f"another process runs as {self._server_id}")
            # A holder that is alive renews the lease; otherwise the lease expires.
            seen = newest.sequence
            await asyncio.sleep(self._seconds / 6)

    async def run(self) -> None:
        """Renew until cancelled; at once when NATS is back, or the lease seems lost. Raises `Superseded`."""

        async def is_back() -> None:
            self._renew_now.set()

        self._bus.on_reconnected.append(is_back)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds / 3):
                        await self._renew_now.wait()
                self._renew_now.clear()
                await self._renew()
        finally:
            self._bus.on_reconnected.remove(is_back)

    def renew_soon(self) -> None:
        """Have `run` renew the lease at once: the queue server says that another process holds it."""
        self._renew_now.set()

    async def is_ours(self) -> bool:
        """Return whether this process holds the lease; if not, `run` raises. Raises `BrokerUnavailable`."""
        ours = self._holder_of(await self._newest()) in (None, self._incarnation)
        if not ours:
            self.renew_soon()
        return ours

    async def confirm_alive(self) -> bool:
        """Publish the status again, for this server was declared lost. False: another process has taken its place."""
        try:
            if not await self.is_ours():
                return False
        except BrokerUnavailable as error:
            log.debug("%s: the owner of the lease cannot be read: %s", self._server_id, error)
        await self._status.publish_again()
        return True

    async def announce_all(self) -> None:
        """Publish the status and announce all sessions again."""
        await self._status.publish_again()
        self._sessions.announce_all()

    async def announce_anew(self, reason: str) -> None:
        """Announce everything: what is recorded about this server and its sockets may be gone or outdated.

        Sockets that are recorded for this server and are not open here are reported as closed, before those that are
        open: an examinee may have come back to this server by another socket.
        """
        about = {"server": self._server_id, "reason": reason}
        log.warning(
            "%s: announcing %d sessions (%s)", self._server_id, len(self._sessions.examinees), reason, extra=about
        )
        try:
            if not await self.is_ours():
                return
        except BrokerUnavailable as error:
            log.debug("%s: the owner of the lease cannot be read: %s", self._server_id, error)
        entries: dict[str, str] = {}
        try:
            record = await self._store.entries(keys.server_status(self._server_id))
            if record.get("incarnation") != self._incarnation:  # of an older process: it ignores any other status
                await self._status.publish_if_possible(ServerStatusCode.STARTING)
            entries = await self._store.entries(keys.server_sockets(self._server_id))
        except (StateUnavailable, StateDamaged) as error:
            log.warning("%s: sockets that are closed are not reported as such: %s", self._server_id, error)
        self._sessions.report_closed(entries)
        await self.announce_all()

    async def _renew(self) -> None:
        self._load.measure()
        try:
            await self._publish()
        except BrokerUnavailable as error:
            self._load.network_status = "BAD"
            log.debug("%s: heartbeat not stored: %s", self._server_id, error)
        except WrongLastSequence:
            await self._recover()

    async def _publish(self) -> None:
        sessions, active = self._sessions.active()
        lease = Lease.model_construct(
            server_id=self._server_id,
            incarnation=self._incarnation,
            timestamp=format_time(self._bus.clock.now()),
            cpu_usage=self._load.cpu_usage,
            memory_usage=self._load.memory_usage,
            network_status=self._load.network_status,
            sessions=sessions,
            active=active,
        )
        headers = {"Nats-TTL": f"{self._seconds}s"}
        if self._sequence is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(self._sequence)
        started = time.monotonic()
        message = Outgoing.of(subjects.lease(self._server_id), lease, headers=headers)
        ack = await self._bus.publish(message, timeout=self._seconds / 2)
        took = time.monotonic() - started
        self._load.network_status = "GOOD" if took < 0.1 else "SLOW" if took < 1.0 else "BAD"
        self._sequence = ack.sequence
        if self._expired:
            self._expired = False
            await self.announce_all()

    async def _publish_after(self, newest: StoredMessage | None) -> None:
        """Take the lease, unless another process has published it after `newest`. Raises `WrongLastSequence`."""
        self._sequence = newest.sequence if newest is not None else 0
        await self._publish()

    async def _newest(self) -> StoredMessage | None:
        return await self._bus.last_message("LEASE", subjects.lease(self._server_id))

    def _holder_of(self, newest: StoredMessage | None) -> str | None:
        """Return the incarnation that holds the lease; `None`: no process does."""
        return None if newest is None or is_marker(newest.headers) else self._holder(newest.payload)

    def _holder(self, payload: bytes) -> str | None:
        """Return the incarnation that a lease names; `None`: this is no lease, so no process has taken over by it."""
        try:
            return parse_lease(self._server_id, payload).incarnation
        except ProtocolError as error:
            log.error("%s: the message in place of the lease is not a lease: %s", self._server_id, error)
            return None

    async def _recover(self) -> None:
        """Find out who has published since: this process (its ack was lost), a successor, or NATS, when it expired."""
        try:
            newest = await self._newest()
            if newest is None or is_marker(newest.headers):
                about = {"server": self._server_id}
                log.error("%s: the lease had expired; announcing all sessions again", self._server_id, extra=about)
                self._expired = True
                self._load.measure()
                await self._publish_after(newest)
            elif self._holder(newest.payload) in (self._incarnation, None):
                self._sequence = newest.sequence
            else:
                raise Superseded(f"another process has started as {self._server_id}")
        except (BrokerUnavailable, WrongLastSequence) as error:  # the next renewal finds out
            log.debug("%s: lease not recovered: %s", self._server_id, error)
