"""Base of the sessions of examinees and proctors: a socket, a mailbox, heartbeats, one hello."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from actors.runtime.actor.actor import Actor, ActorStopped, on
from actors.runtime.actor.mailbox import MailboxFull
from actors.sessions.context import ServerContext
from actors.sessions.outbox import Outbox
from actors.sessions.websocket import WebSocketConnection
from protocol.broker.passed_on import UsualState
from protocol.close_codes import CloseCode
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages.base import Message
from protocol.messages.facts import LossReason, NoticeConfirmed
from protocol.messages.frames import Accepted, Heartbeat, Hello, error_frame
from protocol.messages.session_messages import SessionClose
from protocol.rules.action_ids import ActingFact, message_id

log = logging.getLogger("examwire.session")

SLOW_SECONDS = 5.0
"""A session whose full mailbox has no room for so long is closed as a slow client."""

MOST_OVERFLOW = 1000
"""So many messages at most wait for room in a full mailbox; with one more the session is closed as a slow client."""


class SocketSession(Actor):
    """An actor that speaks for one socket. `over`: the socket has ended.

    await session.start(on_failure)
    session.deliver(notice)  # from the server's queue: returns at once, however slow the session is
    await session.put(frame)  # from its client: waits for room in the mailbox
    """

    mailbox_capacity = 64
    handles_at_once = True
    over = False
    _overflow: deque[Message | UsualState] | None = None

    def __init__(
        self, context: ServerContext, connection: WebSocketConnection, address: str, *, plan_id: str, socket_id: str
    ) -> None:
        super().__init__(address)
        self.connection = connection
        self.plan_id = plan_id
        self.socket_id = socket_id
        self._context = context

    @property
    def _outbox(self) -> Outbox:
        return self._context.outbox

    def about(self) -> dict[str, str]:
        return {"plan": self.plan_id, "socket": self.socket_id}

    # -- from the server -----------------------------------------------------------------------------

    def deliver(self, message: Message | UsualState) -> None:
        """Put a message into the mailbox without waiting. When it is full, keep the message until there is room.

        A session that does not take its messages in time is closed as a slow client. What it misses is in the
        `session_state` of the client's next session. A session that is being closed takes no more messages.
        """
        if not (self.running and self.connection.is_open):
            return
        if self._overflow is None:
            try:
                self.tell(message)
            except MailboxFull:
                self._overflow = deque([message])
                self.spawn(self._deliver_overflow(self._overflow), "overflow")
        elif len(self._overflow) < MOST_OVERFLOW:
            self._overflow.append(message)
        else:
            self.abort_slow("%d messages wait for its mailbox", len(self._overflow))

    async def _deliver_overflow(self, overflow: deque[Message | UsualState]) -> None:
        try:
            while overflow:
                async with asyncio.timeout(SLOW_SECONDS):
                    await self.mailbox.wait_for_room()
                self.tell(overflow.popleft())
        except TimeoutError:
            self.abort_slow("%d messages wait for its mailbox", len(overflow))
        except ActorStopped:
            overflow.clear()
        else:
            self._overflow = None

    def abort_slow(self, detail: str, number: int) -> None:
        """Drop the connection of a client that does not keep up. `detail` is logged, with its number."""
        log.warning(f"%s is too slow: {detail}", self.address, number, extra=self.about())
        self.connection.abort(LossReason.SLOW_CLIENT.value)

    @on(SessionClose)
    async def close(self, message: SessionClose) -> None:
        await self.connection.end(CloseCode(message.code))

    async def drain(self) -> None:
        """Prepare for the drain of the server. Returns when the client may be told to connect to another server."""

    # -- from the client -----------------------------------------------------------------------------

    @on(Heartbeat)
    def heartbeat(self, frame: Heartbeat) -> None:
        self.connection.send_message(frame)

    @on(Hello)
    def second_hello(self, frame: Hello) -> None:
        error = ProtocolError(ErrorCode.ALREADY_GREETED, "hello was sent already; the connection stays open")
        self.connection.send_message(error_frame(error, frame.type))

    def refuse_for_now(self, kind: str, request_id: str | None = None, field: str | None = None) -> None:
        """Answer a frame that is over the client's limit; the client may send it again later."""
        detail = "too many of these at once; say it again in some seconds"
        error = ProtocolError(ErrorCode.TOO_MANY_REQUESTS, detail, field)
        self.connection.send_message(error_frame(error, kind, request_id))

    def not_allowed(self, kind: str, detail: str, request_id: str | None = None) -> None:
        """Answer a frame of a type that this role may not send."""
        self.connection.send_message(error_frame(ProtocolError(ErrorCode.NOT_ALLOWED, detail), kind, request_id))

    async def act(self, fact: ActingFact | NoticeConfirmed, kind: str, request_id: str | None) -> None:
        """Store an action, and answer `accepted` once it is in the log. A repetition is in the log already."""
        await self._outbox.store(fact, message_id(fact))
        self.connection.send_message(Accepted(request_type=kind, request_id=request_id))
