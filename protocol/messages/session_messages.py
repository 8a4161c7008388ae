"""What a socket server is told about sessions that it holds; with the events, all that its queue brings it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from protocol.ids import Id, ServerId, SocketId
from protocol.messages.base import Message, Version
from protocol.messages.codec import Codec
from protocol.messages.proctor_events import EVENTS
from protocol.messages.views import ConnectionView, MobileSyncView, NoticeView, ReconnectView


class SessionState(Message):
    """To the examinee behind `socketId`, after each CONNECTED: what is recorded about them.

    `notices`: the messages of proctors that were not confirmed, the oldest first.
    """

    type: ClassVar[str] = "session_state"
    plan_id: Id
    examinee_id: Id
    socket_id: SocketId
    connection: ConnectionView
    mobile_sync: MobileSyncView = MobileSyncView()
    reconnect: ReconnectView = ReconnectView()
    notices: list[NoticeView] = Field(default=[])
    version: Version


class SessionClose(Message):
    """To the server that holds `socketId`: close it with `code` (a `CloseCode`)."""

    type: ClassVar[str] = "session_close"
    socket_id: SocketId
    code: Annotated[int, Field(ge=1000, le=4999)]


class SessionLost(Message):
    """To a server: these sockets of its were declared lost. If one of them is alive, the server announces it anew."""

    type: ClassVar[str] = "session_lost"
    server_id: ServerId
    incarnation: Id | None = None
    socket_ids: list[SocketId] = Field(default=[])


SOCKET_MESSAGES: tuple[type[Message], ...] = (*EVENTS, SessionState, SessionClose, SessionLost)
"""What a socket server receives (`socket_message` of the document)."""


SOCKET_CODEC = Codec.of(SOCKET_MESSAGES)
