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
from actors.runtime.broker.stream_specs import config_difference, consumer_config
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from protocol.broker import subjects
from protocol.broker.stream_codecs import parse_lease
from protocol.broker.streams import (
    SOCKET,
    broadcast_consumer,
    is_marker,
    queue_consumers,
    queue_id,
    queue_ids,
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
        self.spawn(BROKER.follow(self._bus, [stream.name for stream in self._topology.streams]), "metrics")
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
        name = request.queue_id
        if name not in (lanes := queue_ids(request.server_id)):
            detail = f"must be {lanes[0]}, or {lanes[1]} to {lanes[-1]}"
            return ProtocolError(ErrorCode.INVALID_FIELD, detail, "data.queueId")
        try:
            holder = await self._lease_holder(request.server_id)
            if holder is not None and holder != request.incarnation:
                detail = f"another process holds the lease of {request.server_id}: its queue is not yours"
                return ProtocolError(ErrorCode.NOT_ALLOWED, detail, "data.incarnation")
            consumers = await self._make(request)
        except BrokerUnavailable as error:
            return ProtocolError(ErrorCode.UNAVAILABLE, str(error))
        except Exception as error:  # one bad request must not stop the queues of the other servers
            self.record_failure(error)
            log.exception("%s: the queue of %s was not created", self.address, request.server_id)
            return ProtocolError(ErrorCode.UNAVAILABLE, f"not made: {type(error).__name__}: {error}"[:500])
        self._queues[name] = consumers
        if not consumers:
            del self._queues[name]
        return QueueCreated(server_id=request.server_id, queue_id=name, stream=SOCKET.name, consumers=consumers)

    async def _lease_holder(self, server_id: str) -> str | None:
        """Return the incarnation that holds the lease of a server; a server takes it before it asks for its queue."""
        newest = await self._bus.last_message("LEASE", subjects.lease(server_id))
        if newest is None or is_marker(newest.headers):
            return None
        try:
            return parse_lease(server_id, newest.payload).incarnation
        except ProtocolError:
            return None  # not written by a server

    async def _make(self, request: QueueCreate) -> list[str]:
        """Make the consumers of a lane of a queue, and return their names."""
        specs = queue_consumers(request)
        for spec in specs:
            existing = await self._bus.consumer_config(spec.stream, spec.name)
            metadata = (existing or {}).get("metadata") or {}
            of_another_process = metadata.get("examwire.incarnation") != spec.metadata["examwire.incarnation"]
            # A process that starts has no clients yet: nobody needs what waited for its predecessor.
            anew = existing is not None and (of_another_process or spec.name in request.reset)
            if anew and of_another_process and spec.name == queue_id(request.server_id):
                await self._delete_further_lanes(request.server_id)
            # An update costs NATS much when there are many filters: only the consumer that changes gets one.
            if anew or existing is None or config_difference(consumer_config(spec), existing):
                await self._bus.apply_consumer(spec, anew=anew)
        names = [spec.name for spec in specs]
        for name in (request.queue_id, broadcast_consumer(request.queue_id)):
            if name not in names:
                await self._bus.delete_consumer(SOCKET.name, name)
        return names

    async def _delete_further_lanes(self, server_id: str) -> None:
        """Delete what an earlier process of a server has left."""
        lanes = queue_ids(server_id)[1:]
        names = {*lanes, *(broadcast_consumer(lane) for lane in lanes)}
        for state in await self._bus.consumer_states(SOCKET.name):
            if state.name in names:
                await self._bus.delete_consumer(SOCKET.name, state.name)
