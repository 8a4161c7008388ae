"""The life of one client on a socket server: admission, session, frames, and the end of its socket."""

from __future__ import annotations

import asyncio
import logging

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from actors.runtime.config.ladder import Ladder
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.telemetry.logs import LogSummary
from actors.sessions.context import ServerContext
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.frame_reader import read_frames
from actors.sessions.proctor_session import ProctorSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.admission import Admission
from actors.socket_server.handshake.hello import AcceptedHello
from actors.socket_server.metrics import ACCEPTS
from actors.socket_server.session_factory import SessionFactory
from actors.socket_server.sessions import Sessions
from actors.socket_server.view_status import ViewWatch
from protocol.messages.frames import ReconnectPolicy, Welcome
from protocol.messages.plan_facts import PlanPolicy
from protocol.times import format_time

log = logging.getLogger("examwire.clients")

CLEANUPS_AT_ONCE = 16
_EXAMINEES, _PROCTORS = ACCEPTS.labels("examinee"), ACCEPTS.labels("proctor")


class ClientHandler:
    """Serves every client of one server from its handshake to the end of its socket.

    clients = ClientHandler(context, admission, sessions, view, endpoints, summary)
    listener = Listener(settings.socket, checks, tls, clients.handle)

    `summary` counts in the log who comes and goes.
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
        self._cleanups = asyncio.Semaphore(CLEANUPS_AT_ONCE)

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one client. The WebSocket is closed when this returns."""
        assert isinstance(connection, WebSocketConnection)
        with self._sessions.open_socket():
            try:
                accepted = await self._admission.admit(connection)
                if accepted is None:
                    return
                if accepted.claims.role == "examinee":
                    await self._serve_examinee(self._factory.examinee(connection, accepted), accepted)
                else:
                    await self._serve_proctor(self._factory.proctor(connection, accepted), accepted)
            except ConnectionClosed:
                return

    async def _serve_examinee(self, session: ExamineeSession, accepted: AcceptedHello) -> None:
        connection = session.connection
        await session.start(self._sessions.session_failed)
        self._sessions.add(session)
        connection.attach(session)
        try:
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
            await read_frames(session, self._max_unread_bytes)
        finally:
            reason = connection.reason()
            session.ended(reason)
            self._summary.count("examinees gone", reason)
            log.debug("%s has gone", session.address, extra={**session.about(), "reason": reason})
            # When a whole hall goes at once, its DISCONNECTEDs are published before all of this is cleaned up.
            async with self._cleanups:
                self._sessions.remove(session)
                await session.stop()

    async def _serve_proctor(self, session: ProctorSession, accepted: AcceptedHello) -> None:
        connection = session.connection
        await session.start(self._sessions.session_failed)
        connection.attach(session)
        connection.limit_kernel_buffer()
        try:
            plan = await self._context.plans.of(session.plan_id)
            connection.send_message(self._welcome(accepted, session.socket_id, None, plan.policy))
            await session.send_plan_state(plan)
            connection.send_message(self._view.status(session.plan_id))
            await self._sessions.add_proctor(session)
            _PROCTORS.inc()
            self._summary.count("proctors let in")
            await read_frames(session, self._max_unread_bytes)
        finally:
            self._summary.count("proctors gone", connection.reason())
            await self._sessions.remove_proctor(session)
            await session.stop()

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
