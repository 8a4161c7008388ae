"""The socket server: holds the WebSockets of examinees and proctors, and connects them with NATS.

Its start is in docs/architecture.md, "A server's start, step by step".
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from typing import Any

import pydantic_core

from actors.runtime.actor.actor import Actor, on
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.config.tls import ServerTls
from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.logs import LogSummary
from actors.sessions.context import ServerContext
from actors.sessions.outbox import Outbox
from actors.sessions.plan_states import PlanStates
from actors.socket_server.client_handler import ClientHandler
from actors.socket_server.delivery.activity import ActivityRelay
from actors.socket_server.delivery.dispatch import Dispatcher
from actors.socket_server.delivery.queue import ServerQueue
from actors.socket_server.delivery.queue_reader import QueueBatch, QueueReader
from actors.socket_server.drain import ServerDrain
from actors.socket_server.handshake.admission import Admission
from actors.socket_server.handshake.listener import Listener
from actors.socket_server.handshake.request_checks import HandshakeChecks
from actors.socket_server.keepalive import Keepalive
from actors.socket_server.lease import LeaseKeeper, Superseded
from actors.socket_server.sessions import Sessions, page_of
from actors.socket_server.start import ServerStart
from actors.socket_server.status import StatusPublisher
from actors.socket_server.view_status import ViewWatch
from protocol.broker import subjects
from protocol.close_codes import CloseCode
from protocol.errors import ConsumerGone, ErrorCode, ExamwireError, ProtocolError, RoleSuperseded
from protocol.ids import check_server_id
from protocol.messages.codec import encode
from protocol.messages.facts import LossReason
from protocol.messages.frames import error_frame
from protocol.messages.operator_requests import Done, Drain, Kick, Request
from protocol.messages.server_messages import SUPERSEDED, ServerStatusCode

log = logging.getLogger("examwire.socket_server")

STOP_SECONDS = 8.0
"""Closing all WebSockets and storing what they leave takes at most so long."""

SHRINK_CHECKS = 40
"""After so many rounds of the keepalive, plans that have no clients any more are given up."""


class SocketServer(Actor):
    """Holds the WebSockets of examinees and proctors.

    server = SocketServer(settings, bus, store, "SOCK001")
    await server.start(on_failure)  # READY; clients connect to `server.url`
    """

    kind = "socket-server"
    handles_at_once = True
    mailbox_capacity = 4

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, server_id: str) -> None:
        super().__init__(subjects.socket_server(check_server_id(server_id)), bus)
        self.server_id = server_id
        self.incarnation = secrets.token_hex(6)
        self._settings = settings
        self._bus = bus
        self._outbox = Outbox(bus, server_id, self.incarnation)
        self._plans = PlanStates(store)
        self._activity = ActivityRelay(bus)
        context = ServerContext(
            settings, bus, store, self._outbox, server_id, self.incarnation, self._plans, self._activity.tell
        )
        self._status = StatusPublisher(context)
        self.sessions = Sessions(context)
        self._lease = LeaseKeeper(context, self._status, self.sessions)
        self._queue = ServerQueue(context, self._lease)
        self._queue_reader = QueueReader(context, self._queue, self.sessions, self._lease, self)
        self._dispatcher = Dispatcher(context, self.sessions, self._lease)
        self._view = ViewWatch(context, self._queue, self.sessions, self._resynchronise)
        self._endpoints = ReadyServers(store, server_id)
        self._drain_of_server = ServerDrain(context, self.sessions, self._endpoints, self._status)
        self._start = ServerStart(context, self._status)
        summary = LogSummary(logging.getLogger("examwire.clients"), self.address, server=server_id)
        tokens = TokenVerifier(settings, bus.clock.now)
        self._checks = HandshakeChecks(context, tokens, self._drain_of_server, summary)
        admission = Admission(context, tokens, self._queue, self._drain_of_server, summary)
        clients = ClientHandler(context, admission, self.sessions, self._view, self._endpoints, summary)
        self._tls = ServerTls.of("socket", settings.socket.certificate_file, settings.socket.key_file)
        self._listener = Listener(settings.socket, self._checks, self._tls, clients)
        self._stopped_because: str | None = None

    @property
    def url(self) -> str:
        """The address that clients are given; empty until the port is open."""
        return self._listener.url

    @property
    def port(self) -> int:
        """The port that it listens on; 0 until it is open."""
        return self._listener.port

    # -- start ---------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        # The lease comes first: this STARTING must not meet the expiry of the lease of our predecessor.
        await self._start.step("LEASE_FAILED", self._claim)
        await self._start.step("STARTING_FAILED", lambda: self._status.publish(ServerStatusCode.STARTING))
        await self._start.step("QUEUE_CREATE_FAILED", self._queue.create)
        await self._start.step("SUBSCRIBE_FAILED", self._check_consumers)
        self.spawn(self._queue_reader.run(), "queue")
        self.spawn(self._view.run(), "view")
        self.spawn(self._activity.run(self.sessions), "activity")
        self.spawn(self._outbox.run(), "outbox")
        await self._start.step("HANDLER_REGISTER_FAILED", self.announce_on_bus)
        await self._endpoints.read()
        await self._start.step("PORT_OPEN_FAILED", self._open_port)
        self._status.load.measure()
        await self._start.step("READY_FAILED", lambda: self._status.publish(ServerStatusCode.READY))
        self._status.enter(ServerStatusCode.READY)
        self.spawn(self._hold_lease(), "lease")
        self.spawn(self._keep_alive(), "keepalive")
        self.spawn(self._endpoints.follow(), "endpoints")
        if self._tls is not None:
            self.spawn(self._tls.follow(), "certificate")

    async def _claim(self) -> None:
        await self._bus.clock.measure()  # from the first message on, all times go by the broker's clock
        try:
            await self._lease.claim(takeover=self._settings.server.takeover)
        except Superseded as superseded:
            raise RoleSuperseded(f"{superseded}, and server.takeover is off: this one ends") from superseded

    async def _check_consumers(self) -> None:
        for consumer in self._queue.consumers:
            if await self._bus.consumer_config("SOCKET", consumer) is None:
                raise ConsumerGone(f"consumer SOCKET/{consumer} does not exist")

    async def _open_port(self) -> None:
        await self._listener.open()
        self._status.url = self._endpoints.own = self._listener.url

    # -- stop ----------------------------------------------------------------------------------------

    async def on_stop(self) -> None:
        """Stop accepting, close clients with 1012, store the ends of their sessions, and publish STOPPED."""
        self._status.enter(ServerStatusCode.STOPPING)
        deadline = time.monotonic() + STOP_SECONDS
        publishing = asyncio.create_task(self._outbox.run())
        ready = self._listener.is_open and self.started_at is not None
        try:
            if ready and self._bus.connected:
                await self._status.publish_if_possible(ServerStatusCode.STOPPING)
            await self._listener.close(max(0.1, deadline - time.monotonic()))
            if self._bus.connected:
                if not await self._outbox.flush(max(1.0, deadline - time.monotonic())):
                    log.error("%s: %d statuses could not be stored", self.address, len(self._outbox))
                if ready:
                    await self._status.publish_if_possible(ServerStatusCode.STOPPED, self._stopped_because)
        finally:
            publishing.cancel()

    # -- from the queue ------------------------------------------------------------------------------

    @on(QueueBatch)
    async def dispatch(self, batch: QueueBatch) -> None:
        await self._dispatcher.dispatch(batch)

    # -- loops ---------------------------------------------------------------------------------------

    def _resynchronise(self, consumers: list[str]) -> None:
        log.error("%s: messages for %s were dropped unread", self.address, ", ".join(consumers))
        self.spawn(self._queue_reader.resynchronise(consumers), "resynchronise")

    async def _hold_lease(self) -> None:
        try:
            await self._lease.run()
        except Superseded as superseded:
            self._stopped_because = SUPERSEDED
            await self._close_all(CloseCode.SERVER_SUPERSEDED, LossReason.SERVER_RESTARTED.value)
            raise RoleSuperseded(f"{superseded}: this one ends, and must not be started again") from superseded

    async def _keep_alive(self) -> None:
        """Check all sockets again and again; close them when NATS is away for long, so that clients go elsewhere."""
        keepalive = Keepalive(self._settings.socket, self._listener.connections)
        for number in itertools.count(1):
            await keepalive.check_all()
            if self._plans.unread:
                await self.sessions.tell_unread_plans()
            away_since = self._bus.disconnected_at
            if away_since is not None and time.monotonic() - away_since > self._settings.socket.isolation_seconds:
                await self._close_all(CloseCode.SERVER_ISOLATED, LossReason.SERVER_ISOLATED.value)
            if number % SHRINK_CHECKS == 0 and self._bus.connected:
                self.spawn(self._shrink_queue(), "shrink")

    async def _shrink_queue(self) -> None:
        examinee_plans = {session.plan_id for session in self.sessions.examinees.values()}
        try:
            await self._queue.shrink(set(self.sessions.feeds), examinee_plans)
            self._plans.keep({plan_id for plan_ids in self._queue.plans.values() for plan_id in plan_ids})
        except ExamwireError as error:
            log.warning("%s: plans without clients cannot be removed from the queue: %s", self.address, error)

    async def _close_all(self, code: CloseCode, reason: str) -> None:
        closing = [asyncio.create_task(connection.end(code, reason)) for connection in self._listener.connections()]
        if closing:
            await asyncio.wait(closing, timeout=5)

    # -- operators' requests -------------------------------------------------------------------------

    async def control(self, request: Request) -> Done:
        match request:
            case Drain():
                return await self._begin_drain(request)
            case Kick():
                return self._close_session(request)
            case _:
                return await super().control(request)

    async def _begin_drain(self, request: Drain) -> Done:
        drain = self._drain_of_server
        begins = await drain.begin(request)
        answer = Done(text=drain.describe(), details=drain.progress() or {})
        if begins:
            self.spawn(self._drain_and_end(), "drain")
        return answer

    async def _drain_and_end(self) -> None:
        await self._drain_of_server.run(self._listener.connections)
        if self.end_role is not None:
            self.end_role()

    def _close_session(self, request: Kick) -> Done:
        session = self.sessions.socket(request.socket_id)
        if session is None:
            raise ProtocolError(ErrorCode.NOT_FOUND, f"{self.server_id} holds no {request.socket_id}", "data.socketId")
        # As a task: a client that does not answer a close takes some seconds.
        self.spawn(session.connection.end(CloseCode.KICKED, LossReason.KICKED.value), "kick")
        return Done(text=f"{session.address} is closed with {CloseCode.KICKED:d}", details=session.details())

    # -- inspection ----------------------------------------------------------------------------------

    def child(self, address: str) -> Actor | None:
        return self.sessions.at(address)

    def details(self) -> dict[str, Any]:
        ready = self._status.current is ServerStatusCode.READY
        return {
            "consumers": [f"SOCKET/{consumer}" for consumer in self._queue.consumers],
            "serverId": self.server_id,
            "incarnation": self.incarnation,
            "url": self.url,
            "accepting": self._listener.is_open and self._bus.connected and ready,
            "sockets": self.sessions.sockets,
            "examinees": len(self.sessions.examinees),
            "proctors": len(self.sessions.proctors),
            "outbox": len(self._outbox),
            "stored": self._outbox.stored,
            "refused": self._checks.refused,
            "lastSessionError": self.sessions.last_error,
            "plans": self._queue.plans,
            "plansNotCurrent": self._view.not_current,
            "drain": self._drain_of_server.progress(),
        }

    async def inspect(self, request: bytes) -> bytes:
        """Answer `{"sessions": {...}}` with a page of sessions (see `page_of`), anything else with the inspection."""
        try:
            query = pydantic_core.from_json(request) if request else {}
            page = query.get("sessions") if isinstance(query, dict) else None
            if page is not None:
                return await page_of(self.sessions.all(), page)
        except ValueError as error:
            return encode(error_frame(ProtocolError(ErrorCode.INVALID_MESSAGE, f"invalid request: {error}")))
        except ProtocolError as error:
            return encode(error_frame(error))
        return await super().inspect(request)
