"""Makes the session of a client whose hello was accepted."""

from __future__ import annotations

from actors.sessions.context import ServerContext
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.limits.fact_budget import PROCTOR, ExamineeBudgets, FactBudgets
from actors.sessions.proctor_session import ProctorSession
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.hello import AcceptedHello


class SessionFactory:
    """Makes sessions, each with the budgets of its identity: they outlast a connection.

    factory = SessionFactory(context)
    session = factory.examinee(connection, accepted)
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._budgets = ExamineeBudgets()
        self._actions = FactBudgets(PROCTOR)

    def examinee(self, connection: WebSocketConnection, accepted: AcceptedHello) -> ExamineeSession:
        """Make the session of an examinee."""
        session = ExamineeSession(self._context, connection, accepted.claims, accepted.hello, self._budgets)
        connection.forget_request()
        return session

    def proctor(self, connection: WebSocketConnection, accepted: AcceptedHello) -> ProctorSession:
        """Make the session of a proctor."""
        claims = accepted.claims
        actions = self._actions.of(claims.plan, claims.sub)
        connection.forget_request()
        return ProctorSession(self._context, connection, claims, actions=actions)
