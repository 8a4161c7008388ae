"""The facts about examinees in STATUS, the log of record, on `status.plan.{planId}.>`.

All state is derived from facts. Those about socket servers are in `server_messages`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, WithJsonSchema

from protocol.ids import ExamineeRef, Id, ServerId, SocketId
from protocol.messages.base import ActionId, Labels, Message, Name, NoticeText, Reason, Stored, Text, Traced, Version
from protocol.messages.codec import Codec
from protocol.messages.plan_facts import PLAN_FACTS
from protocol.messages.server_messages import ServerStatus
from protocol.messages.views import CaptureId, CaptureView, Challenge, HelpView, ReviewView, Verdict
from protocol.times import Timestamp


class ExamineeFact(Traced, Stored):
    """A fact about one examinee of a plan, published on `status.plan.{planId}`."""

    plan_id: Id
    examinee_id: Id
    timestamp: Timestamp

    @property
    def examinee(self) -> ExamineeRef:
        """The examinee that the fact is about."""
        return ExamineeRef(self.plan_id, self.examinee_id)


class ActionFact(ExamineeFact):
    """A decision about an examinee: who decided (`by`, `byName`), and the `actionId` of a proctor's frame.

    `byName`: the name of theirs that people read, as their token says.
    """

    by: Text
    by_name: Name | None = None
    action_id: ActionId | None = None


# -- connection -------------------------------------------------------------------------------------------


class ConnectionStatusCode(StrEnum):
    """An examinee's connection status.

    MIGRATING: its server is draining, and it is on its way to another one. FINISHED: the exam is over for this
    examinee; what its socket does is no loss any more.
    """

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    MIGRATING = "MIGRATING"
    FINISHED = "FINISHED"


def _check_socket_status(status: ConnectionStatusCode) -> ConnectionStatusCode:
    if status not in (ConnectionStatusCode.CONNECTED, ConnectionStatusCode.DISCONNECTED):
        raise ValueError("must be CONNECTED or DISCONNECTED; a migration is given by the reason")
    return status


SocketStatusCode = Annotated[
    ConnectionStatusCode,
    AfterValidator(_check_socket_status),
    WithJsonSchema({"type": "string", "enum": ["CONNECTED", "DISCONNECTED"]}),
]


class LossReason(StrEnum):
    """The `reason` of a loss.

    SOCKET_CLOSED: the connection broke. CLIENT_CLOSED: the client closed it, with a close frame. SERVER_DRAINING:
    migrating, which is a loss only if it does not reach another server.
    """

    SOCKET_CLOSED = "SOCKET_CLOSED"
    CLIENT_CLOSED = "CLIENT_CLOSED"
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


class ClientInfo(Stored):
    """What is known of a client. `browserInfo`: what it says of itself; `userAgent`: the header that was seen."""

    ip_address: Text | None = None
    browser_info: Text | None = None
    user_agent: Text | None = None


class UnstableRule(Stored):
    """When a plan calls an examinee unstable: away for more than `share` of the last `windowSeconds`.

    Time before `startsAt` does not count.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    window_seconds: Annotated[int, Field(ge=1, le=86400)] = 600
    starts_at: Timestamp | None = None


