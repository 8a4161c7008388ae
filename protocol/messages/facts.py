"""What STATUS, the log of record, holds: the facts about examinees, from which everything is decided.

`status.plan.{planId}` carries them; what is said of a server there is in `server_messages`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, WithJsonSchema

from protocol.ids import ExamineeRef, Id, ServerId, SocketId
from protocol.messages.base import ActionId, Message, Name, Reason, Text, Traced, Version, Wire
from protocol.messages.codec import Codec
from protocol.messages.server_messages import ServerStatus
from protocol.times import Timestamp


class ExamineeFact(Traced):
    """Something that happened to one examinee of a plan: what `status.plan.{planId}` carries."""

    plan_id: Id
    examinee_id: Id
    timestamp: Timestamp

    @property
    def examinee(self) -> ExamineeRef:
        """Whom it is about."""
        return ExamineeRef(self.plan_id, self.examinee_id)


class ActionFact(ExamineeFact):
    """What somebody has decided about an examinee: `by` whom, and the `actionId` of a proctor's frame."""

    by: Text
    action_id: ActionId | None = None


# -- connection (document 10) -----------------------------------------------------------------------------


class ConnectionStatusCode(StrEnum):
    """What an examinee is. MIGRATING: sent away by a server that is drained, and expected on another one."""

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    MIGRATING = "MIGRATING"


def _check_socket_status(status: ConnectionStatusCode) -> ConnectionStatusCode:
    if status is ConnectionStatusCode.MIGRATING:
        raise ValueError("a socket is CONNECTED or DISCONNECTED; that it was sent away is said by its reason")
    return status


SocketStatusCode = Annotated[
    ConnectionStatusCode,
    AfterValidator(_check_socket_status),
    WithJsonSchema({"type": "string", "enum": ["CONNECTED", "DISCONNECTED"]}),
]


class LossReason(StrEnum):
    """`reason` of a loss. SERVER_DRAINING: sent away to another server, a loss only if it does not arrive there."""

    SOCKET_CLOSED = "SOCKET_CLOSED"
    PING_TIMEOUT = "PING_TIMEOUT"
    SLOW_CLIENT = "SLOW_CLIENT"
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    SERVER_ISOLATED = "SERVER_ISOLATED"
    SERVER_DRAINING = "SERVER_DRAINING"
    SERVER_STOPPED = "SERVER_STOPPED"
    SERVER_RESTARTED = "SERVER_RESTARTED"
    SERVER_LOST = "SERVER_LOST"
    KICKED = "KICKED"
    RECONNECT_LIMIT_EXCEEDED = "RECONNECT_LIMIT_EXCEEDED"


class ClientInfo(Wire):
    ip_address: Text | None = None
    browser_info: Text | None = None


class ConnectionStatus(ExamineeFact):
    """A socket opened or ended (document 10.4). `serverId` to `again` are additions.

    `again`: this socket was announced before; whoever is connected since by another one has replaced it.
    """

    type: ClassVar[str] = "connection_status"
    socket_id: SocketId
    status: SocketStatusCode
    reason: Reason | None = None
    client_info: ClientInfo | None = None
    server_id: ServerId | None = None
    incarnation: Id | None = None
    client_id: Id | None = None
    connection_no: Annotated[int, Field(ge=0, lt=2**53)] = 0
    again: bool | None = None


class ReconnectAttempt(ExamineeFact):
    """The reconnect watch: attempt `attempt` of `maxAttempts` after the loss `lossVersion` has begun."""

    type: ClassVar[str] = "reconnect_attempt"
    loss_version: Version
    attempt: Annotated[int, Field(ge=1)]
    max_attempts: Annotated[int, Field(ge=1)]
    next_attempt_at: Timestamp | None = None


class ReconnectExhausted(ExamineeFact):
    """The reconnect watch: the last attempt after the loss `lossVersion` went by without a recovery."""

    type: ClassVar[str] = "reconnect_exhausted"
    loss_version: Version


class Enrol(ExamineeFact):
    """The plan's roster names an examinee, who may come later or never; `by`: who has said so."""

    type: ClassVar[str] = "enrol"
    name: Name | None = None
    by: Text | None = None
    action_id: ActionId | None = None


class Readmit(ActionFact):
    """A proctor lets an examinee in again after the attempts were used up, or after a removal."""

    type: ClassVar[str] = "readmit"


class Remove(ActionFact):
    """A proctor takes an examinee out of the exam: nobody is let in under this id until a proctor readmits."""

    type: ClassVar[str] = "remove"
    reason: Text | None = None


Aspect = Literal["connection", "mobile_sync", "notices"]
"""What an examinee is told about in three lines of versions, each with a record of its own."""


