"""The lease watch: heartbeats into Redis, and a LOST into the log when a server's last one has expired."""

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
from protocol.messages.facts import ConnectionStatusCode, LossReason
from protocol.messages.server_messages import Lease, ServerStatus, ServerStatusCode
from protocol.records import keys
from protocol.records import kinds as records
from protocol.records.writes import Touch
from protocol.rules.history import fold
from protocol.rules.socket_server import ServerState
from protocol.times import format_time

log = logging.getLogger("examwire.lease_watch")

TOUCHES = 64  # a pipeline so short does not hold up the state manager beside us
ALIVE = (ServerStatusCode.STARTING, ServerStatusCode.READY, ServerStatusCode.DRAINING, ServerStatusCode.STOPPING)


class LeaseWatch(Actor):
    """Follows the heartbeats of all socket servers. Several may run: they share the consumer."""

    kind = "lease-watch"
    receives = (Consumer(LEASE_WATCH, decode_lease, keep_alive=REDELIVERY_SECONDS / 4),)

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"lease-watch.{name}", bus)
        self._actors = AddressBook(bus)
        self._bus = bus
        self._store = store
        self._log = StatusLog(bus)
        # A broker that was away lets leases expire that nobody could renew: give the servers time to come back.
        self._grace = settings.server.lease_seconds + 2.0
        self._looks = round(3 * self._grace)
        """Trouble that never ends makes nobody immortal: so many looks, a second apart, are enough in any case."""
        self._second_look = settings.server.lease_seconds / 3 + 0.3
        self.heartbeats = self.lost = 0

    def details(self) -> dict[str, Any]:
        return {"heartbeats": self.heartbeats, "lost": self.lost}

    @on(Lease)
    async def record_heartbeat(self, lease: Lease) -> None:
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
        for plan_id, examinee_id, socket_id, heard in lease.active:
            connected = ConnectionStatusCode.CONNECTED.value
            touches.append(Touch(keys.socket(plan_id, socket_id), "status", connected, "lastHeartbeat", heard))
            touches.append(
                Touch(keys.progress(plan_id, examinee_id), "liveSocketId", socket_id, "lastActiveTime", heard)
            )
        for start in range(0, len(touches), TOUCHES):
            await self._store.touch(touches[start : start + TOUCHES])
        self.heartbeats += 1

    @on(LeaseExpired)
    async def declare_lost(self, expired: LeaseExpired, delivery: Delivery) -> None:
        server_id = expired.server_id
        newest = await self._bus.last_message(LEASE_WATCH.stream, delivery.subject)
        if newest is not None and not is_marker(newest.headers):
            return  # it was heard from again
        # What stood still for us (the broker, the path to it, this machine) may have held up the servers' renewals as
        # well. Nor could anybody renew while the stream had no leader.
        since = min(self._bus.steady_seconds, await self._bus.leader_age(LEASE_WATCH.stream))
        if since < self._grace and delivery.attempt < self._looks:
            raise Retry(1.0)
        if delivery.attempt == 1:
            # A machine that stood still (paused, swapping) wakes up to an expired lease and a server that renews it at
            # its next heartbeat: one more of those, before a whole hall is called disconnected.
            raise Retry(self._second_look)
        server = await self._server(server_id)
        if server.incarnation is not None and server.status in ALIVE:
            about = {"server": server_id}
            log.error("%s: %s (%s) is lost: no heartbeat", self.address, server_id, server.incarnation, extra=about)
            now = format_time(self._bus.clock.now())
            lost = ServerStatus(
                server_id=server_id,
                status=ServerStatusCode.LOST,
                incarnation=server.incarnation,
                start_time=server.start_time or now,
                timestamp=now,
                reason=LossReason.SERVER_LOST.value,
            )
            message_id = f"lost:{server_id}:{delivery.sequence}"
            await self._actors.tell(subjects.status_server(server_id), lost, message_id=message_id)
            self.lost += 1
            LEASE_EXPIRIES.inc()

    async def _server(self, server_id: str) -> ServerState:
        """What is known of a server; by the log when its record cannot be read."""
        (stored,) = await self._store.load([keys.server_status(server_id)])
        try:
            if isinstance(stored, StateDamaged):
                raise stored
            return fold(records.SERVER.read(stored.history), records.SERVER.rule)
        except (ValueError, StateDamaged) as error:
            log.warning("%s: %s: its record cannot be read: %s", self.address, server_id, error)
            return await self._log.server(server_id)
