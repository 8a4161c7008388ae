"""The socket server: start-up in the order of the document, clients let in, messages handed to their sessions."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pydantic_core
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from actors.runtime.actor.actor import Actor, on
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.local_addresses import in_url, reachable_host
from actors.runtime.config.settings import Settings
from actors.runtime.config.tls import ServerTls
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.store.state_store import StateStore
from actors.sessions.outbox import Outbox
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.clients import Clients
from actors.socket_server.delivery.dispatch import Dispatcher
from actors.socket_server.delivery.log_end import LogEnd
from actors.socket_server.delivery.queue import QueueReader, ServerQueue
from actors.socket_server.drain import Departure
from actors.socket_server.keepalive import Keepalive
from actors.socket_server.lease import LeaseKeeper, Superseded
from actors.socket_server.metrics import EXPIRED
from actors.socket_server.session_list import page_of
from actors.socket_server.start import ServerStart
from actors.socket_server.status import OwnStatus
from actors.socket_server.view_status import ViewWatch
from protocol.broker import subjects
from protocol.broker.streams import broadcast_consumer, queue_id
from protocol.close_codes import CloseCode
from protocol.errors import (
    BrokerUnavailable,
    ConsumerGone,
    ErrorCode,
    ExamwireError,
    ProtocolError,
    RoleSuperseded,
)
from protocol.ids import check_server_id
from protocol.messages.codec import encode
from protocol.messages.facts import LossReason
from protocol.messages.frames import MAX_FRAME_BYTES, SUBPROTOCOL, error_frame
from protocol.messages.operator_requests import Done, Drain, Kick, Request
from protocol.messages.server_messages import SUPERSEDED, QueueConfig, ServerStatusCode

log = logging.getLogger("examwire.socket_server")

DRAIN_SECONDS = 8.0
SHRINK_SWEEPS = 40


@dataclass(frozen=True, slots=True)
class QueueBatch:
    """What one of the queue's consumers has brought."""

    deliveries: list[Delivery]