class ConnectionStatus(ExamineeFact):
    """A socket has opened or closed.

    `again`: the server announces an open socket once more; an examinee that has connected since by another socket
    has replaced it, unless this one was opened later, at `openedAt`. `closeCode`: that of a closed socket, if it was
    closed with one. `unstableRule`: that of the plan when the socket opened, as far as its server knew.
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
    opened_at: Timestamp | None = None
    close_code: Annotated[int, Field(ge=1000, le=4999)] | None = None
    unstable_rule: UnstableRule | None = None


class ReconnectAttempt(ExamineeFact):
    """Attempt `attempt` of `maxAttempts` after the loss `lossVersion` has begun. Published by the reconnect watch."""

    type: ClassVar[str] = "reconnect_attempt"
    loss_version: Version
    attempt: Annotated[int, Field(ge=1)]
    max_attempts: Annotated[int, Field(ge=1)]
    next_attempt_at: Timestamp | None = None


class ReconnectExhausted(ExamineeFact):
    """The last attempt after the loss `lossVersion` ended without a recovery. Published by the reconnect watch."""

    type: ClassVar[str] = "reconnect_exhausted"
    loss_version: Version


class UnstableTimeout(ExamineeFact):
    """An unstable examinee has stayed connected for long enough since the fact `connectedVersion`.

    Published by a schedule of NATS.
    """

    type: ClassVar[str] = "unstable_timeout"
    connected_version: Version


class Enrol(ExamineeFact):
    """The plan's roster names an examinee, who may connect later or never; `by`: who enrolled them.

    An absent `name` stays as it was; so do absent `labels`. Given `labels` replace all earlier ones.
    """

    type: ClassVar[str] = "enrol"
    name: Name | None = None
    labels: Labels | None = None
    by: Text | None = None
    action_id: ActionId | None = None


class Readmit(ActionFact):
    """A proctor allows an examinee to connect again, after the last attempt failed or after a removal."""

    type: ClassVar[str] = "readmit"


class Remove(ActionFact):
    """A proctor removes an examinee: connections under this id are refused until a proctor readmits it."""

    type: ClassVar[str] = "remove"
    reason: Text | None = None


class FinishReason(StrEnum):
    """Why the exam is over for an examinee: it has handed in, somebody decided so, or the plan has ended."""

    HANDED_IN = "HANDED_IN"
    DECIDED = "DECIDED"
    PLAN_ENDED = "PLAN_ENDED"


class ExamineeFinish(ActionFact):
    """The exam is over for an examinee. `by`: who said so; `plan` when the plan has ended."""

    type: ClassVar[str] = "examinee_finish"
    reason: FinishReason = FinishReason.DECIDED


class ExamineeResume(ActionFact):
    """A finished examinee goes on with the exam: a proctor says so, or the plan was opened again (`by`: `plan`)."""

    type: ClassVar[str] = "examinee_resume"


Aspect = Literal["connection", "mobile_sync", "notices"]
"""The three aspects of an examinee's state. Each has its own record and its own line of versions."""


class Restate(ExamineeFact):
    """The state manager publishes an examinee's state and its effects again.

    The last published state may be wrong: a late message has changed it, or Redis was repaired.
    """

    type: ClassVar[str] = "restate"
    aspect: Aspect = "connection"


# -- mobile sync ------------------------------------------------------------------------------------------


class MobileSyncCode(StrEnum):
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"


class MobileSyncReason(StrEnum):
    """`reason` of a mobile sync that FAILED or TIMED_OUT.

    IMAGE_UPLOAD_FAILED: of a release that did not tell apart the four reasons before it.
    """

    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    IMAGE_DAMAGED = "IMAGE_DAMAGED"
    IMAGE_NOT_SUPPORTED = "IMAGE_NOT_SUPPORTED"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    IMAGE_UPLOAD_FAILED = "IMAGE_UPLOAD_FAILED"
    IMAGE_STORE_FAILED = "IMAGE_STORE_FAILED"
    STATE_CHANGE_FAILED = "STATE_CHANGE_FAILED"
    SYNC_TIMEOUT = "SYNC_TIMEOUT"


class DeviceInfo(Stored):
    model: Text | None = None
    os_version: Text | None = None


class CaptureInfo(Stored):
    """`imageUrl`: relative to the plan. `receivedAt`: when the picture had arrived, before it was checked."""

    image_url: Annotated[str, Field(max_length=512)]
    device_info: DeviceInfo = DeviceInfo()
    received_at: Timestamp | None = None


class MobileSyncWait(ExamineeFact):
    """An examinee has entered the mobile sync stage, which lasts until `deadline`.

    `byLogTime`: the stage begins at the time at which the log stored the fact, and lasts from `timestamp` to
    `deadline` by the sender's clock. So a wrong clock does not matter. `challenge`: what the picture must show, made
    for this stage.
    """

    type: ClassVar[str] = "mobile_sync_wait"
    deadline: Timestamp
    by_log_time: bool | None = None
    challenge: Challenge | None = None


class MobileSyncStatus(ExamineeFact):
    """The outcome of an upload; also the event that proctors get for every other change of the stage.

    `captureId` is the SHA-256 of the picture as it was sent, by which a repeated upload is recognised. `by` and
    `actionId`: the proctor who gave more time, or asked for another picture than `captureId`. `captures`, `review` and
    `challenge`: as in `mobileSync` of a row, in events only.
    """

    type: ClassVar[str] = "mobile_sync_status"
    device_id: Id | None = None
    status: MobileSyncCode
    capture_info: CaptureInfo | None = None
    reason: Reason | None = None
    capture_id: CaptureId | None = None
    deadline: Timestamp | None = None
    by: Text | None = None
    by_name: Name | None = None
    action_id: ActionId | None = None
    captures: list[CaptureView] | None = None
    review: ReviewView | None = None
    challenge: Challenge | None = None
    version: Version | None = None


