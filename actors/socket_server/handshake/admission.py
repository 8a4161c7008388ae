"""Admission: everything that is checked between the handshake of a WebSocket and the session of its client."""

from __future__ import annotations

import asyncio
import logging

from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.telemetry.logs import LogSummary
from actors.sessions.context import ServerContext
from actors.sessions.limits.fact_budget import CONNECTIONS, FactBudgets
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.delivery.queue import ServerQueue
from actors.socket_server.drain import ServerDrain
from actors.socket_server.handshake.hello import AcceptedHello, check_hello
from protocol.access.claims import Claims
from protocol.close_codes import CloseCode
from protocol.errors import ExamwireError
from protocol.messages.facts import LossReason
from protocol.messages.plan_facts import PlanStatusCode
from protocol.messages.proctor_events import PlanStateEvent

log = logging.getLogger("examwire.clients")

SUBSCRIBE_SECONDS = 5.0


class Admission:
    """Admits clients: a valid hello, not too many connections, the messages of the plan, no end of it, and no drain.

    admission = Admission(context, tokens, queue, drain, summary)
    accepted = admission.check(connection, text)  # `None`: the connection is closed, with a code that says why
    plan = admission.admit_at_once(connection, claims) or await admission.admit(connection, claims)

    `summary` counts in the log what was wrong with a hello.
    """

    def __init__(
        self,
        context: ServerContext,
        tokens: TokenVerifier,
        queue: ServerQueue,
        drain: ServerDrain,
        summary: LogSummary,
    ) -> None:
        self._context = context
        self._tokens = tokens
        self._queue = queue
        self._drain = drain
        self._summary = summary
        self._connections = FactBudgets(CONNECTIONS)

    def check(self, connection: WebSocketConnection, text: bytes | None) -> AcceptedHello | None:
        """Check the hello of a client. `None`: the connection is closed, with a code that says why."""
        accepted = check_hello(connection, text, self._tokens)
        if accepted is None:
            self._summary.count("turned away", connection.reason())
            return None
        socket = self._context.settings.socket
        connection.hello_accepted(socket.bytes_per_second, socket.frames_per_second)
        return accepted

    def admit_at_once(self, connection: WebSocketConnection, claims: Claims) -> PlanStateEvent | None:
        """Return the state of the plan of an examinee who has to wait for nothing. `None`: `admit` decides."""
        plan = self._context.plans.known(claims.plan)
        if (
            plan is None
            or plan.status is PlanStatusCode.CLOSED
            or self._drain.active
            or not connection.is_open
            or not self._queue.serves(claims.plan, proctors=False)
            or not self._connections.of(claims.plan, claims.sub).take()
        ):
            return None
        return plan

    async def admit(self, connection: WebSocketConnection, claims: Claims) -> PlanStateEvent | None:
        """Admit a client and return the state of the plan. `None`: the connection is closed, or was left."""
        proctor = claims.role == "proctor"
        if not proctor and not await self._wait_turn(connection, claims):
            return None
        if not await self._subscribed(connection, claims.plan, proctors=proctor):
            return None
        if not proctor and await self._context.plans.is_closed(claims.plan):
            connection.close(CloseCode.EXAM_OVER)
            return None
        plan = await self._context.plans.of(claims.plan)
        if self._drain.active:
            connection.send_message(self._drain.frame())
            connection.close(CloseCode.MIGRATE, LossReason.SERVER_DRAINING.value)
            return None
        return plan if connection.is_open else None

    async def _wait_turn(self, connection: WebSocketConnection, claims: Claims) -> bool:
        """Wait for a turn of this examinee. False: the client has left meanwhile, or was closed for too many tries.

        Each connection that is let in is a CONNECTED, and a DISCONNECTED that must not be missed. So an examinee who
        connects again and again waits, and nothing is recorded of connections that end while they wait.
        """
        budget = self._connections.of(claims.plan, claims.sub)
        if budget.take():
            return True
        turn = asyncio.create_task(budget.turn("connection"))
        closed = asyncio.create_task(connection.wait_closed())
        await asyncio.wait({turn, closed}, return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        if not turn.done():
            turn.cancel()
            return False
        if not turn.result():
            connection.close(CloseCode.TOO_OFTEN)
            return False
        return connection.is_open

    async def _subscribed(self, connection: WebSocketConnection, plan_id: str, *, proctors: bool) -> bool:
        """Have the messages of the plan come to this server; only the first client of a plan waits for that.

        False: it was not possible, and the connection is closed.
        """
        if self._queue.serves(plan_id, proctors=proctors):
            return True
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await self._queue.serve(plan_id, proctors=proctors)
        except (ExamwireError, TimeoutError) as error:
            detail = str(error) or f"its queue did not get the plan's messages within {SUBSCRIBE_SECONDS:g} s"
            address = self._context.address
            log.error("%s: plan %s cannot be served: %s", address, plan_id, detail, extra={"plan": plan_id})
            connection.close(CloseCode.NOT_READY)
            return False
        return True
