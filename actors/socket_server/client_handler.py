"""The life of one client on a socket server: admission, session, frames, and the end of its socket."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any

from actors.runtime.config.ladder import Ladder
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.telemetry.logs import LogSummary
from actors.sessions.context import ServerContext
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.frames.endpoint import ConnectionOver
from actors.sessions.frames.reader import FrameReader
from actors.sessions.proctor_session import ProctorSession
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.admission import Admission
from actors.socket_server.handshake.hello import AcceptedHello
from actors.socket_server.metrics import ACCEPTS
from actors.socket_server.session_factory import SessionFactory
from actors.socket_server.sessions import Sessions
from actors.socket_server.view_status import ViewWatch
from protocol.close_codes import CloseCode
from protocol.messages.facts import LossReason
from protocol.messages.frames import ReconnectPolicy, Welcome
from protocol.messages.plan_facts import PlanPolicy
from protocol.times import format_time

log = logging.getLogger("examwire.clients")

TIDIED_AT_ONCE = 16
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
        self._endpoints = endpoints
        self._summary = summary
        self._max_unread_bytes = context.settings.socket.max_buffer_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: deque[FrameReader] = deque()
        self._tidying = 0
        self._gone = asyncio.Event()
        self._gone.set()

    def accept(self, connection: WebSocketConnection) -> None:
        """Begin to serve a client."""
        self._sessions.sockets += 1
        self._gone.clear()
        self._run(self._let_in(connection))

    async def wait_gone(self) -> None:
        """Wait until every client has left and nothing is left of its session."""
        await self._gone.wait()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- its begin -----------------------------------------------------------------------------------

    async def _let_in(self, connection: WebSocketConnection) -> None:
        """Check a client, and begin its session. From then on its connection calls the reader of its frames."""
        reader = None
        try:
            accepted = await self._admission.admit(connection)
            if accepted is None:
                return
            if accepted.claims.role == "examinee":
                examinee = self._factory.examinee(connection, accepted)
                await examinee.start(self._sessions.session_failed)
                reader = FrameReader(examinee, self._max_unread_bytes)
                await self._begin_examinee(examinee, accepted)
            else:
                proctor = self._factory.proctor(connection, accepted)
                await proctor.start(self._sessions.session_failed)
                reader = FrameReader(proctor, self._max_unread_bytes)
                await self._begin_proctor(proctor, accepted)
        except ConnectionOver:
            return
        except Exception:
            log.exception("a client could not be let in")
            connection.close(CloseCode.INTERNAL_ERROR, LossReason.SOCKET_CLOSED.value)
        finally:
            if reader is None:
                self._has_gone()
            else:
                connection.read_with(reader)
                if connection.has_ended:
                    self._leave(reader)

    async def _begin_examinee(self, session: ExamineeSession, accepted: AcceptedHello) -> None:
        connection = session.connection
        self._sessions.add(session)
        connection.attach(session)
        plan = await self._context.plans.of(session.plan_id)
        connection.send_message(self._welcome(accepted, session.socket_id, session.examinee_id, plan.policy))
        session.send_plan_state(plan)
        if not (view := self._view.status(session.plan_id)).current:
            connection.send_message(view)
        _EXAMINEES.inc()
        self._summary.count("examinees let in")
        log.debug("%s is let in", session.address, extra=session.about())
        session.announce()
        await session.answer_inspections()

    async def _begin_proctor(self, session: ProctorSession, accepted: AcceptedHello) -> None:
        connection = session.connection
        connection.attach(session)
        connection.limit_kernel_buffer()
        plan = await self._context.plans.of(session.plan_id)
        connection.send_message(self._welcome(accepted, session.socket_id, None, plan.policy))
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
        if isinstance(connection.reader, FrameReader):  # otherwise its session has not begun: `_let_in` sees the end
            self._leave(connection.reader)

    def _leave(self, reader: FrameReader) -> None:
        if reader.reading is not None:
            reader.reading.add_done_callback(lambda _: self._leave(reader))
            return
        self._leaving.append(reader)
        if self._tidying < TIDIED_AT_ONCE:
            self._tidying += 1
            self._run(self._tidy_up())

    async def _tidy_up(self) -> None:
        while self._leaving:
            session = self._leaving.popleft().session
            try:
                await self._end_session(session)
            except Exception:
                log.exception("%s could not be ended", session.address, extra=session.about())
            self._has_gone()
        self._tidying -= 1

    async def _end_session(self, session: SocketSession) -> None:
        reason = session.connection.reason()
        if isinstance(session, ExamineeSession):
            session.ended(reason)
            self._summary.count("examinees gone", reason)
            log.debug("%s has gone", session.address, extra={**session.about(), "reason": reason})
            self._sessions.remove(session)
        elif isinstance(session, ProctorSession):
            self._summary.count("proctors gone", reason)
            await self._sessions.remove_proctor(session)
        await session.stop()

    def _has_gone(self) -> None:
        self._sessions.sockets -= 1
        if not self._sessions.sockets:
            self._gone.set()

    def _welcome(
        self, accepted: AcceptedHello, socket_id: str, examinee_id: str | None, policy: PlanPolicy | None
    ) -> Welcome:
        claims, settings = accepted.claims, self._context.settings
        ladder = Ladder.of(settings.reconnect, policy)
        return Welcome(
            role=claims.role,
            plan_id=claims.plan,
            examinee_id=examinee_id,
            server_id=self._context.server_id,
            socket_id=socket_id,
            heartbeat_seconds=settings.socket.ping_interval_seconds,
            server_time=format_time(self._context.clock.now()),
            reconnect=ReconnectPolicy(
                max_attempts=ladder.max_attempts,
                backoff_seconds=ladder.backoff_seconds,
                jitter=ladder.jitter,
                shut_out=None if ladder.shut_out else False,
            ),
            endpoints=self._endpoints.all,
        )
