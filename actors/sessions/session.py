"""What the sessions of all clients have in common: a socket, a sign of life, and one hello."""

from __future__ import annotations

from actors.runtime.actor.actor import Actor, on
from actors.sessions.outbox import Outbox
from actors.sessions.websocket import WebSocketConnection
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages.facts import ActionFact, Notice, NoticeConfirmed
from protocol.messages.frames import Accepted, Heartbeat, Hello, error_frame
from protocol.rules.action_ids import message_id


class SocketSession(Actor):
    """An actor that speaks for one socket. `over`: the socket has ended."""

    mailbox_capacity = 64

    def __init__(
        self, address: str, connection: WebSocketConnection, outbox: Outbox, *, plan_id: str, socket_id: str
    ) -> None:
        super().__init__(address)
        self.connection = connection
        self._outbox = outbox
        self.plan_id = plan_id
        self.socket_id = socket_id
        self.over = False

    def about(self) -> dict[str, str]:
        return {"plan": self.plan_id, "socket": self.socket_id}

    @on(Heartbeat)
    def heartbeat(self, frame: Heartbeat) -> None:
        self.connection.tell(frame)

    @on(Hello)
    def greeted_already(self, frame: Hello) -> None:
        error = ProtocolError(ErrorCode.ALREADY_GREETED, "hello was said already; the connection goes on as it is")
        self.connection.tell(error_frame(error, frame.type))

    async def leave(self) -> None:
        """The server is drained: return when the client may be told to go."""

    def refuse_for_now(self, kind: str, request_id: str | None = None, field: str | None = None) -> None:
        """Answer a frame of somebody who has had their share; it may be said again."""
        detail = "too many of these at once; say it again in some seconds"
        error = ProtocolError(ErrorCode.TOO_MANY_REQUESTS, detail, field)
        self.connection.tell(error_frame(error, kind, request_id))

    def not_allowed(self, kind: str, detail: str, request_id: str | None = None) -> None:
        """Answer a frame of a type that is not for this role."""
        self.connection.tell(error_frame(ProtocolError(ErrorCode.NOT_ALLOWED, detail), kind, request_id))

    async def act(self, fact: ActionFact | Notice | NoticeConfirmed, kind: str, request_id: str | None) -> None:
        """An action into the log, and `accepted` once it is there; a retry of it is there already."""
        await self._outbox.store(fact, message_id(fact))
        self.connection.tell(Accepted(request_type=kind, request_id=request_id))
