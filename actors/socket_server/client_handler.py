"""The life of one client on a socket server: admission, session, frames, and the end of its socket."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any

from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.telemetry.logs import LogSummary
from actors.sessions.context import ServerContext
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.frames.reader import FrameReader
from actors.sessions.proctor_session import ProctorSession
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.admission import Admission
from actors.socket_server.handshake.hello import AcceptedHello, HelloReader
from actors.socket_server.handshake.welcome import Welcomes
from actors.socket_server.metrics import ACCEPTS
from actors.socket_server.session_factory import SessionFactory
from actors.socket_server.sessions import Sessions
from actors.socket_server.view_status import ViewWatch
from protocol.close_codes import CloseCode
from protocol.messages.codec import encode
from protocol.messages.facts import LossReason
from protocol.messages.proctor_events import PlanStateEvent
from protocol.times import format_time

log = logging.getLogger("examwire.clients")

TIDIED_AT_ONCE = 32
_EXAMINEES, _PROCTORS = ACCEPTS.labels("examinee"), ACCEPTS.labels("proctor")


class ClientHandler:
    """Serves every client of one server from its handshake to the end of its socket.

    clients = ClientHandler(context, admission, sessions, view, endpoints, summary)
    clients.accept(connection)  # by the listener
    clients.ended(connection)
    await clients.wait_gone()

    A client that is let in costs no task: its connection calls its `FrameReader` with each frame. `summary` counts in
    the log who comes and goes.
    """

    def __init__(
        self,
        context: ServerContext,
        admission: Admission,
        sessions: Sessions,
        view: ViewWatch,
        endpoints: ReadyServers,
        summary: LogSummary,
    ) -> None:
        self._context = context
        self._admission = admission
        self._sessions = sessions
        self._factory = SessionFactory(context)
        self._view = view
        self._welcomes = Welcomes(context, endpoints)
        self._summary = summary
        self._max_unread_bytes = context.settings.socket.max_buffer_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._letting_in: set[WebSocketConnection] = set()
        self._leaving: deque[SocketSession] = deque()
        self._gone = asyncio.Event()
        self._gone.set()

    def accept(self, connection: WebSocketConnection) -> None:
        """Begin to serve a client: wait for its hello."""
        self._sessions.sockets += 1
        self._gone.clear()
        connection.read_with(HelloReader(connection, self._greet))

    async def wait_gone(self) -> None:
        """Wait until every client has left and nothing is left of its session."""
        await self._gone.wait()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- its begin -----------------------------------------------------------------------------------

    def _greet(self, connection: WebSocketConnection, text: bytes | None) -> None:
        """Check the hello of a client. A session that has nothing to wait for begins at once."""
        try:
            accepted = self._admission.check(connection, text)
            if accepted is None:
                return
            plan = None
            if accepted.claims.role == "examinee":
                plan = self._admission.admit_at_once(connection, accepted.claims)
            if plan is not None:
                self._begin_examinee(connection, accepted, plan)
            else:
                self._letting_in.add(connection)
                self._run(self._let_in(connection, accepted))
        except Exception:
            self._fail(connection)

    async def _let_in(self, connection: WebSocketConnection, accepted: AcceptedHello) -> None:
        """Begin the session of a client as soon as nothing has to be waited for any more."""
        reader = None
        try:
            plan = await self._admission.admit(connection, accepted.claims)
            if plan is None:
                return
            if accepted.claims.role == "examinee":
                self._begin_examinee(connection, accepted, plan)
            else:
                proctor = self._factory.proctor(connection, accepted)
                reader = FrameReader(proctor, self._max_unread_bytes)
                await self._begin_proctor(proctor, plan)
        except Exception:
            self._fail(connection)
        finally:
            self._letting_in.discard(connection)
            if reader is not None:
                connection.read_with(reader)
                if connection.has_ended:
                    self._leave(reader)
            elif connection.has_ended:
                self._has_gone()

    def _fail(self, connection: WebSocketConnection) -> None:
        log.exception("a client could not be let in")
        connection.close(CloseCode.INTERNAL_ERROR, LossReason.SOCKET_CLOSED.value)

    def _begin_examinee(self, connection: WebSocketConnection, accepted: AcceptedHello, plan: PlanStateEvent) -> None:
        session = self._factory.examinee(connection, accepted)
        session.start_at_once(self._sessions.session_failed)
        self._sessions.add(session)
        connection.attach(session)
        connection.read_with(FrameReader(session, self._max_unread_bytes))
        plan_id, examinee_id = session.plan_id, session.examinee_id
        welcome = self._welcomes.encoded("examinee", plan_id, session.socket_id, plan.policy, examinee_id=examinee_id)
        now = format_time(self._context.clock.now())
        texts = [welcome, encode(plan.for_examinee(examinee_id, now))]
        if not (view := self._view.status(plan_id)).current:
            texts.append(encode(view))
        connection.send_together(texts)
        _EXAMINEES.inc()
        self._summary.count("examinees let in")
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s is let in", session.address, extra=session.about())
        session.announce()
        session.answer_inspections(self._sessions.inspect)

    async def _begin_proctor(self, session: ProctorSession, plan: PlanStateEvent) -> None:
        connection = session.connection
        session.start_at_once(self._sessions.session_failed)
        connection.attach(session)
        connection.limit_kernel_buffer()
        connection.send_now(self._welcomes.encoded("proctor", session.plan_id, session.socket_id, plan.policy))
        await session.send_plan_state(plan)
        connection.send_message(self._view.status(session.plan_id))
        await self._sessions.add_proctor(session)
        _PROCTORS.inc()
        self._summary.count("proctors let in")

    # -- its end -------------------------------------------------------------------------------------

    def ended(self, connection: WebSocketConnection) -> None:
        """Tidy up after a client whose connection has ended, once all that it has sent is read.

        Its session knows already: when a whole hall goes at once, its DISCONNECTEDs are published before this is done.
        """
        reader = connection.reader
        if isinstance(reader, FrameReader):
            self._leave(reader)
        elif connection not in self._letting_in:  # `_let_in` sees the end
            if isinstance(reader, HelloReader):
                reader.stop()
            self._has_gone()

    def _leave(self, reader: FrameReader) -> None:
        if reader.reading is not None:
            reader.reading.add_done_callback(lambda _: self._leave(reader))
            return
        self._leaving.append(reader.session)
        if len(self._leaving) == 1:
            asyncio.get_running_loop().call_soon(self._tidy_up)

    def _tidy_up(self) -> None:
        """End some of the sessions that were left: what they have published is sent first, and others are served."""
        for _ in range(min(TIDIED_AT_ONCE, len(self._leaving))):
            session = self._leaving.popleft()
            if isinstance(session, ExamineeSession):
                reason = session.connection.reason()
                session.ended(reason)
                self._summary.count("examinees gone", reason)
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("%s has gone", session.address, extra={**session.about(), "reason": reason})
                self._sessions.remove(session)
                if session.stop_at_once():
                    self._has_gone()
                    continue
            self._run(self._stop(session))
        if self._leaving:
            asyncio.get_running_loop().call_soon(self._tidy_up)

    async def _stop(self, session: SocketSession) -> None:
        try:
            if isinstance(session, ProctorSession):
                self._summary.count("proctors gone", session.connection.reason())
                await self._sessions.remove_proctor(session)
            await session.stop()
        except Exception:
            log.exception("%s could not be ended", session.address, extra=session.about())
        self._has_gone()

    def _has_gone(self) -> None:
        self._sessions.sockets -= 1
        if not self._sessions.sockets:
            self._gone.set()
