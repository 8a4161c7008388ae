"""The clients of one socket server: let in by role, served until their socket ends."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.server import ServerProtocol

from actors.runtime.actor.service import Service
from actors.runtime.broker.connection import Bus
from actors.runtime.config.local_addresses import own_names
from actors.runtime.config.masking import masked
from actors.runtime.config.settings import Settings
from actors.runtime.config.tls import ServerTls
from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.http.client_addresses import networks_of
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.logs import LogSummary
from actors.runtime.token_bucket import TokenBucket
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.limits.address_limits import AddressSlot, Limits
from actors.sessions.limits.fact_budget import CONNECTIONS, EXAMINEE, LOOKUPS, PROCTOR, FactBudgets
from actors.sessions.limits.reading_turns import ReadingTurns
from actors.sessions.outbox import Outbox
from actors.sessions.plan_feed import PlanFeed
from actors.sessions.proctor_session import ProctorSession
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.delivery.queue import ServerQueue
from actors.socket_server.handshake.handshake import HandshakeChecks, page_hosts
from actors.socket_server.handshake.hello import Greeting, greet
from actors.socket_server.handshake.request_head import HandshakeProtocol
from actors.socket_server.lease import Active
from actors.socket_server.metrics import ACCEPTS
from actors.socket_server.view_status import ViewWatch
from protocol.access.claims import Claims
from protocol.broker.streams import attempt_seconds
from protocol.close_codes import CloseCode
from protocol.errors import ExamwireError
from protocol.messages.codec import Malformed
from protocol.messages.facts import ClientInfo, LossReason
from protocol.messages.frames import CLIENT_FRAMES, Hello, Migrate, ReconnectPolicy, Welcome, refusal_of
from protocol.records.placement import restate_fact
from protocol.texts import clean_line
from protocol.times import format_time

log = logging.getLogger("examwire.clients")

MAX_ERRORS = 20
FRAMES_PER_SECOND = 100
FRAMES_AT_ONCE = 300
ADMIT_SECONDS = 5.0
MAX_ACTIVE = 2000
_EXAMINEES, _PROCTORS = ACCEPTS.labels("examinee"), ACCEPTS.labels("proctor")


class Clients:
    """Who is here. `follow_queue` has the server read consumers that its queue has got."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        store: StateStore,
        outbox: Outbox,
        queue: ServerQueue,
        endpoints: ReadyServers,
        view: ViewWatch,
        *,
        server_id: str,
        incarnation: str,
        follow_queue: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._outbox = outbox
        self._queue = queue
        self._endpoints = endpoints
        self._view = view
        self._server_id = server_id
        self._incarnation = incarnation
        self._follow_queue = follow_queue
        self._address = f"socket.{server_id}"
        self._tokens = TokenVerifier(settings, bus.clock.now)
        socket = settings.socket
        self._log_summary = LogSummary(log, self._address, server=server_id)
        self.door = HandshakeChecks(
            socket.origins,
            Limits.of(socket),
            own_names(socket.host),
            page_hosts=page_hosts(settings),
            tokens=self._tokens,
            trusted_proxies=networks_of(socket.trusted_proxies),
            closed=self._closed,
            count=lambda answer: self._log_summary.count("refused", answer),
        )
        self._by_examinee: dict[tuple[str, str], ExamineeSession] = {}
        self._tidying = asyncio.Semaphore(16)
        self._facts, self._lookups = FactBudgets(EXAMINEE), FactBudgets(LOOKUPS)
        self._actions, self._connects = FactBudgets(PROCTOR), FactBudgets(CONNECTIONS)
        self._beside: set[asyncio.Task[None]] = set()
        self._turns = ReadingTurns()
        self.examinees: dict[str, ExamineeSession] = {}
        self.feeds: dict[str, PlanFeed] = {}
        self._away: Callable[[], Migrate] | None = None
        self.sockets = 0
        self.last_error: str | None = None

    @property
    def refused(self) -> int:
        """Handshakes that were answered with 503."""
        return self.door.refused

    def announce_all(self) -> None:
        """CONNECTED into the log for everybody who is here."""
        for session in list(self.examinees.values()):
            session.announce()

    def resynchronise(self) -> None:
        """Messages were dropped: what proctors must know comes from Redis instead."""
        for feed in self.feeds.values():
            feed.resynchronise()

    def sessions(self) -> list[SocketSession]:
        """Everybody who is here."""
        return [*self.examinees.values(), *(proctor for feed in self.feeds.values() for proctor in feed.proctors)]

    def examinee(self, plan_id: str, examinee_id: str) -> ExamineeSession | None:
        """The newest session of an examinee, if it is here."""
        return self._by_examinee.get((plan_id, examinee_id))

    def session_of(self, socket_id: str) -> SocketSession | None:
        """The session that speaks for a socket, if it is here."""
        return next((session for session in self.sessions() if session.socket_id == socket_id), None)

    def send_newcomers_away(self, frame: Callable[[], Migrate]) -> None:
        """From now on nobody is let in; who is half-way in is told to go elsewhere by a `frame`."""
        self._away = frame

    def session_at(self, address: str) -> SocketSession | None:
        """The session at `session.{planId}.{examineeId}` or `proctor.{planId}.{socketId}`, if it is here."""
        kind, _, rest = address.partition(".")
        plan_id, _, name = rest.partition(".")
        if kind == "session":
            return self.examinee(plan_id, name)
        feed = self.feeds.get(plan_id)
        return next((one for one in feed.proctors if one.address == address), None) if feed is not None else None

    def _closed(self) -> str | None:
        """Why nobody is let in now."""
        if not self._bus.connected:
            return "this server is cut off from NATS"
        if self._away is not None:
            return "this server is drained; connect to another one"
        return None

    def handshake(
        self, tls: ServerTls | None, protocol: ServerProtocol, server: Server, **options: Any
    ) -> HandshakeProtocol:
        """The begin of each connection; see `websockets.asyncio.server.serve`, `create_connection`."""

        def let_in(
            protocol: ServerProtocol, transport: asyncio.Transport, place: AddressSlot, request: Request
        ) -> None:
            connection = WebSocketConnection(protocol, server, turns=self._turns, **options)
            connection.place = place
            transport.set_protocol(connection)
            connection.connection_made(transport)
            connection.process_event(request)

        return HandshakeProtocol(self.door, protocol, let_in, tls.context if tls is not None else None)

    async def handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, WebSocketConnection)
        self.sockets += 1
        try:
            greeting = await greet(connection, self._tokens)
            if greeting is None:
                self._log_summary.count("turned away", connection.reason())
                return
            socket = self._settings.socket
            connection.greeted(socket.bytes_per_second, socket.frames_per_second)
            if greeting.claims.role == "examinee":
                await self._serve_examinee(connection, greeting)
            else:
                await self._serve_proctor(connection, greeting)
        except ConnectionClosed:
            return
        finally:
            self.sockets -= 1

    async def _serve_examinee(self, connection: WebSocketConnection, greeting: Greeting) -> None:
        claims, hello = greeting.claims, greeting.hello
        if not await self._in_turn(connection, claims):
            return
        if not await self._admitted(connection, claims.plan, proctors=False):
            return
        socket_id = f"{self._server_id}-{self._incarnation}{secrets.token_hex(5)}"
        session = ExamineeSession(
            connection,
            self._outbox,
            plan_id=claims.plan,
            examinee_id=claims.sub,
            socket_id=socket_id,
            server_id=self._server_id,
            incarnation=self._incarnation,
            hello=hello,
            client_info=_client_info(connection, hello),
            mobile_sync_seconds=self._settings.mobile_sync.timeout_seconds,
            store=self._store,
            budget=self._facts.of(claims.plan, claims.sub),
            lookups=self._lookups.of(claims.plan, claims.sub),
        )
        connection.forget_request()
        await session.start(self._session_failed)
        if not connection.is_open or await self._sent_away(connection):
            return
        self.examinees[socket_id] = session
        self._by_examinee[claims.plan, claims.sub] = session
        connection.session = session
        try:
            connection.tell(self._welcome(claims, socket_id, claims.sub))
            if not (view := self._view.status(claims.plan)).current:
                connection.tell(view)
            _EXAMINEES.inc()
            self._log_summary.count("examinees let in")
            log.debug("%s is let in", session.address, extra=session.about())
            session.announce()
            session.answering = await self._bus.answer(session.address, _inspector(session))
            await self._read(connection, session)
        finally:
            session.ended(connection.reason())
            self._log_summary.count("examinees gone", connection.reason())
            log.debug("%s has gone", session.address, extra={**session.about(), "reason": connection.reason()})
            # When a hall goes at once, telling of it comes before tidying up after it.
            async with self._tidying:
                del self.examinees[socket_id]
                if self._by_examinee.get((claims.plan, claims.sub)) is session:
                    del self._by_examinee[claims.plan, claims.sub]
                if session.answering is not None:
                    await self._bus.stop_answering(session.answering)
                await session.stop()

    async def _serve_proctor(self, connection: WebSocketConnection, greeting: Greeting) -> None:
        claims = greeting.claims
        if not await self._admitted(connection, claims.plan, proctors=True):
            return
        socket_id = f"{self._server_id}-{self._incarnation}{secrets.token_hex(5)}"
        session = ProctorSession(
            connection,
            self._outbox,
            self._store,
            plan_id=claims.plan,
            name=claims.sub,
            socket_id=socket_id,
            budget=self._actions.of(claims.plan, claims.sub),
            beside=self._begin_beside,
        )
        connection.forget_request()
        await session.start(self._session_failed)
        if await self._sent_away(connection):
            return
        feed = self.feeds.get(claims.plan)
        if feed is None:
            feed = PlanFeed(
                claims.plan, self._store, self._settings.socket.max_buffer_bytes, self._heal, self._bus.clock.now
            )
            self.feeds[claims.plan] = feed
        connection.session = session
        connection.keep_near()
        try:
            connection.tell(self._welcome(claims, socket_id, None))
            connection.tell(self._view.status(claims.plan))
            feed.join(session)
            _PROCTORS.inc()
            self._log_summary.count("proctors let in")
            await self._read(connection, session)
        finally:
            self._log_summary.count("proctors gone", connection.reason())
            feed.leave(session)
            if not feed.proctors and self.feeds.get(claims.plan) is feed:
                del self.feeds[claims.plan]
            await session.stop()

    async def _in_turn(self, connection: WebSocketConnection, claims: Claims) -> bool:
        """Whether it is let in: whoever connects again and again waits, and nothing is told of those who do not stay.

        Each that is let in is a CONNECTED, and a DISCONNECTED that must not be missed.
        """
        budget = self._connects.of(claims.plan, claims.sub)
        if budget.take_now():
            return True
        turn = asyncio.create_task(budget.turn("connection"))
        closed = asyncio.create_task(connection.wait_closed())
        await asyncio.wait({turn, closed}, return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        if not turn.done():
            turn.cancel()
            return False
        if not turn.result():
            await connection.end(CloseCode.TOO_OFTEN)
            return False
        return connection.is_open

    def _begin_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin what goes on when the session that asked for it has ended."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _sent_away(self, connection: WebSocketConnection) -> bool:
        """Whether this one came while the server is drained."""
        if self._away is None:
            return False
        await connection.send_away(self._away())
        return True

    def _heal(self, key: str) -> None:
        """One record that cannot be read would keep the whole plan from everybody: the log writes it anew."""
        if (fact := restate_fact(key, format_time(self._bus.clock.now()))) is not None:
            self._outbox.add(fact)

    async def _admitted(self, connection: WebSocketConnection, plan_id: str, *, proctors: bool) -> bool:
        """Whether messages for the plan reach this server; only the first client of a plan waits for that."""
        if self._queue.serves(plan_id, proctors=proctors):
            return True
        try:
            async with asyncio.timeout(ADMIT_SECONDS):
                await self._queue.serve(plan_id, proctors=proctors)
        except (ExamwireError, TimeoutError) as error:
            why = str(error) or f"its queue did not get the plan's messages within {ADMIT_SECONDS:g} s"
            log.error("%s: plan %s cannot be served: %s", self._address, plan_id, why, extra={"plan": plan_id})
            await connection.end(CloseCode.NOT_READY)
            return False
        self._follow_queue()
        return True

    def _welcome(self, claims: Claims, socket_id: str, examinee_id: str | None) -> Welcome:
        reconnect = self._settings.reconnect
        return Welcome(
            role=claims.role,
            plan_id=claims.plan,
            examinee_id=examinee_id,
            server_id=self._server_id,
            socket_id=socket_id,
            heartbeat_seconds=self._settings.socket.ping_interval_seconds,
            reconnect=ReconnectPolicy(
                max_attempts=reconnect.max_attempts,
                backoff_seconds=attempt_seconds(reconnect.max_attempts, reconnect.backoff_seconds),
                jitter=reconnect.jitter,
            ),
            endpoints=self._endpoints.all,
        )

    async def _read(self, connection: WebSocketConnection, session: ExamineeSession | ProctorSession) -> None:
        errors = 0
        pace = TokenBucket(FRAMES_PER_SECOND, FRAMES_AT_ONCE)
        while True:
            text = await connection.recv()
            if not isinstance(text, str):
                connection.end_reason = LossReason.PROTOCOL_ERROR.value
                await connection.end(CloseCode.UNSUPPORTED_DATA)
                return
            await connection.turn(len(text))
            for place, frame in enumerate(CLIENT_FRAMES.decode_batch(text)):
                if place:  # of an array: each costs about as much as one that comes alone
                    await connection.turn(0)
                await pace.wait()  # who floods is read more slowly; the log and the others do not notice
                if isinstance(frame, Malformed):
                    errors += 1
                    connection.tell(refusal_of(frame))
                else:
                    await session.put(frame)
            if errors > MAX_ERRORS:
                await connection.end(CloseCode.TOO_MANY_ERRORS, LossReason.PROTOCOL_ERROR.value)
                return
            if (wait := connection.piled_up) > self._settings.socket.max_buffer_bytes:
                # It asks and never reads the answers: they would pile up without end.
                log.warning("%s reads too slowly: %d bytes wait", session.address, wait, extra=session.about())
                connection.break_off(LossReason.SLOW_CLIENT.value)
                return

    def _session_failed(self, session: Service, error: BaseException) -> None:
        """A session is temporary: it ends with its socket, and the client comes back to a new one."""
        assert isinstance(session, ExamineeSession | ProctorSession)
        self.last_error = masked(f"{session.address}: {error}")
        session.connection.break_off(LossReason.PROTOCOL_ERROR.value)

    def active(self) -> tuple[int, Active]:
        """How many sessions there are, and those whose activity is to be told again."""
        now, wall = asyncio.get_running_loop().time(), self._bus.clock.now()
        due = now - self._settings.socket.activity_seconds
        active: Active = []
        for session in self.examinees.values():
            connection = session.connection
            if connection.reported_at <= due and connection.last_heard > connection.reported_at:
                connection.reported_at = now
                heard = format_time(wall - (now - connection.last_heard))
                active.append((session.plan_id, session.examinee_id, session.socket_id, heard))
                if len(active) >= MAX_ACTIVE:
                    break
        return len(self.examinees), active


def _inspector(session: ExamineeSession) -> Callable[[bytes], Awaitable[bytes]]:
    async def answer(_request: bytes) -> bytes:
        return session.inspection().model_dump_json(by_alias=True).encode()

    return answer


def _client_info(connection: WebSocketConnection, hello: Hello) -> ClientInfo:
    said = hello.client_info.browser_info if hello.client_info else None
    agent = connection.request.headers.get("User-Agent") if connection.request else None
    address = connection.place.ip if connection.place is not None else None
    return ClientInfo(
        ip_address=address or None, browser_info=said or (clean_line(_utf8(agent))[:256] if agent else None)
    )


def _utf8(header: str) -> str:
    """A header as people mean it: websockets reads it as Latin-1, which is each byte as a character (RFC 9110, 5.5)."""
    return header.encode("latin-1", "replace").decode(errors="replace")
