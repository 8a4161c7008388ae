"""Reads the queue of a socket server, and hands over what it brings in batches."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from actors.runtime.actor.actor import Actor
from actors.runtime.actor.receiver import Batch, Consumer, Receiver
from actors.runtime.broker.consumers.consumer import Delivery, acknowledge
from actors.sessions.context import ServerContext
from actors.socket_server.delivery.queue import ServerQueue
from actors.socket_server.lease import LeaseKeeper
from actors.socket_server.metrics import EXPIRED
from actors.socket_server.sessions import Sessions
from protocol.broker.stream_codecs import ToSocketServer, decode_socket
from protocol.broker.streams import SOCKET, ConsumerSpec, broadcast_consumer, queue_id
from protocol.errors import BrokerUnavailable, ConsumerGone

log = logging.getLogger("examwire.server_queue")


@dataclass(frozen=True, slots=True)
class QueueBatch(Batch[ToSocketServer]):
    """Deliveries of one consumer of the queue; the socket server has the handler."""


class QueueReader:
    """Reads all consumers of the queue for the socket server, which handles each `QueueBatch`.

    reader = QueueReader(context, queue, sessions, lease, server)
    await reader.run()  # until cancelled

    Messages older than the queue's `expireTime` are not delivered. When more than `maxSize` messages wait, they are
    dropped. Then, or when a consumer had vanished, what clients must know comes from Redis instead.
    """

    def __init__(
        self, context: ServerContext, queue: ServerQueue, sessions: Sessions, lease: LeaseKeeper, server: Actor
    ) -> None:
        self._context = context
        self._queue = queue
        self._sessions = sessions
        self._lease = lease
        self._server = server
        self._reading: set[str] = set()
        self._missed: set[str] = set()

    async def run(self) -> None:
        """Read all consumers that the queue has, and those that it gets later."""
        while True:
            for consumer in self._queue.consumers:
                if consumer not in self._reading:
                    self._reading.add(consumer)
                    self._server.spawn(self._read(consumer), f"queue:{consumer}")
            await self._queue.changed.wait()
            self._queue.changed.clear()

    async def resynchronise(self, consumers: Sequence[str]) -> None:
        """Have clients told from Redis what the messages of these consumers would have told them."""
        queue, sessions = self._queue, self._sessions
        broadcasts = {name for name in consumers if name.endswith(broadcast_consumer(""))}
        own = set(consumers) - broadcasts
        unshared = {name for name in own if broadcast_consumer(name) not in queue.consumers}
        sessions.resynchronise({plan_id for name in broadcasts | unshared for plan_id in queue.plans_of(name)})
        # Each announcement is answered by a session_state, or by the close of a session that was replaced or shut out.
        if queue_id(self._context.server_id) in own:
            await self._lease.announce_all()
        elif own:
            sessions.announce({plan_id for name in own for plan_id in queue.plans_of(name)})
        await sessions.tell_plans({plan_id for name in consumers for plan_id in queue.plans_of(name)})

    async def _read(self, consumer: str) -> None:
        queue = self._queue
        declared = Consumer(ConsumerSpec(SOCKET.name, consumer), decode_socket, batch=QueueBatch)
        receiver = Receiver(self._server, self._context.bus, declared)
        while True:
            try:
                async with contextlib.aclosing(queue.batches(consumer)) as batches:
                    async for deliveries in batches:
                        await self._take(consumer, receiver, deliveries)
                        if deliveries[-1].pending > queue.config.max_size:
                            log.error("%s: %d messages wait; dropping them", consumer, deliveries[-1].pending)
                            await queue.create_surely(reset=[consumer])
                            await self.resynchronise([consumer])
                            break  # what was fetched already belongs to the backlog, and would be counted again
            except ConsumerGone as gone:
                if consumer not in queue.consumers:
                    self._reading.discard(consumer)  # the queue has shrunk
                    return
                log.error("%s; asking the queue server to create it again", gone)
                await queue.create_surely()
                # Others may have vanished too, and were created again before their readers have noticed.
                await self.resynchronise(queue.consumers)

    async def _take(self, consumer: str, receiver: Receiver[ToSocketServer], deliveries: list[Delivery]) -> None:
        """Hand over deliveries to the server, and wait until they are handled and acknowledged."""
        expired = await self._expired(deliveries)
        await acknowledge(list(expired))
        if fresh := [delivery for delivery in deliveries if delivery not in expired]:
            await receiver.take(fresh)
        if expired:
            self._missed.add(consumer)
        if consumer in self._missed and (fresh or not deliveries[-1].pending):
            self._missed.remove(consumer)  # it has caught up
            await self.resynchronise([consumer])

    async def _expired(self, deliveries: list[Delivery]) -> set[Delivery]:
        """Return the deliveries that are older than `expireTime`, by the broker's clock, and log how many there are."""
        keeps, clock = self._queue.config.expire_time, self._context.clock
        if not any(clock.now() - delivery.stored_at > keeps for delivery in deliveries):
            return set()
        try:
            await clock.measure()  # a clock may have been set since
        except BrokerUnavailable as error:
            log.debug("%s: %s", self._context.address, error)
        if not clock.known:
            return set()
        expired = {delivery for delivery in deliveries if clock.now() - delivery.stored_at > keeps}
        if expired:
            EXPIRED.inc(len(expired))
            text = "%s: %d messages are older than %d s (expireTime) and are not delivered"
            about = {"server": self._context.server_id}
            log.warning(text, self._context.address, len(expired), keeps, extra=about)
        return expired
