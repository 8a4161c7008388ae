"""The lease watch: writes heartbeats of socket servers to Redis, and declares a server lost when its lease has expired.

A heartbeat is a message of the stream LEASE with a TTL. When the last one of a server expires, NATS stores a marker
(`LeaseExpired`); the watch then publishes LOST on `status.server.{serverId}`. See docs/architecture.md, section
"A loss, step by step".
"""

from __future__ import annotations

import logging
from typing import Any

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.addresses import AddressBook
from actors.runtime.actor.receiver import Consumer, Retry
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.status_log.status_log import StatusLog
from actors.watches.metrics import LEASE_EXPIRIES
from protocol.broker import subjects
from protocol.broker.stream_codecs import LeaseExpired, decode_lease
from protocol.broker.streams import LEASE_WATCH, REDELIVERY_SECONDS, is_marker
from protocol.errors import StateDamaged
from protocol.messages.facts import ConnectionStatusCode
from protocol.messages.server_messages import Lease
from protocol.records import keys, kinds
from protocol.records.writes import Touch
from protocol.rules import socket_server
from protocol.rules.history import fold
from protocol.rules.socket_server import ServerState
from protocol.times import format_time

log = logging.getLogger("examwire.lease_watch")

PIPELINE_WRITES = 64
"""Writes to Redis in one pipeline: a short one does not hold up the state manager in the same process."""


class LeaseWatch(Actor):
    """Follows the heartbeats of all socket servers. Several may run: they share the consumer.

    watch = LeaseWatch(settings, bus, store, "lw1")
    await supervisor.start_child(ChildSpec("lease-watch", lambda: watch))
    """

    kind = "lease-watch"
    receives = (Consumer(LEASE_WATCH, decode_lease, keep_alive=REDELIVERY_SECONDS / 4),)

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"lease-watch.{name}", bus)
        self._actors = AddressBook(bus)
        self._bus = bus
        self._store = store
        self._log = StatusLog(bus)
        # While the broker was away no server could renew its lease: they get so much time to do it.
        self._grace = settings.server.lease_seconds + 2.0
        self._max_checks = round(3 * self._grace)
        """Checks a second apart, after which a server is declared lost even if the broker never becomes steady."""
        self._heartbeat_seconds = settings.server.lease_seconds / 3 + 0.3
        """The time within which the next heartbeat of a live server arrives."""
        self.heartbeats = self.lost = 0

    def details(self) -> dict[str, Any]:
        return {"heartbeats": self.heartbeats, "lost": self.lost}

    @on(Lease)
    async def record_heartbeat(self, lease: Lease) -> None:
        """Write a heartbeat to Redis: the server's measurements, and the activity of its sessions."""
        measured = {
            "cpuUsage": f"{lease.cpu_usage:.1f}",
            "memoryUsage": f"{lease.memory_usage:.1f}",
            "networkStatus": lease.network_status,
            "sessions": str(lease.sessions),
        }
        touches = [
            Touch(
                keys.server_status(lease.server_id),
                "incarnation",
                lease.incarnation,
                "lastHeartbeat",
                lease.timestamp,
                measured,
            )
        ]
        for plan_id, examinee_id, socket_id, active_at in lease.active:
            connected = ConnectionStatusCode.CONNECTED.value
            touches.append(Touch(keys.socket(plan_id, socket_id), "status", connected, "lastHeartbeat", active_at))
            touches.append(
                Touch(keys.progress(plan_id, examinee_id), "liveSocketId", socket_id, "lastActiveTime", active_at)
            )
        for start in range(0, len(touches), PIPELINE_WRITES):
            await self._store.touch(touches[start : start + PIPELINE_WRITES])
        self.heartbeats += 1

    @on(LeaseExpired)
    async def declare_lost(self, expired: LeaseExpired, delivery: Delivery) -> None:
        """Publish LOST for a server whose lease has expired, unless it renews it within the grace period."""
        server_id = expired.server_id
        newest = await self._bus.last_message(LEASE_WATCH.stream, delivery.subject)
        if newest is not None and not is_marker(newest.headers):
            return  # it has renewed its lease
        # A stall of the broker, of the network or of this machine may have delayed the renewals too, and nobody can
        # renew while the stream has no leader.
        steady_seconds = min(self._bus.steady_seconds, await self._bus.leader_age(LEASE_WATCH.stream))
        if steady_seconds < self._grace and delivery.attempt < self._max_checks:
            raise Retry(1.0)
        if delivery.attempt == 1:
            # The server's machine may have been paused and has just resumed: it renews the lease with its next
            # heartbeat. Wait for that one before all its clients count as disconnected.
            raise Retry(self._heartbeat_seconds)
        server = await self._server(server_id)
        if server.incarnation is not None and server.status in socket_server.ALIVE:
            about = {"server": server_id}
            log.error("%s: %s (%s) is lost: no heartbeat", self.address, server_id, server.incarnation, extra=about)
            now = format_time(self._bus.clock.now())
            lost = socket_server.lost(server_id, server, now)
            message_id = f"lost:{server_id}:{delivery.sequence}"
            await self._actors.tell(subjects.status_server(server_id), lost, message_id=message_id)
            self.lost += 1
            LEASE_EXPIRIES.inc()

    async def _server(self, server_id: str) -> ServerState:
        """Read the record of a server; fold it from the log when the record cannot be read."""
        (stored,) = await self._store.load([keys.server_status(server_id)])
        try:
            if isinstance(stored, StateDamaged):
                raise stored
            return fold(kinds.SERVER.read(stored.history), kinds.SERVER.rule)
        except (ValueError, StateDamaged) as error:
            log.warning("%s: %s: its record cannot be read: %s", self.address, server_id, error)
            return await self._log.server(server_id)
