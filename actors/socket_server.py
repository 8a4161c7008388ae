"""The socket server: start-up in the order of the document, clients let in, messages handed to their sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pydantic_core
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from actors.connection import Connection, Doorkeeper
from actors.dead_letter import dead_letter
from actors.examinee_session import ExamineeSession
from actors.greeting import Greeting, greet
from actors.heartbeat import Active, Heartbeat, Superseded
from actors.outbox import Outbox
from actors.plan_feed import PlanFeed
from actors.proctor_session import ProctorSession
from actors.runtime.actor import Actor, ActorStopped, on
from actors.runtime.bus import Bus, Outgoing
from actors.runtime.pace import Pace
from actors.runtime.presence import Presence
from actors.runtime.pull import Delivery
from actors.runtime.settings import Settings
from actors.runtime.state_store import StateStore
from actors.runtime.tokens import TokenVerifier
from actors.server_queue import ServerQueue
from protocol import subjects
from protocol.claims import Claims
from protocol.close_codes import CloseCode
from protocol.codec import SOCKET_CODEC, Malformed, encode
from protocol.errors import (
    BrokerUnavailable,
    ConsumerGone,
    ErrorCode,
    ExamwireError,
    ProtocolError,
    RoleFailed,
    StateDamaged,
    StateUnavailable,
)
from protocol.frames import (
    CLIENT_FRAMES,
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    Hello,
    ReconnectPolicy,
    Welcome,
    error_frame,
)
from protocol.ids import check_server_id
from protocol.messages import (
    ClientInfo,
    LossReason,
    Message,
    MobileSyncCompleted,
    MobileSyncStatus,
    QueueConfig,
    ServerStatus,
    ServerStatusCode,
    SessionClose,
    SessionLost,
    SessionState,
)
from protocol.streams import ladder_of, queue_id
from protocol.times import format_time

log = logging.getLogger("examwire.socket_server")

MAX_ERRORS = 20
FRAMES_PER_SECOND = 100
FRAMES_AT_ONCE = 300
ENDPOINT_SECONDS = 1.0
DRAIN_SECONDS = 8.0
ADMIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class QueueBatch:
    """What one of the queue's consumers has brought."""

    deliveries: list[Delivery]