class SocketServer(Actor):
    """Holds the WebSockets of examinees and proctors."""

    kind = "socket-server"
    mailbox_capacity = 4

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, server_id: str) -> None:
        super().__init__(subjects.socket_server(check_server_id(server_id)), bus)
        self.server_id = server_id
        self.incarnation = secrets.token_hex(6)
        self._settings = settings
        self._bus = bus
        self._store = store
        log_end = LogEnd(bus, server_id)
        self._outbox = Outbox(bus, server_id, self.incarnation, log_end.heard_of)
        config = QueueConfig(
            max_size=settings.socket.queue_max_size,
            expire_time=settings.socket.queue_expire_seconds,
            priority=settings.socket.queue_priority,
        )
        self._queue = ServerQueue(bus, server_id, self.incarnation, config, lambda: self._heartbeat.renew_soon())
        self._reading = QueueReader(
            self._queue, self.spawn, lambda deliveries: self.put(QueueBatch(deliveries)), self._resynchronise
        )
        self._heartbeat = LeaseKeeper(
            bus,
            server_id,
            self.incarnation,
            settings.server.lease_seconds,
            lambda: self._clients.active(),
            self._announce_all,
        )
        self._own = OwnStatus(bus, self._heartbeat, server_id, self.incarnation)
        self._start = ServerStart(bus, self._own, server_id, settings.server.start_attempts)
        self._tls = ServerTls.of("socket", settings.socket.certificate_file, settings.socket.key_file)
        self._server: Server | None = None
        self.port = 0  # where it listens, once it does
        self._endpoints = ReadyServers(store, server_id)
        self._view = ViewWatch(bus, self._queue, self._outbox)
        self._clients = Clients(
            settings,
            bus,
            store,
            self._outbox,
            self._queue,
            self._endpoints,
            self._view,
            server_id=server_id,
            incarnation=self.incarnation,
            follow_queue=self._reading.follow,
        )
        self._deliveries = Dispatcher(self, self._clients, bus, log_end, self._say_ready)
        self._departure: Departure | None = None
        self._stopped_because: str | None = None

    @property
    def url(self) -> str:
        """The address that clients are given; empty until the port is open."""
        return self._own.url

    # -- start-up (document 9.2) ---------------------------------------------------------------------

    async def on_start(self) -> None:
        # The lease comes first: a STARTING of ours must not meet the expiry of our predecessor's lease.
        await self._start.step("LEASE_FAILED", self._claim)
        await self._start.step("STARTING_FAILED", lambda: self._own.publish(ServerStatusCode.STARTING))
        await self._start.step("QUEUE_CREATE_FAILED", self._queue.create)
        await self._start.step("SUBSCRIBE_FAILED", self._subscribe)
        self.spawn(self._view.run(self._clients.sessions), "view")
        self.spawn(self._outbox.run(), "outbox")
        await self._start.step("HANDLER_REGISTER_FAILED", self.announce_on_bus)
        await self._endpoints.read()
        await self._start.step("PORT_OPEN_FAILED", self._open_port)
        self._heartbeat.measure()
        await self._start.step("READY_FAILED", lambda: self._own.publish(ServerStatusCode.READY))
        self._own.now = ServerStatusCode.READY
        self.spawn(self._watch_lease(), "lease")
        self.spawn(self._sweep(), "sweep")
        self.spawn(self._endpoints.follow(), "endpoints")
        if self._tls is not None:
            self.spawn(self._tls.follow(), "certificate")

    async def _claim(self) -> None:
        await self._bus.clock.measure()  # from the first message on, all times go by the broker's clock
        try:
            await self._heartbeat.claim(takeover=self._settings.server.takeover)
        except Superseded as superseded:
            raise RoleSuperseded(f"{superseded}, and server.takeover is off: this one ends") from superseded

    async def _subscribe(self) -> None:
        for consumer in self._queue.consumers:
            if await self._bus.consumer_config("SOCKET", consumer) is None:
                raise ConsumerGone(f"consumer SOCKET/{consumer} does not exist")
        self._reading.follow()

    async def _open_port(self) -> None:
        socket = self._settings.socket
        self._server = await serve(
            self._clients.handle,
            socket.host,
            socket.port,
            select_subprotocol=_select_subprotocol,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            open_timeout=10,
            close_timeout=3,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=4,
            server_header=None,
            create_connection=cast(Any, partial(self._clients.handshake, self._tls)),
            backlog=4096,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        scheme = "wss" if self._tls is not None else "ws"
        self._own.url = socket.public_url or f"{scheme}://{in_url(reachable_host(socket.host))}:{self.port}/v1/connect"
        self._endpoints.own = self._own.url

    # -- shutdown ------------------------------------------------------------------------------------

    async def on_stop(self) -> None:
        """Stop accepting, 1012 to clients, what they left behind into the log, STOPPED."""
        self._own.now = ServerStatusCode.STOPPING
        deadline = time.monotonic() + DRAIN_SECONDS
        reader = asyncio.create_task(self._outbox.run())
        try:
            if self._server is not None:
                if self._bus.connected and self.started_at is not None:
                    await self._own.publish_quietly(ServerStatusCode.STOPPING)
                for connection in self._connections():
                    connection.end_reason = connection.end_reason or LossReason.SERVER_STOPPED.value
                self._clients.door.close()
                self._server.close(code=CloseCode.SERVICE_RESTART, reason="SERVICE_RESTART")
                try:
                    async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                        await self._server.wait_closed()
                except TimeoutError:
                    for connection in self._connections():
                        connection.transport.abort()
            if self._bus.connected:
                if not await self._outbox.flush(max(1.0, deadline - time.monotonic())):
                    log.error("%s: %d statuses could not be stored", self.address, len(self._outbox))
                if self._server is not None and self.started_at is not None:
                    await self._own.publish_quietly(ServerStatusCode.STOPPED, self._stopped_because)
        finally:
            reader.cancel()

    # -- from the queue ------------------------------------------------------------------------------

    async def _resynchronise(self, consumer: str) -> None:
        """Messages of one consumer were dropped: what clients must know comes from Redis instead."""
        broadcasts = broadcast_consumer(queue_id(self.server_id))
        if consumer == broadcasts or broadcasts not in self._queue.consumers:
            self._clients.resynchronise()
        if consumer != broadcasts:
            # A session_state answers each, which tells what is recorded, or the close of who was replaced or shut out.
            await self._announce_all()

    @on(QueueBatch)
    async def deliver(self, batch: QueueBatch) -> None:
        expired = await self._expired(batch.deliveries)
        for delivery in batch.deliveries:
            if delivery not in expired:
                await self._deliveries.hand_over(delivery)
            else:
                await delivery.ack()
        self.handled += len(batch.deliveries) - 1  # a batch counts as its messages

    async def _expired(self, deliveries: list[Delivery]) -> set[Delivery]:
        """Those that are older than the queue keeps them, by the clock that has stamped them; said if there are any."""
        keeps, clock = self._queue.config.expire_time, self._bus.clock
        if not any(clock.now() - delivery.stored_at > keeps for delivery in deliveries):
            return set()
        try:
            await clock.measure()  # it may have been set since
        except BrokerUnavailable as error:
            log.debug("%s: %s", self.address, error)
        if not clock.known:
            return set()
        expired = {delivery for delivery in deliveries if clock.now() - delivery.stored_at > keeps}
        if expired:
            EXPIRED.inc(len(expired))
            text = "%s: %d messages are older than %d s (expireTime) and are not delivered"
            log.warning(text, self.address, len(expired), keeps, extra={"server": self.server_id})
        return expired

    # -- what goes on beside -------------------------------------------------------------------------

    async def _watch_lease(self) -> None:
        try:
            await self._heartbeat.run()
        except Superseded as superseded:
            self._stopped_because = SUPERSEDED
            await self._end_all(CloseCode.SERVER_SUPERSEDED, LossReason.SERVER_RESTARTED.value)
            raise RoleSuperseded(f"{superseded}: this one ends, and must not be started again") from superseded

    async def _say_ready(self) -> bool:
        """That it is there, to those who think otherwise; False: another process has taken its place, and it ends."""
        try:
            if not await self._heartbeat.is_ours():
                return False
        except BrokerUnavailable as error:
            log.debug("%s: whose the lease is cannot be seen: %s", self.address, error)
        await self._own.say_again()
        return True

    async def _announce_all(self) -> None:
        """After an expired lease others may think that this server and its sessions are lost."""
        await self._own.say_again()
        self._clients.announce_all()

    async def _sweep(self) -> None:
        """Look after the sockets all the time; send clients elsewhere when NATS is away for long."""
        sweep = Keepalive(self._settings.socket, self._connections)
        swept = 0
        while True:
            await sweep.once()
            away = self._bus.disconnected_at
            if away is not None and time.monotonic() - away > self._settings.socket.isolation_seconds:
                await self._end_all(CloseCode.SERVER_ISOLATED, LossReason.SERVER_ISOLATED.value)
            self._reading.follow()
            swept += 1
            if swept % SHRINK_SWEEPS == 0 and self._bus.connected:
                self.spawn(self._shrink_queue(), "shrink")

    async def _shrink_queue(self) -> None:
        examinee_plans = {session.plan_id for session in self._clients.examinees.values()}
        try:
            await self._queue.shrink(set(self._clients.feeds), examinee_plans)
        except ExamwireError as error:
            log.warning("%s: the queue keeps plans that nobody needs: %s", self.address, error)

    async def _end_all(self, code: CloseCode, reason: str) -> None:
        closing = [asyncio.create_task(connection.end(code, reason)) for connection in self._connections()]
        if closing:
            await asyncio.wait(closing, timeout=5)

    # -- what an operator asks -----------------------------------------------------------------------

    async def control(self, request: Request) -> Done:
        match request:
            case Drain():
                return await self._begin_drain(request)
            case Kick():
                return self._kick(request)
            case _:
                return await super().control(request)

    async def _begin_drain(self, request: Drain) -> Done:
        if self._departure is not None:
            return self._departure.asked_again(request)
        if self._own.now is not ServerStatusCode.READY:
            raise ProtocolError(ErrorCode.UNAVAILABLE, f"{self.server_id} is not READY")
        await self._endpoints.read()
        if not self._endpoints.others and not request.force:
            detail = f"no other server is READY: the clients of {self.server_id} would have nowhere to go"
            raise ProtocolError(ErrorCode.UNAVAILABLE, detail)
        self._own.now = ServerStatusCode.DRAINING
        self._departure = departure = Departure(
            request,
            self._clients,
            self._endpoints,
            self._outbox,
            announce=lambda: self._own.publish_until_stored(ServerStatusCode.DRAINING),
            connections=self._connections,
            end=self._drained,
        )
        self.spawn(departure.run(), "drain")
        return Done(text=f"{self.server_id}: {departure.plan()}", details=departure.progress())

    def _drained(self) -> None:
        if self.end_role is not None:
            self.end_role()

    def _kick(self, request: Kick) -> Done:
        session = self._clients.session_of(request.socket_id)
        if session is None:
            raise ProtocolError(ErrorCode.NOT_FOUND, f"{self.server_id} holds no {request.socket_id}", "data.socketId")
        # Not waited for: a client that does not answer a close takes some seconds.
        self.spawn(session.connection.end(CloseCode.KICKED, LossReason.KICKED.value), "kick")
        return Done(text=f"{session.address} is closed with {CloseCode.KICKED:d}", details=session.details())

    def _connections(self) -> list[WebSocketConnection]:
        connections = self._server.all_connections if self._server is not None else ()
        return [connection for connection in connections if isinstance(connection, WebSocketConnection)]

    # -- inspection ----------------------------------------------------------------------------------

    def child(self, address: str) -> Actor | None:
        return self._clients.session_at(address)

    def details(self) -> dict[str, Any]:
        return {
            "consumers": [f"SOCKET/{consumer}" for consumer in self._queue.consumers],
            "serverId": self.server_id,
            "incarnation": self.incarnation,
            "url": self.url,
            "accepting": self._server is not None and self._bus.connected and self._own.now is ServerStatusCode.READY,
            "sockets": self._clients.sockets,
            "examinees": len(self._clients.examinees),
            "proctors": sum(len(feed.proctors) for feed in self._clients.feeds.values()),
            "outbox": len(self._outbox),
            "stored": self._outbox.stored,
            "refused": self._clients.refused,
            "lastSessionError": self._clients.last_error,
            "plans": self._queue.plans,
            "plansNotCurrent": self._view.not_current,
            "drain": self._departure.progress() if self._departure is not None else None,
        }

    async def inspect(self, request: bytes) -> bytes:
        """`{"sessions": {...}}` lists sessions (see `session_list`), anything else is answered with the inspection."""
        try:
            asked = pydantic_core.from_json(request) if request else {}
            page = asked.get("sessions") if isinstance(asked, dict) else None
            if page is not None:
                return await page_of(self._clients.sessions(), page)
        except ValueError as error:
            return encode(error_frame(ProtocolError(ErrorCode.INVALID_MESSAGE, f"not understood: {error}")))
        except ProtocolError as error:
            return encode(error_frame(error))
        return self.inspection().model_dump_json(by_alias=True).encode()


def _select_subprotocol(connection: ServerConnection, offered: Any) -> Subprotocol | None:
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
