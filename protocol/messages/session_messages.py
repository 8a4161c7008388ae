"""Messages to a socket server about its sessions. With the events they are all that its queue delivers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from protocol.ids import Id, ServerId, SocketId
from protocol.messages.base import Message, Version
from protocol.messages.codec import Codec
from protocol.messages.proctor_events import EVENTS
from protocol.messages.views import ConnectionView, MobileSyncView, NoticeView, ReconnectView


class SessionState(Message):
    """The recorded state of the examinee on `socketId`; sent after each CONNECTED.

    `notices`: the proctors' messages that the examinee has not confirmed, oldest first.
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
    """Tell the socket server that holds `socketId` to close it with `code` (a `CloseCode`)."""

    type: ClassVar[str] = "session_close"
    socket_id: SocketId
    code: Annotated[int, Field(ge=1000, le=4999)]


class SessionLost(Message):
    """Tell a socket server that its sockets `socketIds` were declared lost; it announces those still open again."""

    type: ClassVar[str] = "session_lost"
    server_id: ServerId
    incarnation: Id | None = None
    socket_ids: list[SocketId] = Field(default=[])


SOCKET_MESSAGES: tuple[type[Message], ...] = (*EVENTS, SessionState, SessionClose, SessionLost)
"""The messages that a socket server receives (`queueType` `socket_message`)."""


SOCKET_CODEC = Codec.of(SOCKET_MESSAGES)
