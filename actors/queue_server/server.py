"""The queue server: makes the streams, the consumers and the queues of the socket servers.

See docs/architecture.md, section "A server's start, step by step".
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from actors.queue_server.checkpoints import Checkpoints
from actors.queue_server.metrics import BROKER
from actors.queue_server.topology import topology
from actors.queue_server.topology_watch import TopologyWatch
from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.receiver import Requests
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from protocol.broker import subjects
from protocol.broker.stream_codecs import parse_lease
from protocol.broker.streams import (
    broadcast_consumer,
    is_marker,
    queue_consumers,
    queue_id,
)
from protocol.errors import (
    BrokerUnavailable,
    ErrorCode,
    NotAnswered,
    ProtocolError,
    StateUnavailable,
)
from protocol.messages.server_messages import QueueCreate, QueueCreated

log = logging.getLogger("examwire.queue_server")


class QueueServer(Actor):
    """Makes streams and consumers, queues on request, and all of them again when they vanish.

    Two of them may run: each can repeat the steps of the other. `store`: the Redis that may know how far a consumer
    that has vanished was.

        queue_server = QueueServer(settings, bus, "q1", store)
        await supervisor.start_child(ChildSpec("queue-server", lambda: queue_server))
    """

    kind = "queue-server"
    receives = (Requests("queue-create", subjects.QUEUE_CREATE, QueueCreate),)

    def __init__(
        self, settings: Settings, bus: Bus, name: str = "queue-server", store: StateStore | None = None
    ) -> None:
        super().__init__(f"queue-server.{name}", bus)
        self._settings = settings
        self._bus = bus
        checkpoints = Checkpoints(bus, store)
        self._topology = topology(bus, settings, checkpoints)
        self._watch = TopologyWatch(bus, self._topology, checkpoints)
        self._queues: dict[str, list[str]] = {}

    async def on_start(self) -> None:
        await self._apply_topology()
        self.spawn(BROKER.follow(self._bus), "metrics")
        self.spawn(self._watch.follow(), "topology")

    async def on_stop(self) -> None:
        if self.started_at is not None and self._bus.connected:
            await self._watch.save()

    def details(self) -> dict[str, Any]:
        return {"queues": self._queues}

    async def _apply_topology(self) -> None:
        attempt = 1
        while True:
            try:
                await self._topology.apply()
            except StateUnavailable as error:
                log.warning(
                    "%s: a consumer is not created until Redis returns the applied sequence: %s", self.address, error
                )
                return  # the topology watch makes it later; all others exist
            except NotAnswered as error:  # a cluster that forms or has lost its majority: wait for it
                log.warning("%s: the start waits for NATS: %s", self.address, error)
                await asyncio.sleep(1.0)
            except BrokerUnavailable as error:
                if attempt == self._settings.server.start_attempts:
                    raise
                log.warning("%s: %s; trying again", self.address, error)
                await asyncio.sleep(min(0.2 * 2**attempt, 2.0))
                attempt += 1
            else:
                return

    @on(QueueCreate)
    async def create(self, request: QueueCreate) -> QueueCreated | ProtocolError:
        """Create a queue, or update an existing one to the request. A refusal is an answer and fails nothing."""
        name = queue_id(request.server_id)
        if request.queue_id != name:
            return ProtocolError(ErrorCode.INVALID_FIELD, f"must be {name}", "data.queueId")
        try:
            holder = await self._lease_holder(request.server_id)
            if holder is not None and holder != request.incarnation:
                detail = f"another process holds the lease of {request.server_id}: its queue is not yours"
                return ProtocolError(ErrorCode.NOT_ALLOWED, detail, "data.incarnation")
            consumers = await self._make(name, request)
        except BrokerUnavailable as error:
            return ProtocolError(ErrorCode.UNAVAILABLE, str(error))
        except Exception as error:  # one bad request must not stop the queues of the other servers
            self.record_failure(error)
            log.exception("%s: the queue of %s was not created", self.address, request.server_id)
            return ProtocolError(ErrorCode.UNAVAILABLE, f"not made: {type(error).__name__}: {error}"[:500])
        self._queues[name] = consumers
        return QueueCreated(server_id=request.server_id, queue_id=name, stream="SOCKET", consumers=consumers)

    async def _lease_holder(self, server_id: str) -> str | None:
        """Return the incarnation that holds the lease of a server; a server takes it before it asks for its queue."""
        newest = await self._bus.last_message("LEASE", subjects.lease(server_id))
        if newest is None or is_marker(newest.headers):
            return None
        try:
            return parse_lease(server_id, newest.payload).incarnation
        except ProtocolError:
            return None  # not written by a server

    async def _make(self, name: str, request: QueueCreate) -> list[str]:
        """Make the consumers of a queue, and return their names."""
        specs = queue_consumers(request)
        for spec in specs:
            existing = await self._bus.consumer_config(spec.stream, spec.name)
            metadata = (existing or {}).get("metadata") or {}
            of_another_process = metadata.get("examwire.incarnation") != spec.metadata["examwire.incarnation"]
            # A process that starts has no clients yet: nobody needs what waited for its predecessor.
            anew = existing is not None and (of_another_process or spec.name in request.reset)
            await self._bus.apply_consumer(spec, anew=anew)
        names = [spec.name for spec in specs]
        if broadcast_consumer(name) not in names:
            await self._bus.delete_consumer("SOCKET", broadcast_consumer(name))
        return names