class MobileSyncExtend(ActionFact):
    """A proctor gives an examinee `seconds` more for the picture, also after the stage has ended without one.

    `byLogTime`: as in `mobile_sync_wait`.
    """

    type: ClassVar[str] = "mobile_sync_extend"
    seconds: Annotated[int, Field(ge=10, le=3600, strict=True)]
    by_log_time: bool | None = None


class CaptureReview(ActionFact):
    """A proctor has looked at a picture. A rejected one opens the stage again for `seconds`, with a new `challenge`.

    `reason`: why another one is asked for, in the proctor's words or as a `RejectReason`. `byLogTime`: as in
    `mobile_sync_wait`.
    """

    type: ClassVar[str] = "capture_review"
    capture_id: CaptureId
    verdict: Verdict
    reason: Text | None = None
    seconds: Annotated[int, Field(ge=10, le=3600, strict=True)] = 120
    challenge: Challenge | None = None
    by_log_time: bool | None = None


class MobileSyncTimeout(ExamineeFact):
    """The deadline that the fact `waitVersion` has set is over. Published by a schedule of NATS."""

    type: ClassVar[str] = "mobile_sync_timeout"
    wait_version: Version


# -- messages of proctors ---------------------------------------------------------------------------------


class _NoticeMessage(ExamineeFact):
    """A fact; with `version` also the event that proctors get.

    `unconfirmed`: the actionIds among the newest 20 that the examinee has not confirmed. `sent` counts all messages.
    `confirmedPlanNotices`: the newest messages to several (`plan_notice`) that the examinee has confirmed. `help`: the
    examinee's open request for help. `restated`: published again because a late message changed the last published
    state.
    """

    action_id: ActionId
    unconfirmed: list[ActionId] | None = None
    sent: int | None = None
    confirmed_plan_notices: list[ActionId] | None = None
    help: HelpView | None = None
    restated: bool | None = None
    version: Version | None = None


class Notice(_NoticeMessage):
    """A message of the proctor `by` to an examinee; the examinee and the proctors get it as an event."""

    type: ClassVar[str] = "notice"
    text: NoticeText
    by: Text
    by_name: Name | None = None


class NoticeConfirmed(_NoticeMessage):
    """The examinee has read the message `actionId`; in the event, `by` is the proctor who sent it.

    A message that was not sent to this examinee alone is one to several (`plan_notice`); its event has no `by`.
    """

    type: ClassVar[str] = "notice_confirmed"
    by: Text | None = None
    by_name: Name | None = None


# -- help -------------------------------------------------------------------------------------------------


class HelpRequest(ExamineeFact):
    """An examinee asks for help. `actionId` names the request; it has no effect while another one is open."""

    type: ClassVar[str] = "help_request"
    action_id: ActionId
    text: NoticeText | None = None


class HelpTake(ActionFact):
    """The proctor `by` takes the open request `helpId`; also instead of another proctor."""

    type: ClassVar[str] = "help_take"
    help_id: ActionId


class HelpClose(ActionFact):
    """The request `helpId` is over. `by`: a proctor, or the examinee, who takes it back."""

    type: ClassVar[str] = "help_close"
    help_id: ActionId


# -- unions -----------------------------------------------------------------------------------------------

ConnectionFact = (
    ConnectionStatus
    | ReconnectAttempt
    | ReconnectExhausted
    | UnstableTimeout
    | Enrol
    | Readmit
    | Remove
    | ExamineeFinish
    | ExamineeResume
    | Restate
)
MobileSyncFact = MobileSyncWait | MobileSyncStatus | MobileSyncExtend | CaptureReview | MobileSyncTimeout | Restate
NoticeFact = Notice | NoticeConfirmed | HelpRequest | HelpTake | HelpClose | Restate


def aspect_of(fact: ExamineeFact) -> Aspect:
    """Return the aspect that a fact changes, and so which of the examinee's three records."""
    match fact:
        case Restate():
            return fact.aspect
        case MobileSyncWait() | MobileSyncStatus() | MobileSyncExtend() | CaptureReview() | MobileSyncTimeout():
            return "mobile_sync"
        case Notice() | NoticeConfirmed() | HelpRequest() | HelpTake() | HelpClose():
            return "notices"
        case _:
            return "connection"


STATUS_MESSAGES: tuple[type[Message], ...] = (
    *get_args(ConnectionFact | MobileSyncFact | NoticeFact | ServerStatus),
    *PLAN_FACTS,
)
"""The facts that the state manager receives."""


STATUS_CODEC = Codec.of(STATUS_MESSAGES, keeps_unknown=True)
