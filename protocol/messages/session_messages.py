"""Messages to a socket server about its sessions. With the events they are all that its queue delivers.

`proctor_activity` goes over core NATS: it is told at once, and never stored.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from protocol.ids import Id, ServerId, SocketId
from protocol.messages.base import Message, Name, Reason, Text, Version
from protocol.messages.codec import Codec
from protocol.messages.plan_facts import PlanPurged
from protocol.messages.proctor_events import EVENTS
from protocol.messages.views import ConnectionView, HelpView, MobileSyncView, NoticeView, ReconnectView


class SessionState(Message):
    """The recorded state of the examinee on `socketId`; sent after each CONNECTED. `name`: that of the roster.

    `notices`: the proctors' messages that the examinee has not confirmed, oldest first, also those to several.
    `help`: the open request for help, at the version `noticesVersion` of the examinee's messages.
    """

    type: ClassVar[str] = "session_state"
    plan_id: Id
    examinee_id: Id
    socket_id: SocketId
    name: Name | None = None
    connection: ConnectionView
    mobile_sync: MobileSyncView = MobileSyncView()
    reconnect: ReconnectView = ReconnectView()
    notices: list[NoticeView] = Field(default=[])
    help: HelpView | None = None
    notices_version: Version = 0
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


class SessionAnnounce(Message):
    """Tell a socket server to announce all its sessions again: what is recorded about them may be gone or outdated.

    The server also says which of the sockets that are recorded for it are closed. `reason` is for its log.
    """

    type: ClassVar[str] = "session_announce"
    server_id: ServerId
    reason: Reason


ACTIVITY_SECONDS = 5.0
"""A proctor's client says this often what its proctor is doing with an examinee, for as long as it lasts."""
FORGET_ACTIVITY_SECONDS = 12.0
"""A client forgets what another proctor was doing when it has not been told again for so long."""

ProctorDoing = Literal["looking", "writing", "nothing"]
"""looking: the examinee's panel is open. writing: a message to them is being written. nothing: neither any more."""


class ProctorActivity(Message):
    """`proctor_activity`: the proctor `by` on `socketId` is doing something with an examinee, or nothing any more.

    Socket servers tell one another, and their proctors of the plan, so that two do not do the same.
    """

    type: ClassVar[str] = "proctor_activity"
    plan_id: Id
    examinee_id: Id
    by: Text
    by_name: Name | None = None
    socket_id: SocketId
    doing: ProctorDoing


TO_SERVERS: tuple[type[Message], ...] = (SessionState, SessionClose, SessionLost, SessionAnnounce)
"""The messages to one socket server."""
SOCKET_MESSAGES: tuple[type[Message], ...] = (*EVENTS, *TO_SERVERS, PlanPurged)
"""The messages that a socket server receives (`queueType` `socket_message`)."""


SOCKET_CODEC = Codec.of(SOCKET_MESSAGES)
ACTIVITY_CODEC = Codec.of((ProctorActivity,))
