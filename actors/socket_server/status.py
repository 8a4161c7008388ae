"""The status of a socket server in the log: `server_status`, with the load of its machine."""

from __future__ import annotations

import logging
import time
from typing import Literal

import psutil

from actors.runtime.broker.connection import Outgoing
from actors.sessions.context import ServerContext
from protocol.broker import subjects
from protocol.broker.streams import queue_id
from protocol.errors import BrokerUnavailable
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.times import format_time

log = logging.getLogger("examwire.socket_server")


class MachineLoad:
    """The load of the machine in percent, and how quickly NATS acknowledges the lease.

    load = MachineLoad()
    load.measure()
    load.cpu_usage  # since the measurement before
    """

    def __init__(self) -> None:
        self.cpu_usage = 0.0
        self.memory_usage = 0.0
        self.network_status: Literal["GOOD", "SLOW", "BAD"] = "GOOD"
        psutil.cpu_percent()  # the first call only starts the measurement

    def measure(self) -> None:
        """Measure the use of processors and memory."""
        self.cpu_usage = psutil.cpu_percent()
        self.memory_usage = psutil.virtual_memory().percent


class StatusPublisher:
    """Publishes the status of one socket server.

    status = StatusPublisher(context)
    await status.publish(ServerStatusCode.READY)
    status.enter(ServerStatusCode.READY)  # what `publish_again` repeats

    `current` is READY, DRAINING or STOPPING; `None` while the server starts. `url` is the address for clients, once the
    port is open.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._start_time: str | None = None
        self.load = MachineLoad()
        self.current: ServerStatusCode | None = None
        self.url = ""

    def enter(self, status: ServerStatusCode) -> None:
        """Note the status that the server has from now on."""
        self.current = status

    async def publish(self, status: ServerStatusCode, reason: str | None = None) -> None:
        """Publish a status and wait until it is stored. Raises `BrokerUnavailable` or `NotPermitted`."""
        await self._context.bus.publish(self._message(status, reason))
        about = {"server": self._context.server_id, "reason": reason}
        log.info("%s: %s", self._context.address, status, extra=about)

    async def publish_if_possible(self, status: ServerStatusCode, reason: str | None = None) -> None:
        """Publish a status; when NATS does not store it, log that."""
        try:
            await self.publish(status, reason)
        except BrokerUnavailable as error:
            log.warning("%s: %s could not be recorded: %s", self._context.address, status, error)

    async def publish_until_stored(self, status: ServerStatusCode) -> None:
        """Publish a status, and try again until it is stored."""
        await self._context.bus.publish_until_stored([self._message(status)])

    async def publish_again(self) -> None:
        """Publish the current status again: others may think that this server is lost."""
        if self.current in (ServerStatusCode.READY, ServerStatusCode.DRAINING):
            await self.publish_if_possible(self.current)

    def _message(self, status: ServerStatusCode, reason: str | None = None) -> Outgoing:
        server_id, incarnation = self._context.server_id, self._context.incarnation
        started = status is not ServerStatusCode.STARTING
        now = format_time(self._context.clock.now())
        self._start_time = self._start_time or now
        message = ServerStatus(
            server_id=server_id,
            status=status,
            incarnation=incarnation,
            start_time=self._start_time,
            timestamp=now,
            queue_id=queue_id(server_id) if started else None,
            cpu_usage=self.load.cpu_usage if started else None,
            memory_usage=self.load.memory_usage if started else None,
            network_status=self.load.network_status if started else None,
            url=self.url or None,
            reason=reason,
        )
        message_id = f"{incarnation}:{status}:{time.time_ns()}"
        return Outgoing.of(subjects.status_server(server_id), message, message_id=message_id)