class Restate(ExamineeFact):
    """An examinee's state is told anew, with all that follows from it.

    What was told before may not be true: a late message has changed it, or Redis was repaired.
    """

    type: ClassVar[str] = "restate"
    aspect: Aspect = "connection"


# -- mobile sync (document 18) ----------------------------------------------------------------------------


class MobileSyncCode(StrEnum):
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"


class MobileSyncReason(StrEnum):
    """`reason` of a mobile sync that FAILED or TIMED_OUT."""

    IMAGE_UPLOAD_FAILED = "IMAGE_UPLOAD_FAILED"
    IMAGE_STORE_FAILED = "IMAGE_STORE_FAILED"
    STATE_CHANGE_FAILED = "STATE_CHANGE_FAILED"
    SYNC_TIMEOUT = "SYNC_TIMEOUT"


class DeviceInfo(Wire):
    model: Text | None = None
    os_version: Text | None = None


class CaptureInfo(Wire):
    image_url: Annotated[str, Field(max_length=512)]
    device_info: DeviceInfo = DeviceInfo()


class MobileSyncWait(ExamineeFact):
    """An examinee entered the mobile sync stage (document 18.3), until `deadline`.

    `byLogTime`: it begins when the log takes it, and lasts as long as its sender says, whatever clock that one has.
    """

    type: ClassVar[str] = "mobile_sync_wait"
    deadline: Timestamp
    by_log_time: bool | None = None


class MobileSyncStatus(ExamineeFact):
    """The outcome of an upload (document 18.4); also what proctors are told of every other change.

    `captureId` is the SHA-256 of the stored picture (an addition): a repeated upload is recognised by it. `by` and
    `actionId`: the proctor who gave more time.
    """

    type: ClassVar[str] = "mobile_sync_status"
    device_id: Id | None = None
    status: MobileSyncCode
    capture_info: CaptureInfo | None = None
    reason: Reason | None = None
    capture_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    deadline: Timestamp | None = None
    by: Text | None = None
    action_id: ActionId | None = None
    version: Version | None = None


class MobileSyncExtend(ActionFact):
    """A proctor gives an examinee `seconds` more for the picture, also when the stage has ended without one.

    `byLogTime`: as of `mobile_sync_wait`.
    """

    type: ClassVar[str] = "mobile_sync_extend"
    seconds: Annotated[int, Field(ge=10, le=3600, strict=True)]
    by_log_time: bool | None = None


class MobileSyncTimeout(ExamineeFact):
    """The schedule of a stage has fired: the wait of `waitVersion` is over."""

    type: ClassVar[str] = "mobile_sync_timeout"
    wait_version: Version


# -- messages of proctors ---------------------------------------------------------------------------------

NoticeText = Annotated[str, Field(min_length=1, max_length=1000)]


class _NoticeMessage(ExamineeFact):
    """A fact, and with `version` what proctors are told of it.

    An event tells all that they must have right: `unconfirmed` are the actionIds that the examinee has not confirmed,
    of the newest 20; `sent` counts all. `restated`: told anew because a late message changed what was told before.
    """

    action_id: ActionId
    unconfirmed: list[ActionId] | None = None
    sent: int | None = None
    restated: bool | None = None
    version: Version | None = None


class Notice(_NoticeMessage):
    """A message of the proctor `by` to an examinee; also what the examinee is sent."""

    type: ClassVar[str] = "notice"
    text: NoticeText
    by: Text


class NoticeConfirmed(_NoticeMessage):
    """The examinee has read the message `actionId`; proctors are told `by` whom that was."""

    type: ClassVar[str] = "notice_confirmed"
    by: Text | None = None


# -- together ---------------------------------------------------------------------------------------------

ConnectionFact = ConnectionStatus | ReconnectAttempt | ReconnectExhausted | Enrol | Readmit | Remove | Restate
MobileSyncFact = MobileSyncWait | MobileSyncStatus | MobileSyncExtend | MobileSyncTimeout | Restate
NoticeFact = Notice | NoticeConfirmed | Restate


def aspect_of(fact: ExamineeFact) -> Aspect:
    """What of an examinee a fact is about: which of the three records it changes."""
    match fact:
        case Restate():
            return fact.aspect
        case MobileSyncWait() | MobileSyncStatus() | MobileSyncExtend() | MobileSyncTimeout():
            return "mobile_sync"
        case Notice() | NoticeConfirmed():
            return "notices"
        case _:
            return "connection"


STATUS_MESSAGES: tuple[type[Message], ...] = get_args(ConnectionFact | MobileSyncFact | NoticeFact | ServerStatus)
"""What the state manager receives."""


STATUS_CODEC = Codec.of(STATUS_MESSAGES)
