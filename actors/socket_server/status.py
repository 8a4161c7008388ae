"""What a socket server says of itself: `server_status` (document 9.3, 9.5) into the log."""

from __future__ import annotations

import logging
import time

from actors.runtime.broker.connection import Bus, Outgoing
from actors.socket_server.lease import LeaseKeeper
from protocol.broker import subjects
from protocol.broker.streams import queue_id
from protocol.errors import BrokerUnavailable
from protocol.messages.codec import encode
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.times import format_time

log = logging.getLogger("examwire.socket_server")


class OwnStatus:
    """`now`: READY, DRAINING or STOPPING (`None` while it starts). `url`: the address for clients, once it is known."""

    def __init__(self, bus: Bus, heartbeat: LeaseKeeper, server_id: str, incarnation: str) -> None:
        self._bus = bus
        self._heartbeat = heartbeat
        self._server_id = server_id
        self._incarnation = incarnation
        self._start_time: str | None = None
        self.now: ServerStatusCode | None = None
        self.url = ""

    async def publish(self, status: ServerStatusCode, reason: str | None = None) -> None:
        """Say it. Raises `BrokerUnavailable` or `NotPermitted`."""
        await self._bus.publish(self._message(status, reason))
        about = {"server": self._server_id, "reason": reason}
        log.info("socket.%s: %s", self._server_id, status, extra=about)

    async def publish_quietly(self, status: ServerStatusCode, reason: str | None = None) -> None:
        """Say it if that is possible."""
        try:
            await self.publish(status, reason)
        except BrokerUnavailable as error:
            log.warning("socket.%s: %s could not be recorded: %s", self._server_id, status, error)

    async def publish_until_stored(self, status: ServerStatusCode) -> None:
        """Say it, however long that takes."""
        await self._bus.publish_until_stored([self._message(status)])

    async def say_again(self) -> None:
        """That it is there, to those who may think otherwise."""
        if self.now in (ServerStatusCode.READY, ServerStatusCode.DRAINING):
            await self.publish_quietly(self.now)

    def _message(self, status: ServerStatusCode, reason: str | None = None) -> Outgoing:
        started = status is not ServerStatusCode.STARTING
        now = format_time(self._bus.clock.now())
        self._start_time = self._start_time or now
        message = ServerStatus(
            server_id=self._server_id,
            status=status,
            incarnation=self._incarnation,
            start_time=self._start_time,
            timestamp=now,
            queue_id=queue_id(self._server_id) if started else None,
            cpu_usage=self._heartbeat.cpu_usage if started else None,
            memory_usage=self._heartbeat.memory_usage if started else None,
            network_status=self._heartbeat.network_status if started else None,
            url=self.url or None,
            reason=reason,
        )
        message_id = f"{self._incarnation}:{status}:{time.time_ns()}"
        return Outgoing(subjects.status_server(self._server_id), encode(message), message_id)