class SocketServer(Actor):
    """Holds the WebSockets of examinees and proctors."""

    kind = "socket-server"
    mailbox_capacity = 4

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, server_id: str) -> None:
        super().__init__(subjects.socket_server(check_server_id(server_id)))
        self.server_id = server_id
        self.incarnation = secrets.token_hex(6)
        self._settings = settings
        self._bus = bus
        self._store = store
        self._tokens = TokenVerifier(settings)
        self._outbox = Outbox(bus, f"{server_id}-{self.incarnation}")
        config = QueueConfig(
            max_size=settings.socket.queue_max_size,
            expire_time=settings.socket.queue_expire_seconds,
            priority=settings.socket.queue_priority,
        )
        self._queue = ServerQueue(bus, server_id, self.incarnation, config)
        self._heartbeat = Heartbeat(
            bus, server_id, self.incarnation, settings.server.lease_seconds, self._active, self._announce_all
        )
        self._presence = Presence(bus, self, inspect=self._inspected)
        self._server: Server | None = None
        self._door: Doorkeeper | None = None
        self._examinees: dict[str, ExamineeSession] = {}
        self._by_examinee: dict[tuple[str, str], ExamineeSession] = {}
        self._feeds: dict[str, PlanFeed] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._endpoints: list[str] = []
        self._start_time = format_time(time.time())
        self._sockets = 0
        self._tidying = asyncio.Semaphore(16)
        self._draining_since: float | None = None
        self.url = ""

    # -- start-up (document 9.2) ---------------------------------------------------------------------

    async def on_start(self) -> None:
        # The lease comes first: a STARTING of ours must not meet the expiry of our predecessor's lease.
        await self._step("LEASE_FAILED", self._heartbeat.claim)
        await self._step("STARTING_FAILED", lambda: self._publish_status(ServerStatusCode.STARTING))
        await self._step("QUEUE_CREATE_FAILED", self._queue.create)
        await self._step("SUBSCRIBE_FAILED", self._subscribe)
        await self._step("HANDLER_REGISTER_FAILED", self._register)
        await self._read_endpoints()
        await self._step("PORT_OPEN_FAILED", self._open_port)
        self._heartbeat.measure()
        await self._step("READY_FAILED", lambda: self._publish_status(ServerStatusCode.READY))
        self.spawn(self._watch_lease(), "lease")
        self.spawn(self._sweep(), "sweep")
        self.spawn(self._follow_endpoints(), "endpoints")

    async def _step(self, reason: str, step: Callable[[], Awaitable[None]]) -> None:
        """One step of the start: tried a bounded number of times, then FAILED for `reason`, and the end."""
        attempts = self._settings.server.start_attempts
        for attempt in range(1, attempts + 1):
            try:
                await step()
            except (ExamwireError, OSError, TimeoutError) as error:
                log.warning("%s: %s (attempt %d of %d): %s", self.address, reason, attempt, attempts, error)
                if attempt < attempts:
                    await asyncio.sleep(min(0.1 * 2**attempt, 2.0))
                    continue
                try:
                    await self._publish_status(ServerStatusCode.FAILED, reason)
                except BrokerUnavailable as unheard:
                    log.error("%s: FAILED could not be recorded: %s", self.address, unheard)
                raise RoleFailed(f"socket server {self.server_id} cannot start: {reason}: {error}") from error
            else:
                return

    async def _publish_status(self, status: ServerStatusCode, reason: str | None = None) -> None:
        ready = status is not ServerStatusCode.STARTING
        message = ServerStatus(
            server_id=self.server_id,
            status=status,
            incarnation=self.incarnation,
            start_time=self._start_time,
            timestamp=format_time(time.time()),
            queue_id=queue_id(self.server_id) if ready else None,
            cpu_usage=self._heartbeat.cpu_usage if ready else None,
            memory_usage=self._heartbeat.memory_usage if ready else None,
            network_status=self._heartbeat.network_status if ready else None,
            url=self.url or None,
            reason=reason,
        )
        message_id = f"{self.incarnation}:{status}:{time.time_ns()}"
        await self._bus.publish(Outgoing(subjects.status_server(self.server_id), encode(message), message_id))

    async def _subscribe(self) -> None:
        for consumer in self._queue.consumers:
            if await self._bus.consumer_config("SOCKET", consumer) is None:
                raise ConsumerGone(f"consumer SOCKET/{consumer} does not exist")
        self._follow_queue()
        if not self._outbox_runs():
            self.spawn(self._outbox.run(), "outbox")

    def _outbox_runs(self) -> bool:
        return any(task.get_name().endswith(":outbox") for task in self._loops or ())

    async def _register(self) -> None:
        await self._presence.announce()

    async def _open_port(self) -> None:
        socket = self._settings.socket
        self._door = Doorkeeper(socket.origins, socket.accept_per_second, socket.max_connections)
        self._server = await serve(
            self._handle,
            socket.host,
            socket.port,
            process_request=self._process_request,
            select_subprotocol=_select_subprotocol,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            open_timeout=10,
            close_timeout=3,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=4,
            server_header=None,
            create_connection=Connection,
            backlog=4096,
        )
        port = self._server.sockets[0].getsockname()[1]
        host = "127.0.0.1" if socket.host in ("0.0.0.0", "::") else socket.host
        self.url = socket.public_url or f"ws://{f'[{host}]' if ':' in host else host}:{port}/v1/connect"

    # -- shutdown ------------------------------------------------------------------------------------

    async def on_stop(self) -> None:
        """Stop accepting, 1012 to clients, what they left behind into the log, STOPPED."""
        self._draining_since = time.monotonic()
        deadline = self._draining_since + DRAIN_SECONDS
        reader = asyncio.create_task(self._outbox.run())
        try:
            if self._server is not None:
                if self._bus.connected and self.started_at is not None:
                    await self._quietly(self._publish_status(ServerStatusCode.STOPPING))
                for connection in list(self._server.all_connections):
                    assert isinstance(connection, Connection)
                    connection.end_reason = connection.end_reason or LossReason.SERVER_STOPPED.value
                self._server.close(code=CloseCode.SERVICE_RESTART, reason="SERVICE_RESTART")
                try:
                    await asyncio.wait_for(self._server.wait_closed(), max(0.1, deadline - time.monotonic()))
                except TimeoutError:
                    for connection in list(self._server.all_connections):
                        connection.transport.abort()
            if self._bus.connected:
                if not await self._outbox.flush(max(1.0, deadline - time.monotonic())):
                    log.error("%s: %d statuses could not be stored", self.address, len(self._outbox))
                if self._server is not None and self.started_at is not None:
                    await self._quietly(self._publish_status(ServerStatusCode.STOPPED))
        finally:
            reader.cancel()
            await self._presence.withdraw()

    async def _quietly(self, step: Awaitable[None]) -> None:
        try:
            await step
        except BrokerUnavailable as error:
            log.warning("%s: while stopping: %s", self.address, error)

    # -- clients -------------------------------------------------------------------------------------

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        assert self._door is not None
        closed = None
        if not self._bus.connected:
            closed = "this server is cut off from NATS"
        return self._door.refuse(connection, request, open_now=self._sockets, closed=closed)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        self._sockets += 1
        try:
            greeting = await greet(connection, self._tokens)
            if greeting is None:
                return
            if greeting.claims.role == "examinee":
                await self._serve_examinee(connection, greeting)
            else:
                await self._serve_proctor(connection, greeting)
        except ConnectionClosed:
            return
        finally:
            self._sockets -= 1

    async def _serve_examinee(self, connection: Connection, greeting: Greeting) -> None:
        claims, hello = greeting.claims, greeting.hello
        if not await self._admitted(connection, claims.plan, proctors=False):
            return
        socket_id = f"{self.server_id}-{self.incarnation}{secrets.token_hex(5)}"
        session = ExamineeSession(
            connection,
            self._outbox,
            plan_id=claims.plan,
            examinee_id=claims.sub,
            socket_id=socket_id,
            server_id=self.server_id,
            incarnation=self.incarnation,
            hello=hello,
            client_info=_client_info(connection, hello),
            mobile_sync_seconds=self._settings.mobile_sync.timeout_seconds,
        )
        await session.start(self._session_failed)
        if not connection.is_open:
            return
        self._examinees[socket_id] = session
        self._by_examinee[claims.plan, claims.sub] = session
        connection.session = session
        try:
            connection.tell(self._welcome(claims, socket_id, claims.sub))
            session.announce()
            session.answering = await self._bus.answer(session.address, _inspector(session))
            await self._read(connection, session)
        finally:
            session.ended(connection.reason())
            # When a hall goes at once, telling of it comes before tidying up after it.
            async with self._tidying:
                del self._examinees[socket_id]
                if self._by_examinee.get((claims.plan, claims.sub)) is session:
                    del self._by_examinee[claims.plan, claims.sub]
                if session.answering is not None:
                    await self._bus.hush(session.answering)
                await session.stop()

    async def _serve_proctor(self, connection: Connection, greeting: Greeting) -> None:
        claims = greeting.claims
        if not await self._admitted(connection, claims.plan, proctors=True):
            return
        socket_id = f"{self.server_id}-{self.incarnation}{secrets.token_hex(5)}"
        session = ProctorSession(connection, self._outbox, plan_id=claims.plan, name=claims.sub, socket_id=socket_id)
        await session.start(self._session_failed)
        feed = self._feeds.get(claims.plan)
        if feed is None:
            feed = PlanFeed(claims.plan, self._store, self._settings.socket.max_buffer_bytes)
            self._feeds[claims.plan] = feed
        feed.proctors.add(session)
        connection.session = session
        snapshot = asyncio.create_task(self._snapshot(feed, session))
        try:
            connection.tell(self._welcome(claims, socket_id, None))
            await self._read(connection, session)
        finally:
            snapshot.cancel()
            feed.proctors.discard(session)
            if not feed.proctors and self._feeds.get(claims.plan) is feed:
                del self._feeds[claims.plan]
            await session.stop()

    async def _snapshot(self, feed: PlanFeed, session: ProctorSession, *, resync: bool = False) -> None:
        """However long Redis is away, the proctor gets the snapshot, and nothing before it."""
        delay = 0.1
        while not session.over:
            try:
                await feed.snapshot(session, resync=resync)
            except (StateUnavailable, StateDamaged, ValueError) as error:
                log.warning("%s: no snapshot yet: %s", session.address, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            else:
                return

    async def _admitted(self, connection: Connection, plan_id: str, *, proctors: bool) -> bool:
        """Whether messages for the plan reach this server; only the first client of a plan waits for that."""
        if self._queue.serves(plan_id, proctors=proctors):
            return True
        try:
            async with asyncio.timeout(ADMIT_SECONDS):
                await self._queue.serve(plan_id, proctors=proctors)
        except (ExamwireError, TimeoutError) as error:
            log.error("%s: plan %s cannot be served: %s", self.address, plan_id, error)
            await connection.end(CloseCode.NOT_READY)
            return False
        if self._queue.changed.is_set():
            self._follow_queue()
        return True

    def _welcome(self, claims: Claims, socket_id: str, examinee_id: str | None) -> Welcome:
        reconnect = self._settings.reconnect
        others = [url for url in self._endpoints if url != self.url]
        return Welcome(
            role=claims.role,
            plan_id=claims.plan,
            examinee_id=examinee_id,
            server_id=self.server_id,
            socket_id=socket_id,
            heartbeat_seconds=self._settings.socket.ping_interval_seconds,
            reconnect=ReconnectPolicy(
                max_attempts=reconnect.max_attempts,
                backoff_seconds=ladder_of(reconnect.max_attempts, reconnect.backoff_seconds),
                jitter=reconnect.jitter,
            ),
            endpoints=[self.url, *others],
        )

    async def _read(self, connection: Connection, session: ExamineeSession | ProctorSession) -> None:
        errors = 0
        pace = Pace(FRAMES_PER_SECOND, FRAMES_AT_ONCE)
        while True:
            text = await connection.recv()
            if not isinstance(text, str):
                connection.end_reason = LossReason.PROTOCOL_ERROR.value
                await connection.end(CloseCode.UNSUPPORTED_DATA)
                return
            for frame in CLIENT_FRAMES.decode_batch(text):
                await pace.wait()  # who floods is read more slowly; the log and the others do not notice
                if isinstance(frame, Malformed):
                    errors += 1
                    connection.tell(error_frame(frame.error))
                else:
                    await session.put(frame)
            if errors > MAX_ERRORS:
                await connection.end(CloseCode.TOO_MANY_ERRORS, LossReason.PROTOCOL_ERROR.value)
                return
            if connection.unsent > self._settings.socket.max_buffer_bytes:
                # It asks and never reads the answers: they would pile up without end.
                log.warning("%s reads too slowly: %d bytes wait", session.address, connection.unsent)
                connection.break_off(LossReason.SLOW_CLIENT.value)
                return

    def _session_failed(self, session: Actor, error: BaseException) -> None:
        """A session is temporary: it ends with its socket, and the client comes back to a new one."""
        assert isinstance(session, ExamineeSession | ProctorSession)
        self.last_error = f"{session.address}: {error}"
        session.connection.break_off(LossReason.PROTOCOL_ERROR.value)

    # -- from the queue ------------------------------------------------------------------------------

    def _follow_queue(self) -> None:
        for consumer in self._queue.consumers:
            if consumer not in self._readers:
                self._readers[consumer] = self.spawn(self._read_queue(consumer), f"queue:{consumer}")
        self._queue.changed.clear()

    async def _read_queue(self, consumer: str) -> None:
        while True:
            try:
                async with contextlib.aclosing(self._queue.batches(consumer)) as batches:
                    async for deliveries in batches:
                        await self.put(QueueBatch(deliveries))
                        if deliveries[-1].pending > self._queue.config.max_size:
                            log.error("%s: %d messages wait; dropping them", consumer, deliveries[-1].pending)
                            await self._queue.create_surely(reset=True)
                            await self._resynchronise()
                            break  # what was fetched before belongs to the backlog, and would be counted again
            except ConsumerGone as gone:
                if consumer not in self._queue.consumers:
                    del self._readers[consumer]  # the queue has shrunk
                    return
                log.error("%s: %s; having it made again", self.address, gone)
                await self._queue.create_surely()
                await self._resynchronise()

    async def _resynchronise(self) -> None:
        """Messages were dropped: what clients must know comes from Redis instead."""
        for feed in list(self._feeds.values()):
            for proctor in list(feed.proctors):
                await self._snapshot(feed, proctor, resync=True)
        await self._announce_all()  # each session_state that follows tells an examinee what is recorded

    @on(QueueBatch)
    async def deliver(self, batch: QueueBatch) -> None:
        oldest = time.time() - self._queue.config.expire_time
        for delivery in batch.deliveries:
            if delivery.stored_at >= oldest:
                try:
                    await self._dispatch(delivery)
                except ValueError as error:
                    await self._dead_letter(delivery, delivery.payload, str(error))
            await delivery.ack()

    async def _dispatch(self, delivery: Delivery) -> None:
        tokens = delivery.subject.split(".")
        if tokens[1] == "plan" and tokens[3] == "proctors":
            feed = self._feeds.get(tokens[2])
            if feed is not None:
                feed.broadcast(delivery.payload)
            return
        lost: set[str] = set()
        for message in SOCKET_CODEC.decode_batch(delivery.payload):
            if isinstance(message, Malformed):
                await self._dead_letter(delivery, message.raw, str(message.error))
                continue
            match message:
                case SessionState() | SessionClose():
                    await self._hand_over(self._examinees.get(message.socket_id), message)
                case MobileSyncCompleted() | MobileSyncStatus():
                    await self._hand_over(self._by_examinee.get((message.plan_id, message.examinee_id)), message)
                case SessionLost():
                    lost.update(message.socket_ids)
                case _:
                    await self._dead_letter(delivery, encode(message), f"{message.type} is not for a server")
        if alive := [session for socket_id in lost if (session := self._examinees.get(socket_id)) is not None]:
            log.warning("%s: %d sessions were declared lost, but are here", self.address, len(alive))
            # READY first: while this server counts as lost, each announcement is answered by another loss.
            await self._say_ready()
            for session in alive:
                session.announce()

    async def _hand_over(self, session: ExamineeSession | None, message: Message) -> None:
        if session is not None and session.running:
            with contextlib.suppress(ActorStopped):  # it ended while its mailbox was full
                await session.put(message)

    async def _dead_letter(self, delivery: Delivery, payload: bytes, reason: str) -> None:
        log.error("%s: message %d goes to the dead letters: %s", self.address, delivery.sequence, reason)
        letter = dead_letter("SOCKET", delivery.subject, delivery.sequence, payload, reason, by=self.server_id)
        await self._bus.publish_surely([letter])

    # -- what goes on beside -------------------------------------------------------------------------

    async def _watch_lease(self) -> None:
        try:
            await self._heartbeat.run()
        except Superseded as superseded:
            await self._end_all(CloseCode.SERVER_SUPERSEDED, LossReason.SERVER_RESTARTED.value)
            raise RoleFailed(f"{superseded}: this one ends") from superseded

    def _active(self) -> tuple[int, Active]:
        """How many sessions there are, and those whose activity is to be told again."""
        now, wall = asyncio.get_running_loop().time(), time.time()
        due = now - self._settings.socket.activity_seconds
        active: Active = []
        for session in self._examinees.values():
            connection = session.connection
            if connection.reported_at <= due and connection.last_heard > connection.reported_at:
                connection.reported_at = now
                heard = format_time(wall - (now - connection.last_heard))
                active.append((session.plan_id, session.examinee_id, session.socket_id, heard))
                if len(active) >= 2000:
                    break
        return len(self._examinees), active

    async def _announce_all(self) -> None:
        """After an expired lease others may think that this server and its sessions are lost."""
        await self._say_ready()
        for session in list(self._examinees.values()):
            session.announce()

    async def _say_ready(self) -> None:
        if self._draining_since is None and self.started_at is not None:
            await self._quietly(self._publish_status(ServerStatusCode.READY))

    async def _sweep(self) -> None:
        """Every second: ping the quiet, end the silent, send clients elsewhere when NATS is away for long."""
        interval = self._settings.socket.ping_interval_seconds
        limit = interval + self._settings.socket.ping_timeout_seconds
        period = min(1.0, interval / 4, self._settings.socket.ping_timeout_seconds / 4)
        swept = 0
        while True:
            await asyncio.sleep(period)
            assert self._server is not None
            now = asyncio.get_running_loop().time()
            for connection in list(self._server.all_connections):
                assert isinstance(connection, Connection)
                quiet = now - connection.last_heard
                if quiet >= limit:
                    connection.break_off(LossReason.PING_TIMEOUT.value)
                elif quiet >= interval and not connection.pinged:
                    connection.ping_now()
            away = self._bus.disconnected_at
            if away is not None and time.monotonic() - away > self._settings.socket.isolation_seconds:
                await self._end_all(CloseCode.SERVER_ISOLATED, LossReason.SERVER_ISOLATED.value)
            if self._queue.changed.is_set():
                self._follow_queue()
            swept += 1
            if swept % 20 == 0 and self._bus.connected:
                await self._shrink_queue()

    async def _shrink_queue(self) -> None:
        examinee_plans = {session.plan_id for session in self._examinees.values()}
        try:
            await self._queue.shrink(set(self._feeds), examinee_plans)
        except ExamwireError as error:
            log.warning("%s: the queue keeps plans that nobody needs: %s", self.address, error)

    async def _end_all(self, code: CloseCode, reason: str) -> None:
        assert self._server is not None
        closing = []
        for connection in list(self._server.all_connections):
            assert isinstance(connection, Connection)
            closing.append(asyncio.create_task(connection.end(code, reason)))
        if closing:
            await asyncio.wait(closing, timeout=5)

    async def _follow_endpoints(self) -> None:
        while True:
            await self._read_endpoints()
            await asyncio.sleep(ENDPOINT_SECONDS)

    async def _read_endpoints(self) -> None:
        try:
            servers = await self._store.servers()
        except (StateUnavailable, StateDamaged) as error:
            log.debug("%s: endpoints as they were: %s", self.address, error)
            return
        self._endpoints = [
            server["url"]
            for server in servers
            if server.get("statusCode") == ServerStatusCode.READY and server.get("url")
        ]

    # -- inspection ----------------------------------------------------------------------------------

    def details(self) -> dict[str, Any]:
        return {
            "serverId": self.server_id,
            "incarnation": self.incarnation,
            "url": self.url,
            "sockets": self._sockets,
            "examinees": len(self._examinees),
            "proctors": sum(len(feed.proctors) for feed in self._feeds.values()),
            "outbox": len(self._outbox),
            "stored": self._outbox.stored,
            "refused": self._door.refused if self._door else 0,
            "plans": self._queue.plans,
        }

    async def _inspected(self, request: bytes) -> bytes:
        """`{"sessions": {"offset", "limit"}}` lists sessions, anything else is answered with the inspection."""
        try:
            asked = pydantic_core.from_json(request) if request else {}
            page = asked.get("sessions") if isinstance(asked, dict) else None
            if page is not None:
                offset, limit = int(page.get("offset", 0)), min(int(page.get("limit", 100)), 500)
                proctors = [proctor for feed in self._feeds.values() for proctor in feed.proctors]
                everyone: list[Actor] = [*self._examinees.values(), *proctors]
                shown = [one.inspection() for one in everyone[offset : offset + limit]]
                listed = [one.model_dump(mode="json", by_alias=True) for one in shown]
                return pydantic_core.to_json({"total": len(everyone), "sessions": listed})
        except (ValueError, TypeError, AttributeError) as error:
            return encode(error_frame(ProtocolError(ErrorCode.INVALID_MESSAGE, f"not understood: {error}")))
        return self.inspection().model_dump_json(by_alias=True).encode()


def _inspector(session: ExamineeSession) -> Callable[[bytes], Awaitable[bytes]]:
    async def answer(_request: bytes) -> bytes:
        return session.inspection().model_dump_json(by_alias=True).encode()

    return answer


def _client_info(connection: Connection, hello: Hello) -> ClientInfo:
    said = hello.client_info.browser_info if hello.client_info else None
    agent = connection.request.headers.get("User-Agent") if connection.request else None
    address = connection.remote_address
    return ClientInfo(
        ip_address=str(address[0])[:256] if address else None, browser_info=said or (agent[:256] if agent else None)
    )


def _select_subprotocol(connection: ServerConnection, offered: Any) -> Subprotocol | None:
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
